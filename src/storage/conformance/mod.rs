//! The promises of the port, one function each. Every adapter passes them all, bare and under the decorators.
//!
//! It stands in the library rather than beside the unit tests, so that any test can run it against a real
//! server. It panics where a promise is broken, and works below a prefix of its own, so that a shared bucket
//! will do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a suite of tests: a broken promise is a panic")]

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

/// What every store takes for a part that is not the last.
const PART_SIZE_BYTES: u64 = 5 * 1024 * 1024;

/// Runs the whole suite.
///
/// # Panics
/// When a promise is broken; the message says which.
pub async fn conformance(store: Arc<dyn ObjectStorage>, ids: Arc<dyn IdSource>) {
    let prefix = format!("conformance/{}", ids.uuid());
    let ground = Ground { store, ids, prefix };
    objects::all(&ground).await;
    multiparts::all(&ground).await;
    listings::all(&ground).await;
    presigned::all(&ground).await;
    what_is_asked_of_the_store_as_a_whole_is_answered(&ground).await;
}

async fn what_is_asked_of_the_store_as_a_whole_is_answered(ground: &Ground) {
    // Retried by nobody, so one of a few attempts has to do, and doing it twice is no harm.
    let mut is_ready = false;
    for _ in 0..6 {
        let made = ground.store.initialise(&InitOptions { abort_incomplete_after_days: Some(7) }).await;
        is_ready |= made.is_ok_and(|report| !report.steps.is_empty());
    }
    assert!(is_ready, "the store could not be made ready");
    let mut spaces = Vec::new();
    for _ in 0..6 {
        spaces.push(ground.store.space().await);
    }
    let space = spaces.into_iter().find_map(Result::ok).expect("the store does not tell its space");
    assert!(space.is_none_or(|space| space.free_bytes <= space.total_bytes), "{space:?}");
}

/// Where a promise is tried out.
struct Ground {
    store: Arc<dyn ObjectStorage>,
    ids: Arc<dyn IdSource>,
    prefix: String,
}

impl Ground {
    /// A key that nobody has used.
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

/// Bytes of which no two stretches are alike, and no two seeds.
fn content(seed: u64, size_bytes: u64) -> Bytes {
    let size_bytes = usize::try_from(size_bytes).expect("fits into memory");
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    for n in 0..size_bytes.div_ceil(8) as u64 {
        // A word at a time: without optimisation, a byte at a time takes seconds in all.
        bytes.extend_from_slice(&(seed << 32 ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    }
    bytes.truncate(size_bytes);
    bytes.into()
}

#[track_caller]
fn assert_kind<T: std::fmt::Debug>(result: Result<T, StorageError>, kind: StorageErrorKind) {
    let error = result.expect_err("should be refused");
    assert_eq!(error.kind, kind, "{error:?}");
}
