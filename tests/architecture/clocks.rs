//! Time has one source: processes follow the database's clock, and SQL reads it in one function, which tests replace.

use crate::{
    assert_none,
    sources::{Source, production_code, repository_files, rust_files_in, source_file, test_file_paths},
};

/// The files that may use the clock of the machine: the clock itself, and the processes and commands that measure its
/// difference to the database's or have no database. An S3 store compares the time of a signature with its own clock.
const SYSTEM_CLOCK_USERS: [&str; 5] = [
    "src/cli/assemble.rs",
    "src/cli/dev/callers.rs",
    "src/cli/mod.rs",
    "src/domain/clock.rs",
    "src/storage/s3/presign.rs",
];

/// The function that returns the time of a transaction.
const NOW_FUNCTION: &str = "migrations/functions/now.sql";

/// Times of PostgreSQL that a test clock does not replace.
const DATABASE_TIMES: [&str; 6] = [
    "transaction_timestamp()",
    "statement_timestamp()",
    "current_timestamp",
    "current_date",
    "localtimestamp",
    "timeofday()",
];

fn find_system_clock(source: &Source) -> Vec<String> {
    let is_used = production_code(&source.text).contains("SystemClock");
    match is_used && !SYSTEM_CLOCK_USERS.contains(&source.path.as_str()) {
        true => vec![format!("{}: uses `SystemClock`; use the clock of the process", source.path)],
        false => Vec::new(),
    }
}

fn find_database_times(source: &Source) -> Vec<String> {
    let (is_sql, text) = match source.path.ends_with(".sql") {
        true => (true, without_sql_comments(&source.text)),
        false => (false, production_code(&source.text)),
    };
    let text = text.to_lowercase();
    let mut found: Vec<&str> = DATABASE_TIMES.into_iter().filter(|time| text.contains(time)).collect();
    // In Rust, `now()` is the expression for `app.now()`.
    let is_other_now = |(at, _): (usize, &str)| !text[..at].ends_with("app.");
    if is_sql && text.match_indices("now()").any(is_other_now) {
        found.push("now()");
    }
    found.iter().map(|time| format!("{}: uses `{time}`; use `app.now()`", source.path)).collect()
}

fn without_sql_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("--").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn decisions_use_the_clock_of_the_database() {
    let sources = rust_files_in("src");
    let tests = test_file_paths(&sources);
    let sources = sources.iter().filter(|source| !tests.contains(&source.path));
    assert_none(&sources.flat_map(find_system_clock).collect::<Vec<_>>());
}

#[test]
fn sql_reads_the_time_in_one_function() {
    let is_checked = |file: &&Source| {
        let is_function = file.path.starts_with("migrations/functions/") && file.path != NOW_FUNCTION;
        is_function || (file.path.starts_with("src/db/") && file.path.ends_with(".rs"))
    };
    let files = repository_files();
    assert_none(&files.iter().filter(is_checked).flat_map(find_database_times).collect::<Vec<_>>());
}

#[test]
fn other_clocks_are_found() {
    let system = "let now = SystemClock.now();";
    assert_eq!(find_system_clock(&source_file("src/app/x.rs", system)).len(), 1);
    assert_none(&find_system_clock(&source_file("src/domain/clock.rs", system)));
    for (path, text) in [
        ("migrations/functions/x.sql", "WHERE expire_time <= now()"),
        ("migrations/functions/x.sql", "WHERE expire_time <= CURRENT_TIMESTAMP"),
        ("src/db/x.rs", "\"WHERE expire_time <= transaction_timestamp()\""),
    ] {
        assert_eq!(find_database_times(&source_file(path, text)).len(), 1, "{text}");
    }
    for (path, text) in [
        ("migrations/functions/x.sql", "-- not now()\nWHERE expire_time <= app.now()"),
        ("src/db/x.rs", "files::expire_time.le(now())"),
    ] {
        assert_none(&find_database_times(&source_file(path, text)));
    }
}
