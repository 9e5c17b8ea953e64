//! Files are locked for changes in one place, and events have the revision of their file. Otherwise the order of a
//! file's events could differ from the order of its changes (`docs/decisions/0010-order-of-changes.md`).

use crate::{
    assert_none,
    sources::{Source, production_code, repository_files, source_file},
};

/// The files that may lock rows of `files` for changes.
const LOCKING_FILES: &[&str] = &["src/db/file_locks.rs", "migrations/functions/lock_files.sql"];

/// Returns the code of the files that contain queries, with single spaces.
fn query_code(files: &[Source]) -> Vec<Source> {
    let is_query_file = |path: &str| {
        (path.starts_with("src/") && path.ends_with(".rs")) || path.starts_with("migrations/functions/")
    };
    let code = |source: &Source| {
        let text = match source.path.ends_with(".sql") {
            true => {
                let lines = source.text.lines().map(|line| line.split("--").next().unwrap_or_default());
                lines.collect::<Vec<_>>().join("\n")
            }
            false => production_code(&source.text),
        };
        source_file(&source.path, &text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    files.iter().filter(|source| is_query_file(&source.path)).map(code).collect()
}

/// Returns whether a statement reads `files`, and not a table whose name only ends with it.
fn reads_files(statement: &str) -> bool {
    let is_built = ["files::table", "visible_files!", "visible_basic_files!"].iter().any(|name| {
        statement
            .match_indices(name)
            .any(|(at, _)| !statement[..at].ends_with(|last: char| last.is_alphanumeric() || last == '_'))
    });
    let is_text = ["FROM files ", "FROM public.files ", "JOIN files ", "JOIN public.files "];
    is_built || is_text.iter().any(|text| statement.contains(text))
}

/// Finds statements that lock rows of `files` for changes.
fn find_file_locks(files: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in query_code(files) {
        if LOCKING_FILES.contains(&source.path.as_str()) {
            continue;
        }
        for statement in source.text.split(';') {
            let is_lock = [".for_update()", ".for_no_key_update()", "FOR UPDATE", "FOR NO KEY UPDATE"]
                .iter()
                .any(|lock| statement.contains(lock));
            if is_lock && reads_files(statement) {
                found.push(format!("{}: lock files with `file_locks` or `app.lock_files`", source.path));
            }
        }
    }
    found
}

/// Finds inserts of events without a revision.
fn find_events_without_revision(files: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in query_code(files) {
        for insert in ["INSERT INTO events ", "INSERT INTO public.events "] {
            for (at, _) in source.text.match_indices(insert) {
                let columns = source.text[at..].split(')').next().unwrap_or_default();
                if !columns.split(['(', ',']).any(|column| column.trim() == "revision") {
                    found.push(format!("{}: {columns}): add the revision of the file", source.path));
                }
            }
        }
        if source.text.contains("insert_into(events::table)") {
            found.push(format!("{}: insert events with `events::insert`", source.path));
        }
    }
    found
}

#[test]
fn files_are_locked_in_one_place() {
    let files = repository_files();
    assert_none(&find_file_locks(&files));
    let found = files.iter().filter(|file| LOCKING_FILES.contains(&file.path.as_str()));
    assert_eq!(found.count(), LOCKING_FILES.len());
}

#[test]
fn every_event_has_a_revision() {
    assert_none(&find_events_without_revision(&repository_files()));
}

#[test]
fn locks_of_files_and_events_without_revision_are_found() {
    let locks = |path: &str, text: &str| find_file_locks(&[source_file(path, text)]).len();
    let built = "let lock = files::table.of(tenant)\n    .filter(files::id.eq(id))\n    .for_update();";
    assert_eq!(locks("src/db/x.rs", built), 1);
    assert_eq!(locks("src/db/file_locks.rs", built), 0);
    assert_eq!(locks("src/db/x.rs", "let lock = visible_files!(tx).for_update();"), 1);
    assert_eq!(locks("src/db/x.rs", "let lock = blobs::table.of(tenant).for_update();"), 0);
    assert_eq!(locks("src/db/x.rs", "let read = files::table.of(tenant).for_share();"), 0);
    assert_eq!(
        locks("migrations/functions/x.sql", "PERFORM FROM public.files AS f ORDER BY id FOR UPDATE;"),
        1
    );
    assert_eq!(locks("migrations/functions/x.sql", "PERFORM FROM public.uploads AS u FOR UPDATE;"), 0);

    let events = |text: &str| find_events_without_revision(&[source_file("src/db/x.rs", text)]).len();
    assert_eq!(events("\"INSERT INTO events AS e (tenant_id, kind) SELECT\""), 1);
    assert_eq!(events("\"INSERT INTO events AS e (tenant_id, revision, kind) SELECT\""), 0);
    assert_eq!(events("diesel::insert_into(events::table).values(x)"), 1);
}
