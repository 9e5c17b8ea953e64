//! Stores objects in the memory of this process, for tests and evaluation. With [`KeptContent::Head`] most
//! bytes are discarded, for load tests.

mod body;

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Bound, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};

pub(super) use self::body::KeptContent;
use self::body::{Body, copy_head};
use super::{
    BucketProtection, ByteStream, Capabilities, DeletionResults, InitOptions, InitOutcome, InitReport,
    ListPage, MarkerWrite, MultipartId, MultipartInfo, MultipartPage, ObjectInfo, ObjectMetadata,
    ObjectStorage, PartLayout, PartReceipt, Payload, PresignRequest, PresignedUrl, PutOptions, Space,
    StorageError, StorageErrorKind,
    marker::marker_name,
    object::{check_delete_batch, check_part, check_part_size, check_parts, check_range},
};
use crate::domain::{
    checksum::Crc64,
    clock::{Clock, IdSource, Timestamp},
    object_key::ObjectKey,
};

pub(super) struct Memory {
    keep: KeptContent,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Objects by key.
    objects: BTreeMap<String, Object>,
    /// Open multipart uploads.
    multiparts: BTreeMap<MultipartKey, Multipart>,
    /// Owner markers by name.
    markers: BTreeMap<String, Bytes>,
    /// The number of stored parts, which gives every stored part a unique etag.
    parts_put: u64,
    /// The most recently kept head of an object.
    head: Bytes,
}

struct Object {
    info: ObjectInfo,
    body: Body,
    metadata: ObjectMetadata,
}

/// Uploads are listed in this order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct MultipartKey {
    key: String,
    id: String,
}

impl MultipartKey {
    fn new(key: &ObjectKey, id: &MultipartId) -> Self {
        Self { key: key.to_string(), id: id.to_string() }
    }
}

/// The place of a part.
struct MultipartPlace<'a> {
    key: &'a ObjectKey,
    id: &'a MultipartId,
    number: u32,
}

struct Part {
    receipt: PartReceipt,
    kept: Payload,
}

struct Multipart {
    key: ObjectKey,
    layout: PartLayout,
    metadata: ObjectMetadata,
    start_time: Timestamp,
    parts: BTreeMap<u32, Part>,
}

