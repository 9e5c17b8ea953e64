//! Rules for the imports between modules and for the use of libraries.

use std::collections::BTreeSet;

use crate::{
    assert_none,
    sources::{Source, production_code, rust_files_in, source_file, test_file_paths},
};

/// The modules that each module may import. A module may always import itself. A module that is not listed is
/// rejected.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    ("cli", EVERYTHING),
    ("grpc", &["admission", "app", "domain", "config", "telemetry", "proto"]),
    ("edge", &["admission", "app", "domain", "config", "telemetry", "proto"]),
    ("worker", &["app", "jobs", "db", "domain", "config", "telemetry"]),
    (
        "app",
        &[
            "admission",
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
    ("storage", &["admission", "crypto", "domain", "config", "telemetry"]),
    ("admission", &["domain", "telemetry"]),
    ("db", &["admission", "domain", "config", "telemetry"]),
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
    "admission",
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

/// Libraries with restricted use: the prefix of the library name, and the prefixes of the paths that may use
/// it.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("diesel", &["src/db/"]),
    ("tokio_postgres", &["src/db/"]),
    // The trace exporter uses gRPC, and its TLS settings are a type of tonic.
    ("tonic", &["src/grpc/", "src/client/", "src/proto", "src/telemetry/traces.rs"]),
    ("prost", &["src/grpc/", "src/client/", "src/cli/client/", "src/proto"]),
    ("axum", &["src/edge/"]),
    ("redis", &["src/admission/shared_rates.rs"]),
    ("aws_sdk", &["src/storage/s3"]),
    ("aws_config", &["src/storage/s3"]),
    ("azure_", &["src/storage/azure"]),
    ("google_cloud", &["src/storage/gcs"]),
    ("jsonwebtoken", &["src/grpc/auth/", "src/cli/dev/"]),
    ("indicatif", &["src/cli/"]),
    ("clap", &["src/cli/"]),
];

/// Returns the top-level module of a file: the first directory below `src`, or the file's own name.
fn top_module(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

/// Returns the number of `super::` segments from the module of a file to the root of the crate.
fn depth_of(path: &str) -> usize {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let segments = inside.split('/').count();
    if inside.ends_with("/mod.rs") { segments - 1 } else { segments }
}

/// Returns the top-level modules that a text refers to, by `crate::module`, `crate::{module::…, …}`, or
/// `super::` up to the root.
fn imported_modules(text: &str, depth: usize) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in text.match_indices(&root) {
            let is_suffix_of_path =
                text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if !is_suffix_of_path {
                modules.extend(first_names(&text[at + root.len()..]));
            }
        }
    }
    modules
}

/// Returns the first name of a path, or the first-level names of a group.
fn first_names(path: &str) -> Vec<String> {
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

fn find_forbidden_imports(source: &Source) -> Vec<String> {
    let module = top_module(&source.path);
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(known, _)| *known == module) else {
        return vec![format!("{}: `{module}` is missing from `MAY_IMPORT`", source.path)];
    };
    let is_module = |name: &&String| MAY_IMPORT.iter().any(|(known, _)| *known == name.as_str());
    imported_modules(&production_code(&source.text), depth_of(&source.path))
        .iter()
        .filter(is_module)
        .filter(|name| *name != module && !allowed.contains(&name.as_str()))
        .map(|name| format!("{}: `{module}` must not import `{name}`", source.path))
        .collect()
}

fn find_forbidden_libraries(source: &Source) -> Vec<String> {
    let text = production_code(&source.text);
    let mut findings = Vec::new();
    for (library, paths) in LIBRARIES {
        if !paths.iter().any(|path| source.path.starts_with(path)) && uses_library(&text, library) {
            findings.push(format!("{}: only {paths:?} may use `{library}`", source.path));
        }
    }
    findings
}

/// Returns whether a path in the text starts with a library of this prefix: `tonic` also matches
/// `tonic_types`, and `azure_` matches `azure_storage`.
fn uses_library(text: &str, library: &str) -> bool {
    text.match_indices(library).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let is_start = !before.is_some_and(|c| c.is_alphanumeric() || "_:.\"`-/".contains(c));
        let after = &text[at + library.len()..];
        let is_name = library.ends_with('_') || !after.starts_with(|c: char| c.is_alphanumeric());
        let rest = after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        is_start && is_name && rest.starts_with("::")
    })
}

/// Returns the files of the program without those that are compiled only for tests.
pub(crate) fn production_sources() -> Vec<Source> {
    let sources = rust_files_in("src");
    let tests = test_file_paths(&sources);
    sources.into_iter().filter(|source| !tests.contains(&source.path)).collect()
}

#[test]
fn modules_import_only_allowed_modules() {
    assert_none(&production_sources().iter().flat_map(find_forbidden_imports).collect::<Vec<_>>());
}

#[test]
fn libraries_are_used_only_in_allowed_modules() {
    assert_none(&production_sources().iter().flat_map(find_forbidden_libraries).collect::<Vec<_>>());
}

#[test]
fn entry_points_never_import_one_another() {
    for entry_point in ["grpc", "edge", "worker"] {
        let (_, allowed) = MAY_IMPORT.iter().find(|(module, _)| *module == entry_point).unwrap();
        assert!(
            !["grpc", "edge", "worker", "cli"].iter().any(|other| allowed.contains(other)),
            "{entry_point}"
        );
    }
}

#[test]
fn forbidden_imports_are_found() {
    for text in [
        "use crate::db::files;",
        "use crate::{app::App, db};",
        "use crate::{\n    app::{App, Error},\n    db::{files, quotas},\n};",
        "fn f() { crate::db::files::get(); }",
        "use super::super::db::files;",
    ] {
        assert_eq!(find_forbidden_imports(&source_file("src/grpc/files.rs", text)).len(), 1, "{text}");
    }
    for text in [
        "use crate::app::db_like::x;",
        "// use crate::db;",
        "#[cfg(test)]\nmod tests {\n    use crate::db;\n}",
    ] {
        assert_none(&find_forbidden_imports(&source_file("src/grpc/files.rs", text)));
    }
    assert_eq!(
        find_forbidden_imports(&source_file("src/novel/mod.rs", "")).len(),
        1,
        "a module that is not in the table"
    );
    assert_eq!(find_forbidden_imports(&source_file("src/domain/file.rs", "use crate::{config};")).len(), 1);
}

#[test]
fn forbidden_libraries_are_found() {
    for text in ["use diesel::prelude::*;", "use diesel_async::RunQueryDsl;", "let x = tonic::Status::ok();"]
    {
        assert_eq!(find_forbidden_libraries(&source_file("src/app/mod.rs", text)).len(), 1, "{text}");
    }
    assert_none(&find_forbidden_libraries(&source_file(
        "src/app/mod.rs",
        "let clapped = clapping::x(); opentelemetry_otlp::tonic();",
    )));
    assert_none(&find_forbidden_libraries(&source_file("src/db/files.rs", "use diesel::prelude::*;")));
    assert_eq!(
        find_forbidden_libraries(&source_file("src/storage/local/mod.rs", "use aws_sdk_s3::Client;")).len(),
        1
    );
}
