//! The conformance suite of the port, with one function per guarantee. Every adapter must pass it, both
//! directly and below the decorators.
//!
//! The suite is part of the library, not of the unit tests, so that any test can run it against a real
//! server. It panics if a guarantee is violated. It uses a key prefix of its own, so it can run in a shared
//! bucket.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test suite: a violated guarantee panics")]

mod listings;
mod multiparts;
mod objects;
mod presigned;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use chrono::NaiveDate;
use futures::TryStreamExt;

use super::{
    InitOptions, MultipartId, ObjectInfo, ObjectStorage, PIECE_SIZE_BYTES_MAX, PartReceipt, Payload,
    PutOptions, StorageError, StorageErrorKind,
};
use crate::domain::{
    clock::IdSource,
    ids::{BlobId, TenantId},
    object_key::ObjectKey,
    storage_class::StorageClass,
};

/// A part size that every store accepts for parts other than the last.
const PART_SIZE_BYTES: u64 = 5 * 1024 * 1024;

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

/// The store under test, with a key prefix of its own.
struct Fixture {
    store: Arc<dyn ObjectStorage>,
    ids: Arc<dyn IdSource>,
    prefix: String,
}

impl Fixture {
    /// Generates a new key.
    fn key(&self) -> ObjectKey {
        self.key_of("media_resource", TenantId::from_uuid(self.ids.uuid()))
    }

    fn key_of(&self, category: &str, tenant: TenantId) -> ObjectKey {
        let day = NaiveDate::from_ymd_opt(2026, 1, 2).unwrap();
        ObjectKey::for_blob(&self.prefix, tenant, category, day, BlobId::from_uuid(self.ids.uuid())).unwrap()
    }

    async fn put(&self, key: &ObjectKey, body: &Bytes) -> Result<ObjectInfo, StorageError> {
        self.store.put(key, Payload::from(body.clone()), &options()).await
    }

    async fn start(&self, key: &ObjectKey) -> MultipartId {
        self.store.start_multipart(key, PART_SIZE_BYTES, &options()).await.expect("start multipart upload")
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: &Bytes,
    ) -> Result<PartReceipt, StorageError> {
        self.store.put_part(key, id, number, Payload::from(body.clone())).await
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Bytes {
        let stream = self.store.get(key, range).await.expect("get object");
        let pieces: Vec<Bytes> = stream.try_collect().await.expect("a whole download");
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_SIZE_BYTES_MAX), "a piece is too large");
        pieces.concat().into()
    }

    async fn read_all(&self, key: &ObjectKey) -> Bytes {
        let size_bytes = self.store.head(key).await.expect("head object").size_bytes;
        self.read(key, 0..size_bytes).await
    }

    async fn assert_absent(&self, key: &ObjectKey) {
        assert_kind(self.store.head(key).await, StorageErrorKind::NotFound);
        assert_kind(self.store.get(key, 0..0).await.map(|_| ()), StorageErrorKind::NotFound);
        let listed = self.store.list(key.as_str(), None, 10).await.expect("list objects");
        assert_eq!(listed.objects, []);
    }
}

fn options() -> PutOptions {
    PutOptions {
        content_type: Some("application/octet-stream".to_owned()),
        metadata: vec![("entity-type".to_owned(), "course".to_owned())],
        ..PutOptions::default()
    }
}

/// Generates bytes without repeating sequences, different for each seed.
fn content(seed: u64, size_bytes: u64) -> Bytes {
    let size_bytes = usize::try_from(size_bytes).expect("fits into memory");
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    for n in 0..size_bytes.div_ceil(8) as u64 {
        // Generate a word at a time: without optimization, generating single bytes takes several seconds in
        // total.
        bytes.extend_from_slice(&(seed << 32 ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    }
    bytes.truncate(size_bytes);
    bytes.into()
}

#[track_caller]
fn assert_kind<T: std::fmt::Debug>(result: Result<T, StorageError>, kind: StorageErrorKind) {
    let error = result.expect_err("should fail");
    assert_eq!(error.kind, kind, "{error:?}");
}