impl Memory {
    pub(super) fn new(keep: KeptContent, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Self { keep, clock, ids, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics in the middle of a change, so a poisoned lock still protects consistent state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns the part of a body to keep. `is_beginning` is true if the body starts an object.
    fn select_kept(&mut self, keep: KeptContent, body: Payload, is_beginning: bool) -> Payload {
        match keep {
            KeptContent::All => body,
            KeptContent::Head if is_beginning => copy_head(&body, &mut self.head),
            KeptContent::Head => Payload::default(),
        }
    }

    fn insert(
        &mut self,
        key: &ObjectKey,
        body: Body,
        metadata: ObjectMetadata,
        modify_time: Timestamp,
        operation: &'static str,
    ) -> Result<ObjectInfo, StorageError> {
        if self.objects.contains_key(key.as_str()) {
            return Err(StorageError::new(StorageErrorKind::AlreadyExists, operation).with_key(key));
        }
        let info = ObjectInfo { key: key.clone(), size_bytes: body.len_bytes(), modify_time };
        self.objects.insert(key.to_string(), Object { info: info.clone(), body, metadata });
        Ok(info)
    }

    fn put_part(
        &mut self,
        keep: KeptContent,
        MultipartPlace { key, id, number }: &MultipartPlace<'_>,
        body: Payload,
        size_bytes: u64,
        operation: &'static str,
    ) -> Result<PartReceipt, StorageError> {
        self.parts_put += 1;
        let etag = self.parts_put.to_string();
        let kept = self.select_kept(keep, body, *number == 1);
        let multipart = self
            .multiparts
            .get_mut(&MultipartKey::new(key, id))
            .ok_or_else(|| not_found_error(key, operation))?;
        check_part(*number, size_bytes, multipart.layout.size_of(*number), operation)?;
        let receipt = PartReceipt { number: *number, size_bytes, etag };
        multipart.parts.insert(*number, Part { receipt: receipt.clone(), kept });
        Ok(receipt)
    }

    fn find_object(&self, key: &ObjectKey, operation: &'static str) -> Result<&Object, StorageError> {
        self.objects.get(key.as_str()).ok_or_else(|| not_found_error(key, operation))
    }
}

fn not_found_error(key: &ObjectKey, operation: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::NotFound, operation).with_key(key)
}

#[async_trait]
impl ObjectStorage for Memory {
    fn provider(&self) -> &str {
        match self.keep {
            KeptContent::All => "memory",
            KeptContent::Head => "discard",
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_writes: true, presigned_urls: false, storage_classes: false }
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Payload,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let (size_bytes, now) = (body.len_bytes(), self.clock.now());
        let mut state = self.state();
        let kept = state.select_kept(self.keep, body, true);
        state.insert(key, Body::new(kept, size_bytes), options.metadata.clone(), now, "put object")
    }

    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError> {
        check_part_size(part_size_bytes, "start multipart upload")?;
        let id = MultipartId::new(self.ids.uuid().to_string());
        let start_time = self.clock.now();
        let layout = options.layout(part_size_bytes);
        let metadata = options.metadata.clone();
        let multipart = Multipart { key: key.clone(), layout, metadata, start_time, parts: BTreeMap::new() };
        self.state().multiparts.insert(MultipartKey::new(key, &id), multipart);
        Ok(id)
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError> {
        let size_bytes = body.len_bytes();
        self.state().put_part(self.keep, &MultipartPlace { key, id, number }, body, size_bytes, "put part")
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        from: &ObjectInfo,
    ) -> Result<PartReceipt, StorageError> {
        let operation = "copy part";
        let mut state = self.state();
        let source = state.find_object(&from.key, operation).ok().map(|object| object.body.clone());
        let source = source.filter(|source| source.len_bytes() == from.size_bytes).ok_or_else(|| {
            StorageError::new(StorageErrorKind::Damaged, operation)
                .with_key(&from.key)
                .with_source("the source does not exist or has another size")
        })?;
        let body: Payload = match self.keep {
            KeptContent::All => source.pieces(0..from.size_bytes).collect(),
            KeptContent::Head => Payload::default(),
        };
        state.put_part(self.keep, &MultipartPlace { key, id, number }, body, from.size_bytes, operation)
    }

    async fn complete_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
        _: Option<Crc64>,
    ) -> Result<ObjectInfo, StorageError> {
        let operation = "complete multipart upload";
        let size_bytes = check_parts(parts, operation)?;
        let mut state = self.state();
        let Some(multipart) = state.multiparts.get(&MultipartKey::new(key, id)) else {
            // The upload may already be complete. Keys are never reused, so an object of this size is its
            // result.
            let object = state.find_object(key, operation)?;
            return if object.info.size_bytes == size_bytes {
                Ok(object.info.clone())
            } else {
                Err(not_found_error(key, operation))
            };
        };
        let mut body = Vec::new();
        for part in parts {
            match multipart.parts.get(&part.number) {
                Some(stored) if stored.receipt == *part => body.extend_from_slice(stored.kept.chunks()),
                _ => {
                    let reason = format!("part {} does not match its receipt", part.number);
                    return Err(StorageError::parts_differ(operation, reason).with_key(key));
                }
            }
        }
        if let [first, _, ..] = parts
            && first.size_bytes != multipart.layout.part_size_bytes()
        {
            let reason = format!(
                "the first part has {} bytes; the part size is {}",
                first.size_bytes,
                multipart.layout.part_size_bytes()
            );
            return Err(StorageError::parts_differ(operation, reason).with_key(key));
        }
        let (body, metadata) = (Body::new(body.into(), size_bytes), multipart.metadata.clone());
        let info = state.insert(key, body, metadata, self.clock.now(), operation)?;
        state.multiparts.remove(&MultipartKey::new(key, id));
        Ok(info)
    }

