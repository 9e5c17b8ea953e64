//! The conformance suite of the port, with one function per guarantee. Every adapter must pass it, both
//! directly and below the decorators.
//!
//! The suite is part of the library, not of the unit tests, so that any test can run it against a real
//! server. It panics if a guarantee is violated. It uses a key prefix of its own, so it can run in a shared
//! bucket.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test suite: a violated guarantee panics")]

mod fixture;
mod listings;
mod markers;
mod multiparts;
mod objects;
mod presigned;

use std::sync::Arc;

use self::fixture::Fixture;
use super::{InitOptions, ObjectStorage};
use crate::domain::clock::IdSource;

/// Runs the whole suite.
///
/// # Panics
/// Panics if a guarantee is violated; the message names it.
pub async fn check_conformance(store: Arc<dyn ObjectStorage>, ids: Arc<dyn IdSource>) {
    let prefix = format!("conformance/{}", ids.uuid());
    let fixture = Fixture { store, ids, prefix };
    objects::check_all(&fixture).await;
    multiparts::check_all(&fixture).await;
    listings::check_all(&fixture).await;
    presigned::check_all(&fixture).await;
    markers::check_all(&fixture).await;
    initializes_and_reports_space(&fixture).await;
}

async fn initializes_and_reports_space(fixture: &Fixture) {
    // No decorator retries these calls, so one of several attempts must succeed. Repeating them is harmless.
    let mut is_ready = false;
    for _ in 0..6 {
        let initialized =
            fixture.store.initialize(&InitOptions { abort_incomplete_after_days: Some(7) }).await;
        is_ready |= initialized.is_ok_and(|report| !report.steps.is_empty());
    }
    assert!(is_ready, "the store could not be initialized");
    let mut spaces = Vec::new();
    for _ in 0..6 {
        spaces.push(fixture.store.space().await);
    }
    let space = spaces.into_iter().find_map(Result::ok).expect("the store does not report its space");
    assert!(space.is_none_or(|space| space.free_bytes <= space.total_bytes), "{space:?}");
}
