//! Architecture rules as tests: imports between modules, use of libraries, queries, length of files and
//! functions, and forbidden content. The tests read the sources as text and need only the repository.
//!
//! Every check is a function from a file to its findings, and is itself tested with a file that violates the
//! rule.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/clocks.rs"]
mod clocks;
#[path = "architecture/commits.rs"]
mod commits;
#[path = "architecture/contract.rs"]
mod contract;
#[path = "architecture/deletions.rs"]
mod deletions;
#[path = "architecture/file_locks.rs"]
mod file_locks;
#[path = "architecture/frozen_migrations.rs"]
mod frozen_migrations;
#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/journeys.rs"]
mod journeys;
#[path = "architecture/leftovers.rs"]
mod leftovers;
#[path = "architecture/migrations.rs"]
mod migrations;
#[path = "architecture/queries.rs"]
mod queries;
#[path = "architecture/sizes.rs"]
mod sizes;
#[path = "architecture/sources.rs"]
mod sources;
#[path = "architecture/sql_states.rs"]
mod sql_states;
#[path = "architecture/words.rs"]
mod words;

/// Fails with all findings, one per line.
#[track_caller]
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}
