//! Which way imports may point, and which room may name which library.

use std::collections::BTreeSet;

use crate::{
    assert_none,
    sources::{Source, rust, shipped, source, test_files},
};

/// Who may import whom. A room may always import itself; what is not here may import nothing and be imported by nobody.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    ("cli", EVERYTHING),
    ("grpc", &["app", "domain", "config", "telemetry", "proto"]),
    ("edge", &["app", "domain", "config", "telemetry", "proto"]),
    ("worker", &["app", "jobs", "db", "domain", "config", "telemetry"]),
    (
        "app",
        &[
            "db",
            "jobs",
            "events",
            "storage",
            "scanning",
            "media",
            "compliance",
            "crypto",
            "domain",
            "config",
            "telemetry",
        ],
    ),
    ("jobs", &["db", "domain"]),
    ("events", &["db", "domain"]),
    ("storage", &["crypto", "domain", "config", "telemetry"]),
    ("db", &["domain", "config", "telemetry"]),
    ("scanning", &["domain", "config", "telemetry"]),
    ("media", &["domain", "config", "telemetry"]),
    ("compliance", &["domain", "config", "telemetry"]),
    ("crypto", &["domain", "config", "telemetry"]),
    ("telemetry", &["config"]),
    ("config", &["domain"]),
    ("domain", &[]),
    ("client", &["proto"]),
    ("proto", &[]),
];

const EVERYTHING: &[&str] = &[
    "grpc",
    "edge",
    "worker",
    "app",
    "jobs",
    "events",
    "storage",
    "db",
    "scanning",
    "media",
    "compliance",
    "crypto",
    "telemetry",
    "config",
    "domain",
    "client",
    "proto",
];

/// Libraries that one room keeps to itself: how their names begin, and where they may stand.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("diesel", &["src/db/"]),
    ("tokio_postgres", &["src/db/"]),
    // The exporter of traces speaks gRPC too, and its TLS settings are a type of tonic's.
    ("tonic", &["src/grpc/", "src/client/", "src/proto.rs", "src/telemetry/traces.rs"]),
    ("prost", &["src/grpc/", "src/client/", "src/cli/client/", "src/proto.rs"]),
    ("axum", &["src/edge/"]),
    ("aws_sdk", &["src/storage/s3"]),
    ("aws_config", &["src/storage/s3"]),
    ("azure_", &["src/storage/azure"]),
    ("google_cloud", &["src/storage/gcs"]),
    ("jsonwebtoken", &["src/grpc/auth/", "src/cli/dev/"]),
    ("indicatif", &["src/cli/"]),
    ("clap", &["src/cli/"]),
];

/// The room of a file: the first directory below `src`, or the file's own name.
fn room(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

/// How many `super::` lead from a file's module to the crate's root.
fn depth(path: &str) -> usize {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let segments = inside.split('/').count();
    if inside.ends_with("/mod.rs") { segments - 1 } else { segments }
}

/// The rooms that a text names, by `crate::room`, `crate::{room::…, …}`, or as many `super::` as lead to the root.
fn imported(text: &str, depth: usize) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in text.match_indices(&root) {
            let is_part_of_more = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if !is_part_of_more {
                rooms.extend(names(&text[at + root.len()..]));
            }
        }
    }
    rooms
}

/// The name at the start of a path, or the names of a group at its first level.
fn names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let text = text.trim_start();
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut names = vec![name(group)];
    let mut open = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            ',' if open == 1 => names.push(name(&group[at + 1..])),
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn wrong_imports(source: &Source) -> Vec<String> {
    let room = room(&source.path);
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(known, _)| *known == room) else {
        return vec![format!("{}: `{room}` has no line in the table of imports", source.path)];
    };
    let is_room = |name: &&String| MAY_IMPORT.iter().any(|(known, _)| *known == name.as_str());
    imported(&shipped(&source.text), depth(&source.path))
        .iter()
        .filter(is_room)
        .filter(|name| *name != room && !allowed.contains(&name.as_str()))
        .map(|name| format!("{}: `{room}` must not import `{name}`", source.path))
        .collect()
}

fn wrong_libraries(source: &Source) -> Vec<String> {
    let text = shipped(&source.text);
    let mut findings = Vec::new();
    for (library, places) in LIBRARIES {
        if !places.iter().any(|place| source.path.starts_with(place)) && names_library(&text, library) {
            findings.push(format!("{}: only {places:?} may name `{library}`", source.path));
        }
    }
    findings
}

/// Whether a path begins with this library, or with one of its family: `tonic_types` is named by `tonic`, `azure_storage`
/// by `azure_`.
fn names_library(text: &str, library: &str) -> bool {
    text.match_indices(library).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let is_start = !before.is_some_and(|c| c.is_alphanumeric() || "_:.\"`-/".contains(c));
        let behind = &text[at + library.len()..];
        let is_name = library.ends_with('_') || !behind.starts_with(|c: char| c.is_alphanumeric());
        let rest = behind.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        is_start && is_name && rest.starts_with("::")
    })
}

fn shipped_sources() -> Vec<Source> {
    let sources = rust("src");
    let tests = test_files(&sources);
    sources.into_iter().filter(|source| !tests.contains(&source.path)).collect()
}

#[test]
fn imports_point_the_way_the_plan_says() {
    assert_none(&shipped_sources().iter().flat_map(wrong_imports).collect::<Vec<_>>());
}

#[test]
fn a_library_is_named_only_in_the_room_that_owns_it() {
    assert_none(&shipped_sources().iter().flat_map(wrong_libraries).collect::<Vec<_>>());
}

#[test]
fn entrances_never_import_one_another() {
    for entrance in ["grpc", "edge", "worker"] {
        let (_, allowed) = MAY_IMPORT.iter().find(|(room, _)| *room == entrance).unwrap();
        assert!(!["grpc", "edge", "worker", "cli"].iter().any(|other| allowed.contains(other)), "{entrance}");
    }
}

#[test]
fn an_import_against_the_plan_is_found_wherever_it_hides() {
    for text in [
        "use crate::db::files;",
        "use crate::{app::App, db};",
        "use crate::{\n    app::{App, Error},\n    db::{files, quotas},\n};",
        "fn f() { crate::db::files::get(); }",
        "use super::super::db::files;",
    ] {
        assert_eq!(wrong_imports(&source("src/grpc/files.rs", text)).len(), 1, "{text}");
    }
    for text in [
        "use crate::app::db_like::x;",
        "// use crate::db;",
        "#[cfg(test)]\nmod tests {\n    use crate::db;\n}",
    ] {
        assert_none(&wrong_imports(&source("src/grpc/files.rs", text)));
    }
    assert_eq!(wrong_imports(&source("src/novel/mod.rs", "")).len(), 1, "a room that is not in the table");
    assert_eq!(wrong_imports(&source("src/domain/file.rs", "use crate::{config};")).len(), 1);
}

#[test]
fn a_library_in_the_wrong_room_is_found() {
    for text in ["use diesel::prelude::*;", "use diesel_async::RunQueryDsl;", "let x = tonic::Status::ok();"]
    {
        assert_eq!(wrong_libraries(&source("src/app/mod.rs", text)).len(), 1, "{text}");
    }
    assert_none(&wrong_libraries(&source(
        "src/app/mod.rs",
        "let clapped = clapping::x(); opentelemetry_otlp::tonic();",
    )));
    assert_none(&wrong_libraries(&source("src/db/files.rs", "use diesel::prelude::*;")));
    assert_eq!(wrong_libraries(&source("src/storage/local/mod.rs", "use aws_sdk_s3::Client;")).len(), 1);
}
