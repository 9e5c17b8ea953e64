//! Limits for the length of files and functions, and rules for module documentation and file names.

use crate::{
    assert_none,
    sources::{Source, rust_files, source_file},
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// A generated file: its length is that of the schema.
const GENERATED: &str = "src/db/schema.rs";
const MEANINGLESS_NAMES: [&str; 8] =
    ["utils", "util", "helpers", "helper", "common", "manager", "misc", "shared"];

fn find_too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let mut findings = Vec::new();
    if lines > FILE_LINES_MAX && source.path != GENERATED {
        findings.push(format!("{}: the file has {lines} lines; the limit is {FILE_LINES_MAX}", source.path));
    }
    for (name, lines) in list_functions(&source.text) {
        if lines > FUNCTION_LINES_MAX {
            findings.push(format!(
                "{}: function `{name}` has {lines} lines; the limit is {FUNCTION_LINES_MAX}",
                source.path
            ));
        }
    }
    findings
}

/// Returns every function with the number of lines between its braces. Relies on rustfmt, which indents the
/// closing brace like the `fn`.
fn list_functions(text: &str) -> Vec<(String, usize)> {
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

fn find_undocumented_modules(source: &Source) -> Vec<String> {
    let is_documented = source.text.lines().next().is_some_and(|first| first.starts_with("//! "));
    if is_documented {
        Vec::new()
    } else {
        vec![format!("{}: module documentation (`//!`) is missing", source.path)]
    }
}

fn find_meaningless_names(path: &str) -> Vec<String> {
    let stems = path.split('/').map(|segment| segment.trim_end_matches(".rs"));
    stems
        .filter(|stem| MEANINGLESS_NAMES.contains(stem))
        .map(|stem| format!("{path}: `{stem}` is too general; name the contents"))
        .collect()
}

#[test]
fn files_and_functions_are_within_length_limits() {
    assert_none(&rust_files().iter().flat_map(find_too_long).collect::<Vec<_>>());
}

#[test]
fn every_module_is_documented() {
    assert_none(&rust_files().iter().flat_map(find_undocumented_modules).collect::<Vec<_>>());
}

#[test]
fn no_file_name_is_meaningless() {
    assert_none(&rust_files().iter().flat_map(|file| find_meaningless_names(&file.path)).collect::<Vec<_>>());
}

#[test]
fn long_files_and_functions_are_found() {
    let long_file = "//! x\n".repeat(FILE_LINES_MAX + 1);
    assert_eq!(find_too_long(&source_file("src/x.rs", &long_file)).len(), 1);
    let body = |lines| {
        format!(
            "impl X {{\n    pub(super) async fn f(\n        a: u8,\n    ) {{\n{}    }}\n}}\n",
            "        g();\n".repeat(lines)
        )
    };
    assert_none(&find_too_long(&source_file("src/x.rs", &body(FUNCTION_LINES_MAX))));
    assert_eq!(find_too_long(&source_file("src/x.rs", &body(FUNCTION_LINES_MAX + 1))).len(), 1);
    assert_eq!(
        list_functions("trait T {\n    fn f(&self);\n    fn g(&self) {}\n}\nfn h() {\n    1\n}\n"),
        [("h".to_owned(), 1)]
    );
}

#[test]
fn undocumented_modules_and_meaningless_names_are_found() {
    assert_eq!(find_undocumented_modules(&source_file("src/x.rs", "use a;\n")).len(), 1);
    assert_eq!(find_meaningless_names("src/app/utils.rs").len(), 1);
    assert_eq!(find_meaningless_names("src/common/mod.rs").len(), 1);
    assert_none(&find_meaningless_names("src/app/uploads/commit/batch.rs"));
}
