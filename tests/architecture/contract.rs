//! The contract explains itself: every RPC, message, enum and field has a comment.

use crate::{
    assert_none,
    sources::{Source, committed, source},
};

fn uncommented(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let mut has_comment = false;
    for (number, line) in source.text.lines().enumerate() {
        let line = line.trim();
        if needs_comment(line) && !has_comment {
            findings.push(format!("{}:{}: `{line}` has no comment", source.path, number + 1));
        }
        has_comment = line.starts_with("//");
    }
    findings
}

fn needs_comment(line: &str) -> bool {
    let is_declaration =
        ["service ", "rpc ", "message ", "enum ", "oneof "].iter().any(|word| line.starts_with(word));
    let is_aside = ["//", "reserved ", "option ", "syntax ", "package ", "import "];
    let is_field = line.contains(" = ") && line.ends_with(';');
    is_declaration || (is_field && !is_aside.iter().any(|word| line.starts_with(word)))
}

/// The comment of an RPC says with what it can fail.
fn silent_about_errors(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let mut comment = String::new();
    for line in source.text.lines().map(str::trim) {
        if line.starts_with("rpc ") && !comment.contains("Errors:") {
            findings.push(format!("{}: `{line}` does not say with what it can fail", source.path));
        }
        if line.starts_with("//") { comment.push_str(line) } else { comment.clear() }
    }
    findings
}

fn protos() -> Vec<Source> {
    committed().into_iter().filter(|file| file.path.ends_with(".proto")).collect()
}

#[test]
fn everything_in_the_contract_has_a_comment() {
    let protos = protos();
    assert!(protos.len() >= 5, "the protos were not found");
    assert_none(&protos.iter().flat_map(uncommented).collect::<Vec<_>>());
}

#[test]
fn every_rpc_says_with_what_it_can_fail() {
    assert_none(&protos().iter().flat_map(silent_about_errors).collect::<Vec<_>>());
}

#[test]
fn a_missing_comment_is_found() {
    let bare = "// S.\nservice S {\n  rpc A(AR) returns (AA);\n  // Says.\n  rpc B(BR) returns (BA);\n}\n";
    assert_eq!(uncommented(&source("x.proto", bare)).len(), 1);
    assert_eq!(silent_about_errors(&source("x.proto", bare)).len(), 2);
    assert_eq!(uncommented(&source("x.proto", "// M.\nmessage M {\n  string a = 1;\n}\n")).len(), 1);
    assert_none(&uncommented(&source(
        "x.proto",
        "// M.\nmessage M {\n  // A.\n  string a = 1;\n  reserved 2;\n}\n",
    )));
}
