//! The plan of the house, as a test: which room may import which, who may name which library, how long a file may be, and
//! what no committed file may contain. It reads the sources as text, so it needs nothing but the repository.
//!
//! Every check is a function from a text to its findings, and is itself tested with a text that is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

#[path = "architecture/contract.rs"]
mod contract;
#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/migrations.rs"]
mod migrations;
#[path = "architecture/sizes.rs"]
mod sizes;
#[path = "architecture/sources.rs"]
mod sources;
#[path = "architecture/words.rs"]
mod words;

/// Fails with every finding, one a line.
#[track_caller]
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}