    async fn abort_multipart(&self, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError> {
        self.state().multiparts.remove(&MultipartKey::new(key, id));
        Ok(())
    }

    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StorageError> {
        self.state().find_object(key, "head object").map(|object| object.info.clone())
    }

    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError> {
        let operation = "get object";
        let body = self.state().find_object(key, operation)?.body.clone();
        check_range(&range, body.len_bytes(), operation).map_err(|error| error.with_key(key))?;
        Ok(stream::iter(body.pieces(range)).map(Ok).boxed())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError> {
        self.state().objects.remove(key.as_str());
        Ok(())
    }

    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<DeletionResults, StorageError> {
        check_delete_batch(keys)?;
        let mut state = self.state();
        let delete = |key: &ObjectKey| {
            state.objects.remove(key.as_str());
            Ok(())
        };
        Ok(keys.iter().map(delete).collect())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<ListPage, StorageError> {
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let state = self.state();
        let found = state.objects.range::<str, _>((start, Bound::Unbounded));
        let mut found =
            found.map(|(_, object)| &object.info).take_while(|info| info.key.as_str().starts_with(prefix));
        let objects = found.by_ref().take(limit).cloned().collect();
        Ok(ListPage { objects, is_last: found.next().is_none() })
    }

    async fn list_multiparts(
        &self,
        prefix: &str,
        after: Option<&MultipartInfo>,
        limit: usize,
    ) -> Result<MultipartPage, StorageError> {
        let after = after.map(|info| MultipartKey::new(&info.key, &info.id));
        let state = self.state();
        let found = state.multiparts.iter().filter(|(name, _)| name.key.starts_with(prefix));
        let mut found = found.filter(|(name, _)| after.as_ref().is_none_or(|after| *name > after));
        let multiparts = found.by_ref().take(limit).map(|(name, multipart)| MultipartInfo {
            key: multipart.key.clone(),
            id: MultipartId::new(&name.id),
            start_time: multipart.start_time,
        });
        let multiparts = multiparts.collect();
        Ok(MultipartPage { multiparts, is_last: found.next().is_none() })
    }

    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError> {
        let operation = "copy object";
        let mut state = self.state();
        let body = state.find_object(from, operation)?.body.clone();
        state.insert(to, body, options.metadata.clone(), self.clock.now(), operation)
    }

    async fn list_parts(&self, key: &ObjectKey, id: &MultipartId) -> Result<Vec<PartReceipt>, StorageError> {
        let state = self.state();
        let multipart = state.multiparts.get(&MultipartKey::new(key, id));
        let parts = multipart.map(|open| open.parts.values().map(|part| part.receipt.clone()).collect());
        parts.ok_or_else(|| not_found_error(key, "list parts"))
    }

    async fn presign(&self, _: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError> {
        Ok(None)
    }

    async fn initialize(&self, _: &InitOptions) -> Result<InitReport, StorageError> {
        Ok(InitReport::single_step("memory of this process", InitOutcome::AlreadyExists))
    }

    async fn space(&self) -> Result<Option<Space>, StorageError> {
        Ok(None)
    }

    async fn check(&self) -> Result<(), StorageError> {
        Ok(())
    }

    async fn read_marker(&self, prefix: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(self.state().markers.get(&marker_name(prefix)).cloned())
    }

    async fn write_marker(&self, prefix: &str, body: Bytes, write: MarkerWrite) -> Result<(), StorageError> {
        let mut state = self.state();
        let name = marker_name(prefix);
        if write == MarkerWrite::Create && state.markers.contains_key(&name) {
            return Err(StorageError::new(StorageErrorKind::AlreadyExists, "write owner marker"));
        }
        state.markers.insert(name, body);
        Ok(())
    }

    async fn read_metadata(&self, key: &ObjectKey) -> Result<ObjectMetadata, StorageError> {
        let state = self.state();
        state.find_object(key, "read metadata of object").map(|object| object.metadata.clone())
    }

    async fn list_protections(&self) -> Result<Vec<BucketProtection>, StorageError> {
        Ok(Vec::new())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}
