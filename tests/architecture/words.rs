//! What no committed file contains: unfinished work, tests that do not run or that wait, and traces of the machine that a
//! file was written on.

use crate::{
    assert_none,
    sources::{Source, all_rust, committed, rust, source, test_files, tested},
};

/// Put together from halves, so that this file does not contain them.
const UNFINISHED: [&str; 6] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("#[igno", "re"),
];

/// Paths of one machine, and hosts of package registries: neither means anything to whoever clones this.
const OF_ONE_MACHINE: [&str; 9] = [
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

fn containing(source: &Source, words: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for word in words.iter().filter(|word| line.contains(**word)) {
            findings.push(format!("{}:{}: contains `{word}`", source.path, number + 1));
        }
    }
    findings
}

/// A test that sleeps is slow on a fast machine and red on a slow one. Time that stands still and moves when it is told
/// to is another matter.
fn sleeping(path: &str, text: &str) -> Vec<String> {
    let sleeps = text.contains(concat!("sleep", "(")) || text.contains(concat!("sleep_", "until("));
    let is_paused = text.contains("start_paused = true") || text.contains("time::pause()");
    if sleeps && !is_paused { vec![format!("{path}: a test sleeps")] } else { Vec::new() }
}

#[test]
fn nothing_is_left_unfinished_and_no_test_is_switched_off() {
    assert_none(&all_rust().iter().flat_map(|file| containing(file, &UNFINISHED)).collect::<Vec<_>>());
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let files = committed();
    assert_none(&files.iter().flat_map(|file| containing(file, &OF_ONE_MACHINE)).collect::<Vec<_>>());
}

#[test]
fn no_test_sleeps() {
    let sources = rust("src");
    let tests = test_files(&sources);
    let mut findings = Vec::new();
    for source in &sources {
        let text = if tests.contains(&source.path) { source.text.clone() } else { tested(&source.text) };
        findings.extend(sleeping(&source.path, &text));
    }
    findings.extend(rust("tests").iter().flat_map(|source| sleeping(&source.path, &source.text)));
    assert_none(&findings);
}

#[test]
fn what_must_not_be_there_is_found() {
    for word in UNFINISHED {
        assert_eq!(containing(&source("src/x.rs", &format!("let a = 1;\n{word}\n")), &[word]).len(), 1);
    }
    assert!(!containing(&source("x.toml", concat!("dir = \"/wo", "rk/x\"")), &OF_ONE_MACHINE).is_empty());
    assert_eq!(sleeping("x", concat!("tokio::time::sleep", "(d).await")).len(), 1);
    assert_none(&sleeping("x", concat!("#[tokio::test(start_paused = true)] sleep", "(d).await")));
}
