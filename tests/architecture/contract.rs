//! The protobuf definitions are documented: every service, RPC, message, enum and field has a comment.

use crate::{
    assert_none,
    sources::{Source, repository_files, source_file},
};

fn find_uncommented(source: &Source) -> Vec<String> {
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
    let ignored_prefixes = ["//", "reserved ", "option ", "syntax ", "package ", "import "];
    let is_field = line.contains(" = ") && line.ends_with(';');
    is_declaration || (is_field && !ignored_prefixes.iter().any(|word| line.starts_with(word)))
}

/// Finds RPCs whose comment has no `Errors:` section.
fn find_rpcs_without_errors(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let mut comment = String::new();
    for line in source.text.lines().map(str::trim) {
        if line.starts_with("rpc ") && !comment.contains("Errors:") {
            findings.push(format!("{}: the comment of `{line}` has no `Errors:` section", source.path));
        }
        if line.starts_with("//") { comment.push_str(line) } else { comment.clear() }
    }
    findings
}

fn proto_files() -> Vec<Source> {
    repository_files().into_iter().filter(|file| file.path.ends_with(".proto")).collect()
}

#[test]
fn every_proto_declaration_has_a_comment() {
    let protos = proto_files();
    assert!(protos.len() >= 5, "the proto files were not found");
    assert_none(&protos.iter().flat_map(find_uncommented).collect::<Vec<_>>());
}

#[test]
fn every_rpc_documents_its_errors() {
    assert_none(&proto_files().iter().flat_map(find_rpcs_without_errors).collect::<Vec<_>>());
}

#[test]
fn missing_comments_are_found() {
    let bare = "// S.\nservice S {\n  rpc A(AR) returns (AA);\n  // Says.\n  rpc B(BR) returns (BA);\n}\n";
    assert_eq!(find_uncommented(&source_file("x.proto", bare)).len(), 1);
    assert_eq!(find_rpcs_without_errors(&source_file("x.proto", bare)).len(), 2);
    assert_eq!(
        find_uncommented(&source_file("x.proto", "// M.\nmessage M {\n  string a = 1;\n}\n")).len(),
        1
    );
    assert_none(&find_uncommented(&source_file(
        "x.proto",
        "// M.\nmessage M {\n  // A.\n  string a = 1;\n  reserved 2;\n}\n",
    )));
}
