//! Every migration can be reverted, every table gets its row-level security in the migration that creates it,
//! and functions are in files of their own.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    assert_none,
    sources::{Source, repository_files, source_file},
};

fn group_by_migration(files: &[Source]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut migrations: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in files {
        let mut segments = file.path.split('/');
        if let (Some("migrations"), Some(migration), Some(name), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
            && migration != "functions"
        {
            migrations.entry(migration.to_owned()).or_default().insert(name.to_owned(), file.text.clone());
        }
    }
    migrations
}

fn find_malformed_migrations(files: &[Source]) -> Vec<String> {
    let expected: BTreeSet<String> = ["up.sql", "down.sql"].map(str::to_owned).into();
    let is_valid_name = |name: &str| {
        name.split_once('_').is_some_and(|(time, verb)| {
            time.len() == 14 && time.bytes().all(|byte| byte.is_ascii_digit()) && verb.contains('_')
        })
    };
    let mut findings = Vec::new();
    for (migration, files) in group_by_migration(files) {
        if files.keys().cloned().collect::<BTreeSet<_>>() != expected {
            findings.push(format!("{migration}: must contain exactly up.sql and down.sql"));
        }
        if files.values().any(|text| text.trim().is_empty()) {
            findings.push(format!("{migration}: must not contain empty files"));
        }
        if !is_valid_name(&migration) {
            findings.push(format!("{migration}: must be named <timestamp>_<verb>_<noun>"));
        }
    }
    findings
}

/// Finds tables that the migration creates without row-level security.
fn find_unprotected_tables(path: &str, sql: &str) -> Vec<String> {
    let sql: String =
        sql.lines().map(|line| line.split("--").next().unwrap_or("")).collect::<Vec<_>>().join(" ");
    let words: Vec<&str> = sql.split_whitespace().collect();
    let flat = words.join(" ");
    let mut findings = Vec::new();
    for at in
        words.windows(3).enumerate().filter(|(_, w)| w[0] == "CREATE" && w[1] == "TABLE").map(|(at, _)| at)
    {
        let rest = if words.get(at + 2) == Some(&"IF") { at + 5 } else { at + 2 };
        let name = words.get(rest).copied().unwrap_or_default().trim_end_matches(['(', ';']);
        // A `%` marks a name template: the function that creates partitions protects each partition.
        if name.contains('%') {
            continue;
        }
        let is_protected_by_procedure = flat.contains(&format!("CALL app.protect('{name}'"));
        let is_protected_by_statements = flat
            .contains(&format!("ALTER TABLE {name} FORCE ROW LEVEL SECURITY"))
            && flat.contains(&format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"));
        if !is_protected_by_procedure && !is_protected_by_statements {
            findings.push(format!("{path}: table `{name}` has no row-level security"));
        }
    }
    findings
}

/// Removes comments, and joins the words with single spaces.
fn flatten(sql: &str) -> String {
    let code = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    code.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// Finds files of functions that do not define the function of their name, and migrations that define one.
fn find_misplaced_functions(files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in
        files.iter().filter(|file| file.path.starts_with("migrations/") && !file.path.ends_with(".md"))
    {
        let code = flatten(&file.text);
        let names: Vec<&str> = code
            .split("CREATE ")
            .skip(1)
            .map(|rest| rest.strip_prefix("OR REPLACE ").unwrap_or(rest))
            .filter_map(|rest| rest.strip_prefix("FUNCTION ").or_else(|| rest.strip_prefix("PROCEDURE ")))
            .filter_map(|rest| Some(rest.split_once('(')?.0))
            .collect();
        let Some(name) = file.path.strip_prefix("migrations/functions/") else {
            if !names.is_empty() {
                findings.push(format!("{}: functions belong into migrations/functions/", file.path));
            }
            continue;
        };
        let expected = format!("app.{}", name.strip_suffix(".sql").unwrap_or(name));
        if names != [expected.as_str()] || !code.starts_with("CREATE OR REPLACE ") {
            findings.push(format!("{}: must create or replace {expected}, and nothing else", file.path));
        }
        if !file.text.starts_with("-- ") {
            findings.push(format!("{}: must start with a comment", file.path));
        }
    }
    findings
}

/// Finds functions in SQL that read something. PostgreSQL does not inline them. It plans them for each statement that
/// calls them, which can take longer than the statement.
fn find_functions_without_plan(path: &str, sql: &str) -> Vec<String> {
    let code = flatten(sql);
    let has_no_plan = code.contains(" LANGUAGE sql ") && code.contains("SELECT ");
    has_no_plan.then(|| format!("{path}: write it in plpgsql, whose plans are kept")).into_iter().collect()
}

/// Finds indexes without a comment that names the query that needs them.
fn find_unexplained_indexes(path: &str, sql: &str) -> Vec<String> {
    let lines: Vec<&str> = sql.lines().collect();
    let is_index = |line: &str| line.starts_with("CREATE INDEX ") || line.starts_with("CREATE UNIQUE INDEX ");
    let unexplained = lines.windows(2).filter(|pair| is_index(pair[1]) && !pair[0].starts_with("--"));
    unexplained.map(|pair| format!("{path}: say which query needs this index: {}", pair[1])).collect()
}

#[test]
fn every_migration_has_up_and_down() {
    let files = repository_files();
    assert!(group_by_migration(&files).len() >= 5, "the migrations were not found");
    assert_none(&find_malformed_migrations(&files));
}

#[test]
fn every_table_has_row_level_security() {
    let files = repository_files();
    let up =
        files.iter().filter(|file| file.path.starts_with("migrations/") && file.path.ends_with("/up.sql"));
    assert_none(&up.flat_map(|file| find_unprotected_tables(&file.path, &file.text)).collect::<Vec<_>>());
}

#[test]
fn functions_are_in_files_of_their_names() {
    let files = repository_files();
    assert!(
        files.iter().any(|file| file.path == "migrations/functions/now.sql"),
        "the functions were not found"
    );
    assert_none(&find_misplaced_functions(&files));
}

#[test]
fn plans_of_functions_are_kept() {
    let files = repository_files();
    let functions: Vec<_> =
        files.iter().filter(|file| file.path.starts_with("migrations/functions/")).collect();
    assert!(functions.iter().any(|file| file.text.contains("LANGUAGE sql")), "no function in SQL was found");
    let findings = functions.iter().flat_map(|file| find_functions_without_plan(&file.path, &file.text));
    assert_none(&findings.collect::<Vec<_>>());
}

#[test]
fn every_index_names_its_query() {
    let files = repository_files();
    let up = files.iter().filter(|file| file.path.starts_with("migrations/"));
    assert_none(&up.flat_map(|file| find_unexplained_indexes(&file.path, &file.text)).collect::<Vec<_>>());
}

#[test]
fn misplaced_functions_and_unexplained_indexes_are_found() {
    let find = |path: &str, text: &str| find_misplaced_functions(&[source_file(path, text)]).len();
    assert_eq!(find("migrations/functions/x.sql", "-- X.\nCREATE OR REPLACE FUNCTION app.x() AS"), 0);
    assert_eq!(find("migrations/functions/x.sql", "CREATE OR REPLACE FUNCTION app.x() AS"), 1);
    assert_eq!(find("migrations/functions/x.sql", "-- X.\nCREATE FUNCTION app.x() AS"), 1);
    assert_eq!(find("migrations/functions/x.sql", "-- X.\nCREATE OR REPLACE FUNCTION app.y() AS"), 1);
    assert_eq!(find("migrations/1_add_x/up.sql", "CREATE OR REPLACE FUNCTION app.x() AS"), 1);
    assert_eq!(find("migrations/1_add_x/up.sql", "CREATE TRIGGER t EXECUTE FUNCTION app.x();"), 0);
    let body = "CREATE FUNCTION app.x() RETURNS int\n    LANGUAGE sql STABLE\n    RETURN";
    assert_none(&find_functions_without_plan(
        "x",
        &format!("{body} coalesce(1, 2);\nREVOKE ALL ON FUNCTION x;"),
    ));
    assert_eq!(find_functions_without_plan("x", &format!("{body} (SELECT a\nFROM b);")).len(), 1);
    assert_none(&find_unexplained_indexes("x", "-- Query `list x`.\nCREATE INDEX a ON x (y);"));
    assert_eq!(find_unexplained_indexes("x", ");\nCREATE UNIQUE INDEX a ON x (y);").len(), 1);
}

#[test]
fn malformed_migrations_and_unprotected_tables_are_found() {
    let up = source_file("migrations/20260101000000_create_files/up.sql", "SELECT 1;");
    let down = source_file("migrations/20260101000000_create_files/down.sql", "SELECT 1;");
    assert_eq!(find_malformed_migrations(std::slice::from_ref(&up)).len(), 1);
    assert_none(&find_malformed_migrations(&[up, down]));
    assert_eq!(
        find_malformed_migrations(&[
            source_file("migrations/things/up.sql", ""),
            source_file("migrations/things/down.sql", "x")
        ])
        .len(),
        2
    );

    assert_eq!(find_unprotected_tables("x", "CREATE TABLE a (id int);").len(), 1);
    assert_eq!(find_unprotected_tables("x", "CREATE TABLE a (id int);\n-- CALL app.protect('a');").len(), 1);
    assert_eq!(find_unprotected_tables("x", "CREATE TABLE a (id int); CALL app.protect('b');").len(), 1);
    assert_none(&find_unprotected_tables(
        "x",
        "CREATE TABLE a (\n id int);\nCALL app.protect('a', $$ true $$);",
    ));
}
