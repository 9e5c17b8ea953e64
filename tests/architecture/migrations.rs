//! Every migration can be taken back, and every table is bound to its tenant in the migration that creates it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    assert_none,
    sources::{Source, committed, source},
};

fn migrations(files: &[Source]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in files {
        let mut segments = file.path.split('/');
        if let (Some("migrations"), Some(migration), Some(name), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        {
            found.entry(migration.to_owned()).or_default().insert(name.to_owned(), file.text.clone());
        }
    }
    found
}

fn one_way(files: &[Source]) -> Vec<String> {
    let wanted: BTreeSet<String> = ["up.sql", "down.sql"].map(str::to_owned).into();
    let is_named = |name: &str| {
        name.split_once('_').is_some_and(|(time, verb)| {
            time.len() == 14 && time.bytes().all(|byte| byte.is_ascii_digit()) && verb.contains('_')
        })
    };
    let mut findings = Vec::new();
    for (migration, files) in migrations(files) {
        if files.keys().cloned().collect::<BTreeSet<_>>() != wanted {
            findings.push(format!("{migration}: needs exactly up.sql and down.sql"));
        }
        if files.values().any(|text| text.trim().is_empty()) {
            findings.push(format!("{migration}: one of its files is empty"));
        }
        if !is_named(&migration) {
            findings.push(format!("{migration}: must be called <timestamp>_<verb>_<noun>"));
        }
    }
    findings
}

/// Tables that the migration creates and leaves open.
fn unprotected(path: &str, sql: &str) -> Vec<String> {
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
        // A template of a name: the function that makes partitions protects each itself.
        if name.contains('%') {
            continue;
        }
        let by_procedure = flat.contains(&format!("CALL app.protect('{name}'"));
        let by_hand = flat.contains(&format!("ALTER TABLE {name} FORCE ROW LEVEL SECURITY"))
            && flat.contains(&format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"));
        if !by_procedure && !by_hand {
            findings.push(format!("{path}: table `{name}` has no row-level security"));
        }
    }
    findings
}

#[test]
fn every_migration_goes_both_ways() {
    let files = committed();
    assert!(migrations(&files).len() >= 5, "the migrations were not found");
    assert_none(&one_way(&files));
}

#[test]
fn every_table_is_protected_where_it_is_created() {
    let files = committed();
    let up =
        files.iter().filter(|file| file.path.starts_with("migrations/") && file.path.ends_with("/up.sql"));
    assert_none(&up.flat_map(|file| unprotected(&file.path, &file.text)).collect::<Vec<_>>());
}

#[test]
fn a_migration_without_a_way_back_and_an_open_table_are_found() {
    let up = source("migrations/20260101000000_create_things/up.sql", "SELECT 1;");
    let down = source("migrations/20260101000000_create_things/down.sql", "SELECT 1;");
    assert_eq!(one_way(std::slice::from_ref(&up)).len(), 1);
    assert_none(&one_way(&[up, down]));
    assert_eq!(
        one_way(&[source("migrations/things/up.sql", ""), source("migrations/things/down.sql", "x")]).len(),
        2
    );

    assert_eq!(unprotected("x", "CREATE TABLE a (id int);").len(), 1);
    assert_eq!(unprotected("x", "CREATE TABLE a (id int);\n-- CALL app.protect('a');").len(), 1);
    assert_eq!(unprotected("x", "CREATE TABLE a (id int); CALL app.protect('b');").len(), 1);
    assert_none(&unprotected("x", "CREATE TABLE a (\n id int);\nCALL app.protect('a', $$ true $$);"));
}
