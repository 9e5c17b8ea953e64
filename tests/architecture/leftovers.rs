//! Leftovers that no committed file may contain: unfinished work, disabled tests, tests that sleep, and paths
//! of a developer's machine.

use crate::{
    assert_none,
    sources::{Source, repository_files, rust_files, rust_files_in, source_file, test_code, test_file_paths},
};

/// Markers of unfinished work and disabled tests, concatenated so that this file does not contain them.
const UNFINISHED: [&str; 6] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("#[igno", "re"),
];

/// Paths of a developer's machine, and hosts of package registries.
const MACHINE_SPECIFIC: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Use", "rs/"),
    concat!("static.", "crates.io"),
    concat!("index.", "crates.io"),
    concat!("registry.", "npmjs"),
    concat!("files.", "pythonhosted"),
    concat!("proxy.", "golang.org"),
];

fn find_words(source: &Source, words: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for word in words.iter().filter(|word| line.contains(**word)) {
            findings.push(format!("{}:{}: contains `{word}`", source.path, number + 1));
        }
    }
    findings
}

/// Reports a test that sleeps: it is slow on a fast machine, and fails on a slow one. Tests with paused time
/// may sleep.
fn find_sleep(path: &str, text: &str) -> Vec<String> {
    let sleeps = text.contains(concat!("sleep", "(")) || text.contains(concat!("sleep_", "until("));
    let is_paused = text.contains("start_paused = true") || text.contains("time::pause()");
    if sleeps && !is_paused { vec![format!("{path}: a test sleeps")] } else { Vec::new() }
}

#[test]
fn no_work_is_unfinished_and_no_test_is_ignored() {
    assert_none(&rust_files().iter().flat_map(|file| find_words(file, &UNFINISHED)).collect::<Vec<_>>());
}

#[test]
fn no_file_contains_machine_specific_paths() {
    let files = repository_files();
    assert_none(&files.iter().flat_map(|file| find_words(file, &MACHINE_SPECIFIC)).collect::<Vec<_>>());
}

#[test]
fn no_test_sleeps() {
    let sources = rust_files_in("src");
    let tests = test_file_paths(&sources);
    let mut findings = Vec::new();
    for source in &sources {
        let text = if tests.contains(&source.path) { source.text.clone() } else { test_code(&source.text) };
        findings.extend(find_sleep(&source.path, &text));
    }
    findings.extend(rust_files_in("tests").iter().flat_map(|source| find_sleep(&source.path, &source.text)));
    assert_none(&findings);
}

#[test]
fn leftovers_are_found() {
    for word in UNFINISHED {
        assert_eq!(find_words(&source_file("src/x.rs", &format!("let a = 1;\n{word}\n")), &[word]).len(), 1);
    }
    assert!(
        !find_words(&source_file("x.toml", concat!("dir = \"/wo", "rk/x\"")), &MACHINE_SPECIFIC).is_empty()
    );
    assert_eq!(find_sleep("x", concat!("tokio::time::sleep", "(d).await")).len(), 1);
    assert_none(&find_sleep("x", concat!("#[tokio::test(start_paused = true)] sleep", "(d).await")));
}
