//! How long a file and a function may be, that each module says what it is for, and how files are called.

use crate::{
    assert_none,
    sources::{Source, all_rust, source},
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const NAMES_THAT_SAY_NOTHING: [&str; 8] =
    ["utils", "util", "helpers", "helper", "common", "manager", "misc", "shared"];

fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let mut findings = Vec::new();
    if lines > FILE_LINES_MAX {
        findings.push(format!("{}: {lines} lines; a file has at most {FILE_LINES_MAX}", source.path));
    }
    for (name, lines) in functions(&source.text) {
        if lines > FUNCTION_LINES_MAX {
            findings.push(format!(
                "{}: `{name}` has {lines} lines; a function has at most {FUNCTION_LINES_MAX}",
                source.path
            ));
        }
    }
    findings
}

/// Every function with the number of lines between its braces. rustfmt puts the closing brace at the depth of the `fn`.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let end_of_signature =
            (start..lines.len()).find(|at| lines[*at].ends_with('{') || lines[*at].ends_with([';', '}']));
        let Some(open) = end_of_signature.filter(|at| lines[*at].ends_with('{')) else { continue };
        let close = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        if let Some(length) = lines[open + 1..].iter().position(|line| *line == close) {
            found.push((name, length));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut rest = line.trim_start();
    if let Some(public) = rest.strip_prefix("pub") {
        rest = public.trim_start();
        if rest.starts_with('(') {
            rest = rest.split_once(')')?.1.trim_start();
        }
    }
    for word in ["const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let name = rest.strip_prefix("fn ")?;
    Some(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

fn undocumented(source: &Source) -> Vec<String> {
    let says_what_it_is = source.text.lines().next().is_some_and(|first| first.starts_with("//! "));
    if says_what_it_is { Vec::new() } else { vec![format!("{}: begins without `//!`", source.path)] }
}

fn badly_named(path: &str) -> Vec<String> {
    let stems = path.split('/').map(|segment| segment.trim_end_matches(".rs"));
    stems
        .filter(|stem| NAMES_THAT_SAY_NOTHING.contains(stem))
        .map(|stem| format!("{path}: `{stem}` says nothing"))
        .collect()
}

#[test]
fn every_file_and_function_reads_in_one_sitting() {
    assert_none(&all_rust().iter().flat_map(too_long).collect::<Vec<_>>());
}

#[test]
fn every_module_says_what_it_is_for() {
    assert_none(&all_rust().iter().flat_map(undocumented).collect::<Vec<_>>());
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    assert_none(&all_rust().iter().flat_map(|file| badly_named(&file.path)).collect::<Vec<_>>());
}

#[test]
fn what_is_too_long_is_found() {
    let long_file = "//! x\n".repeat(FILE_LINES_MAX + 1);
    assert_eq!(too_long(&source("src/x.rs", &long_file)).len(), 1);
    let body = |lines| {
        format!(
            "impl X {{\n    pub(super) async fn f(\n        a: u8,\n    ) {{\n{}    }}\n}}\n",
            "        g();\n".repeat(lines)
        )
    };
    assert_none(&too_long(&source("src/x.rs", &body(FUNCTION_LINES_MAX))));
    assert_eq!(too_long(&source("src/x.rs", &body(FUNCTION_LINES_MAX + 1))).len(), 1);
    assert_eq!(
        functions("trait T {\n    fn f(&self);\n    fn g(&self) {}\n}\nfn h() {\n    1\n}\n"),
        [("h".to_owned(), 1)]
    );
}

#[test]
fn a_silent_module_and_an_empty_name_are_found() {
    assert_eq!(undocumented(&source("src/x.rs", "use a;\n")).len(), 1);
    assert_eq!(badly_named("src/app/utils.rs").len(), 1);
    assert_eq!(badly_named("src/common/mod.rs").len(), 1);
    assert_none(&badly_named("src/app/uploads/commit.rs"));
}
