//! The operations that `docs/architecture.md` follows step by step: each names a file once, so that a reader never
//! returns to a file.

use std::collections::BTreeSet;

use crate::{
    assert_none,
    sources::{Source, repository_files, source_file},
};

const DOCUMENT: &str = "docs/architecture.md";
const SECTION: &str = "## Three operations step by step";

/// Returns each operation with the files of its steps, in order.
fn list_journeys(document: &Source) -> Vec<(&str, Vec<&str>)> {
    let Some((_, section)) = document.text.split_once(SECTION) else { return Vec::new() };
    let section = section.split("\n## ").next().unwrap_or(section);
    section
        .split("\n### ")
        .skip(1)
        .map(|journey| {
            let (title, steps) = journey.split_once('\n').unwrap_or((journey, ""));
            (title, steps.lines().filter_map(file_of_step).collect())
        })
        .collect()
}

/// Returns the file of a line such as ``3. `src/x.rs`: …``.
fn file_of_step(line: &str) -> Option<&str> {
    let (number, rest) = line.split_once(". `")?;
    number.chars().all(|c| c.is_ascii_digit()).then_some(rest.split_once('`')?.0)
}

fn find_repeated_files(document: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (title, files) in list_journeys(document) {
        let mut seen = BTreeSet::new();
        for file in files {
            if !seen.insert(file) {
                findings.push(format!("{}: `{title}` returns to `{file}`", document.path));
            }
        }
    }
    findings
}

#[test]
fn journeys_name_each_file_once() {
    let files = repository_files();
    let document = files.iter().find(|file| file.path == DOCUMENT).unwrap();
    let journeys = list_journeys(document);
    assert!(journeys.len() >= 3 && journeys.iter().all(|(_, files)| files.len() > 1), "{journeys:?}");
    assert_none(&find_repeated_files(document));
}

#[test]
fn repeated_files_are_found() {
    let text =
        format!("{SECTION}\n\n### A\n\n1. `a.rs`: x\n   `b.rs`\n2. `b.rs`: y\n\n### B\n\n1. `a.rs`: x\n");
    assert_none(&find_repeated_files(&source_file(DOCUMENT, &text)));
    let text = text.replace("2. `b.rs`", "2. `a.rs`");
    assert_eq!(find_repeated_files(&source_file(DOCUMENT, &text)).len(), 1);
}
