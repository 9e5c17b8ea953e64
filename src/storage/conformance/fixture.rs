//! The store under test, and the content of its objects.

use std::{fmt::Debug, ops::Range, sync::Arc};

use bytes::Bytes;
use chrono::NaiveDate;
use futures::TryStreamExt;

use super::super::{
    MultipartId, ObjectInfo, ObjectStorage, PIECE_SIZE_BYTES_MAX, PartReceipt, Payload, PutOptions,
    StorageError, StorageErrorKind,
};
use crate::domain::{
    clock::IdSource,
    ids::{BlobId, TenantId},
    object_key::ObjectKey,
};

/// A part size that every store accepts for parts other than the last.
pub(super) const PART_SIZE_BYTES: u64 = 5 * 1024 * 1024;

/// The store under test, with a key prefix of its own.
pub(super) struct Fixture {
    pub(super) store: Arc<dyn ObjectStorage>,
    pub(super) ids: Arc<dyn IdSource>,
    pub(super) prefix: String,
}

impl Fixture {
    /// Generates a new key.
    pub(super) fn key(&self) -> ObjectKey {
        self.key_of("media_resource", TenantId::from_uuid(self.ids.uuid()))
    }

    pub(super) fn key_of(&self, category: &str, tenant: TenantId) -> ObjectKey {
        let day = NaiveDate::from_ymd_opt(2026, 1, 2).unwrap();
        ObjectKey::for_blob(&self.prefix, tenant, category, day, BlobId::from_uuid(self.ids.uuid())).unwrap()
    }

    pub(super) async fn put(&self, key: &ObjectKey, body: &Bytes) -> Result<ObjectInfo, StorageError> {
        self.store.put(key, Payload::from(body.clone()), &options()).await
    }

    pub(super) async fn start(&self, key: &ObjectKey) -> MultipartId {
        self.store.start_multipart(key, PART_SIZE_BYTES, &options()).await.expect("start multipart upload")
    }

    pub(super) async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: &Bytes,
    ) -> Result<PartReceipt, StorageError> {
        self.store.put_part(key, id, number, Payload::from(body.clone())).await
    }

    pub(super) async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Bytes {
        let stream = self.store.get(key, range).await.expect("get object");
        let pieces: Vec<Bytes> = stream.try_collect().await.expect("a whole download");
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_SIZE_BYTES_MAX), "a piece is too large");
        pieces.concat().into()
    }

    pub(super) async fn read_all(&self, key: &ObjectKey) -> Bytes {
        let size_bytes = self.store.head(key).await.expect("head object").size_bytes;
        self.read(key, 0..size_bytes).await
    }

    pub(super) async fn assert_absent(&self, key: &ObjectKey) {
        assert_kind(self.store.head(key).await, StorageErrorKind::NotFound);
        assert_kind(self.store.get(key, 0..0).await.map(|_| ()), StorageErrorKind::NotFound);
        let listed = self.store.list(key.as_str(), None, 10).await.expect("list objects");
        assert_eq!(listed.objects, []);
    }
}

pub(super) fn options() -> PutOptions {
    PutOptions {
        content_type: Some("application/octet-stream".to_owned()),
        metadata: vec![("entity-type".to_owned(), "course".to_owned())],
        ..PutOptions::default()
    }
}

/// Generates bytes without repeating sequences, different for each seed.
pub(super) fn content(seed: u64, size_bytes: u64) -> Bytes {
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
pub(super) fn assert_kind<T: Debug>(result: Result<T, StorageError>, kind: StorageErrorKind) {
    let error = result.expect_err("should fail");
    assert_eq!(error.kind, kind, "{error:?}");
}
