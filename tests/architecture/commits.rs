//! `scripts/check-commit-messages` accepts good commit messages and reports the problems of bad ones.

use std::{env, fs, process::Command};

const GOOD: &str =
    "uploads: release quota when a client disconnects\n\nThe reservation stayed until its lease expired.\n";

/// Runs the check on one message and returns its violations, one per line.
fn violations(name: &str, message: &str) -> String {
    let file = env::temp_dir().join(format!("strongroom-commit-message-{}-{name}", std::process::id()));
    fs::write(&file, message).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/check-commit-messages");
    let output = Command::new(script).arg("--file").arg(&file).output().unwrap();
    fs::remove_file(&file).unwrap();
    let violations = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), violations.is_empty(), "{violations}");
    violations
}

#[test]
fn accepts_a_commit_message_with_scope_and_reason() {
    assert_eq!(violations("good", GOOD), "");
    assert_eq!(violations("comments", &format!("{GOOD}# Please enter the commit message.\n")), "");
}

#[test]
fn rejects_bad_commit_messages() {
    let body = "\n\nBecause.\n";
    for (name, message, expected) in [
        ("scope", format!("Release quota{body}"), "has no scope"),
        ("long", format!("uploads: release {}{body}", "x".repeat(72)), "the limit is 72"),
        ("stop", format!("uploads: release quota.{body}"), "full stop"),
        ("capital", format!("uploads: Release quota{body}"), "capital letter"),
        ("article", format!("uploads: the quota is released{body}"), "imperative"),
        ("past", format!("uploads: released quota{body}"), "imperative"),
        ("body", "uploads: release quota\n".to_owned(), "no body"),
        ("comment", "uploads: release quota\n\n# Please enter the commit message.\n".to_owned(), "no body"),
        ("second", "uploads: release quota\nBecause.\n\nMore.\n".to_owned(), "is not empty"),
    ] {
        let violations = violations(name, &message);
        assert!(violations.contains(expected), "{name}: {violations}");
    }
}
