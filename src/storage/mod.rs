//! The object storage port: stores the bytes of files. All other data about a file is a row in the database.
//!
//! ```text
//! app  ──►  Stores ──► Limited ──► Traced ──► Retrying ──► Local | Memory | S3
//! background work  ──►  GuardedStores ──► Limited ──► Guarded ──► Traced ──► …
//! ```
//!
//! # Guarantees of every adapter
//!
//! **Atomicity.** An object is visible as a whole or not at all. `head`, `get` and `list` do not return a key
//! before its [`ObjectStorage::put`] or [`ObjectStorage::complete_multipart`] has taken effect. Objects are
//! never overwritten: if several writers use the same key, exactly one succeeds and the others get
//! [`StorageErrorKind::AlreadyExists`]. The adapter guarantees this only if
//! [`Capabilities::conditional_writes`] is true. On other stores (some S3-compatible ones) the last writer
//! wins, and the only protection is that a key is generated once and never reused.
//!
//! **Durability.** An acknowledged `put` or `complete_multipart` survives a power failure. So does a part
//! whose receipt was returned, and a multipart upload whose id was returned. An object whose deletion was
//! acknowledged stays deleted. (The memory adapter is not durable; it is for tests and evaluation.)
//!
//! **Unknown outcome.** A call that failed, or whose future was dropped, may still have taken effect or may
//! take effect later. The object then exists completely or not at all. The caller that generated the key
//! decides what to do. Keys are never reused, so orphaned objects and uploads can be found by listing and are
//! swept after a grace period.
//!
//! **Idempotence.** A repeated `complete_multipart` returns the same result as the first. `abort_multipart`,
//! `delete` and `delete_batch` succeed if there is nothing to do. `put_part` with the same number replaces the part,
//! and only the receipt returned last is valid. A rejected `complete_multipart` leaves the upload open.
//!
//! **Order.** `list` and `list_multiparts` return keys in bytewise order. Uploads with the same key are
//! returned in a stable order that depends on the store. A listing contains every object that was
//! acknowledged before the listing started and has not been deleted since. Names in the store that are not an
//! [`ObjectKey`] are skipped.
//!
//! **Limits.** `get` buffers at most two pieces of at most [`PIECE_SIZE_BYTES_MAX`] each. Its stream yields
//! exactly the bytes of the range or an error; it never ends early without an error. Bodies are never copied
//! as a whole.
//!
//! **Errors** are classified by how the caller can react ([`StorageErrorKind`]). Only `Transient` errors are
//! worth an immediate retry.
//!
//! # Primitives, conveniences and decorators
//!
//! Every method of [`ObjectStorage`] is a primitive: no combination of other methods has its guarantees. None
//! has a default. Conveniences, such as reading a range into memory, are in [`ObjectStorageExt`], which no
//! store implements.
//!
//! A decorator implements [`Decorator`] instead of the port. It states once what it does to every operation,
//! and overrides only the methods that it treats differently. A method that is added to the port does not
//! compile before the base forwards it.
//!
//! # Adding a provider
//!
//! 1. Add a private sibling module (like `s3/`) with a type that implements [`ObjectStorage`]. Use the
//!    vendor's SDK only there. Disable the SDK's own retries, because `Retrying` holds the only retry budget.
//!    Map the SDK's errors to kinds in one place, and do not include their messages unchecked: a message may
//!    contain a signed URL.
//! 2. Add a variant to [`AdapterOptions`] and a line to [`open`], and map the section of `config` to it.
//! 3. Declare in [`Capabilities`] what the store does not support. The adapter must implement every other
//!    guarantee that the store lacks (for example, a completion that took effect but returned an error).
//! 4. Run [`conformance::check_conformance`] against a real server, both directly and with [`flaky::Flaky`]
//!    below the retries (`tests/storage/`). Add a script next to `scripts/with-garage` that starts the
//!    server.

pub mod conformance;
pub mod flaky;

mod backoff;
mod breaker;
mod decorator;
mod error;
mod extension;
mod guarded;
mod guarded_stores;
mod import_source;
mod limited;
mod local;
mod marker;
mod memory;
mod object;
mod part_layout;
mod payload;
mod presign;
mod progress;
mod provision;
mod retrying;
mod s3;
mod source_directory;
mod source_entry;
mod source_object;
mod stores;
#[cfg(test)]
mod tests;
mod traced;

use std::{fmt::Debug, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::{
    breaker::{Breaker, BreakerOptions, BreakerStatus},
    decorator::{Attempt, Decorator, Operation},
    error::{StorageError, StorageErrorKind},
    extension::ObjectStorageExt,
    guarded_stores::{Breakers, GuardedStores},
    import_source::{ImportSource, SourceKeys},
    limited::StoreLimits,
    marker::MarkerWrite,
    object::{
        ListPage, MultipartId, MultipartInfo, MultipartPage, ObjectInfo, ObjectMetadata, PartReceipt,
        PutOptions,
    },
    part_layout::{
        GROWN_PART_SIZE_BYTES_MAX, OBJECT_SIZE_BYTES_MAX, PART_NUMBER_MAX, PART_SIZE_BYTES_MAX, PartLayout,
    },
    payload::Payload,
    presign::{PresignRequest, PresignedUrl},
    progress::Progress,
    provision::{BucketProtection, Capabilities, InitOptions, InitOutcome, InitReport, InitStep, Space},
    s3::{Encryption, PayloadSigning, S3Credentials, S3Options, SourceBucket},
    source_directory::SourceDirectory,
    source_entry::{EntryProblem, SourceEntry},
    source_object::SourceObject,
    stores::{Stores, UnknownProvider},
    traced::Traced,
};
use crate::domain::{
    checksum::Crc64,
    clock::{Clock, IdSource},
    object_key::ObjectKey,
};

/// The maximum size of a piece in a download stream, in bytes. A piece fits into one gRPC message.
pub const PIECE_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// The maximum number of objects of a batch deletion, as in S3.
pub const DELETE_BATCH_KEYS_MAX: usize = 1_000;

/// The results of a batch deletion, one for each key.
pub type DeletionResults = Vec<Result<(), StorageError>>;

/// The bytes of an object, in order. See "Limits" in the [module](self) documentation.
pub type ByteStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// A store of immutable objects. Implementations must satisfy the guarantees listed in the [module](self)
/// documentation. Every method can also fail with the kinds `Transient`, `Unavailable` and `Other`.
#[async_trait]
pub trait ObjectStorage: Send + Sync + Debug + 'static {
    /// Returns the name that the provider is configured under, which is recorded with each blob. An adapter
    /// without decorators returns its type, such as `s3`.
    fn provider(&self) -> &str;

    /// Returns which guarantees and optional features the store supports.
    fn capabilities(&self) -> Capabilities;

    /// Stores an object in one request. Use it for bodies of up to about one part, and a multipart upload for
    /// larger ones.
    ///
    /// # Errors
    /// Returns `AlreadyExists` if an object with this key exists, and `NoSpace` if the store is full.
    async fn put(
        &self,
        key: &ObjectKey,
        body: Payload,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError>;

    /// Starts a multipart upload. Every part has `part_size_bytes` bytes, except the last, which may be
    /// shorter; with [`PutOptions::equal_parts`], later parts are larger ([`PartLayout`]). Some stores
    /// require at least 5 MiB.
    ///
    /// # Errors
    /// Returns `InvalidInput` if the store does not accept this part size.
    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError>;

    /// Stores a part. Part numbers start at 1. Parts may be stored in parallel and in any order.
    ///
    /// # Errors
    /// Returns `NotFound` if there is no such open upload, `InvalidInput` if the number or the size is not
    /// valid, and `NoSpace` if the store is full.
    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError>;

    /// Stores a part whose bytes are those of another object, which the store copies. The part may have more
    /// bytes than one that is sent. The object is not changed.
    ///
    /// # Errors
    /// Returns the errors of [`put_part`](Self::put_part), and `Damaged` if the object does not exist or has
    /// another size.
    async fn copy_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        from: &ObjectInfo,
    ) -> Result<PartReceipt, StorageError>;

    /// Creates the object from parts 1 to n. Stored parts that are not in `parts` are discarded. `crc64nvme` is
    /// the checksum of the whole object; a store that supports it verifies it.
    ///
    /// # Errors
    /// Returns `PartsDiffer` if a part is missing, was never stored, was replaced after its receipt was
    /// returned, or has the wrong size. Returns `NotFound` if there is neither such an upload nor such an
    /// object, for example because the store aborted the upload. Returns `AlreadyExists` if another writer
    /// created an object with this key. Returns `Damaged` if the object has another checksum; it may exist then.
    /// Any other error changes nothing, and the call can be repeated.
    async fn complete_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
        crc64nvme: Option<Crc64>,
    ) -> Result<ObjectInfo, StorageError>;

    /// Aborts a multipart upload and frees its parts. Does nothing if the upload does not exist. If the
    /// upload is already complete, the object is kept.
    async fn abort_multipart(&self, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError>;

    /// Returns the size and the modification time of an object.
    ///
    /// # Errors
    /// Returns `NotFound` if there is no object with this key.
    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StorageError>;

    /// Reads a range of an object. The range may be empty and must lie inside the object.
    ///
    /// # Errors
    /// Returns `NotFound` if there is no object with this key, and `InvalidInput` if the range is reversed or
    /// ends beyond the object. Later failures are returned by the stream, for example `Damaged` if the object
    /// became shorter.
    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError>;

    /// Copies an object inside the store. The storage class and the metadata of the copy are taken from
    /// `options`, not from the source.
    ///
    /// # Errors
    /// Returns `NotFound` if the source does not exist, `AlreadyExists` if an object with the new key exists,
    /// and `NoSpace` if the store is full.
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError>;

    /// Deletes an object. Does nothing if the object does not exist.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError>;

    /// Deletes up to [`DELETE_BATCH_KEYS_MAX`] different objects, with as few requests as the store allows.
    /// Returns the result of each key, in the order of the keys: a key that fails does not affect the others.
    /// An object that does not exist is a success.
    ///
    /// # Errors
    /// Returns `InvalidInput` if there are more keys. After any other error the outcome of every key is unknown.
    async fn delete_batch(&self, keys: &[ObjectKey]) -> Result<DeletionResults, StorageError>;

    /// Lists up to `limit` objects whose keys start with `prefix` and are greater than `after`. The prefix is
    /// text; it need not end at a slash.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<ListPage, StorageError>;

    /// Lists up to `limit` open multipart uploads whose keys start with `prefix` and that follow `after`. The
    /// list includes other unfinished writes that a crash left behind. All of them can be aborted.
    async fn list_multiparts(
        &self,
        prefix: &str,
        after: Option<&MultipartInfo>,
        limit: usize,
    ) -> Result<MultipartPage, StorageError>;

    /// Lists all parts of an open upload by number, in the form that `complete_multipart` expects.
    ///
    /// # Errors
    /// Returns `NotFound` if there is no such open upload.
    async fn list_parts(&self, key: &ObjectKey, id: &MultipartId) -> Result<Vec<PartReceipt>, StorageError>;

    /// Creates a presigned URL. Returns `None` if the store has no presigned URLs. The object need not exist.
    ///
    /// # Errors
    /// Returns `InvalidInput` if the store would reject the URL, for example for an expiry of more than seven
    /// days.
    async fn presign(&self, request: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError>;

    /// Creates missing resources of the store, such as its bucket. Called by `strongroom storage init`. The
    /// call is idempotent and is not retried.
    async fn initialize(&self, options: &InitOptions) -> Result<InitReport, StorageError>;

    /// Returns the free and the total space, or `None` if the store does not report it.
    async fn space(&self) -> Result<Option<Space>, StorageError>;

    /// Checks that the store is reachable and writable. Used for readiness; neither limited nor retried.
    async fn check(&self) -> Result<(), StorageError>;

    /// Reads the owner marker of the objects with a prefix, which may be empty, or returns `None` if there is
    /// none. The name of a marker is no [`ObjectKey`], so no listing contains it.
    async fn read_marker(&self, prefix: &str) -> Result<Option<Bytes>, StorageError>;

    /// Writes the owner marker of the objects with a prefix, as a whole.
    ///
    /// # Errors
    /// Returns `AlreadyExists` if a marker exists and `write` is [`MarkerWrite::Create`]. A store without
    /// conditional writes replaces the marker instead.
    async fn write_marker(&self, prefix: &str, body: Bytes, write: MarkerWrite) -> Result<(), StorageError>;

    /// Returns the metadata of an object. Entries that the store did not accept when the object was created are
    /// missing.
    ///
    /// # Errors
    /// Returns `NotFound` if there is no object with this key.
    async fn read_metadata(&self, key: &ObjectKey) -> Result<ObjectMetadata, StorageError>;

    /// Lists the buckets whose settings can keep the bytes of deleted objects. Used by `storage status`.
    async fn list_protections(&self) -> Result<Vec<BucketProtection>, StorageError>;
}

/// The options of a store and of its decorators.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// The name of the provider, recorded with each blob.
    pub provider: String,
    /// The adapter and its options.
    pub adapter: AdapterOptions,
    /// The maximum number of attempts of an operation, including the first. 1 disables retries.
    pub retry_attempts_max: u32,
    /// The maximum pause before the first retry. It doubles with each further retry.
    pub retry_backoff_base: Duration,
    /// The upper limit of the pause before a retry.
    pub retry_backoff_max: Duration,
}

/// The adapter to open.
#[derive(Debug, Clone)]
pub enum AdapterOptions {
    /// Files in a directory of this machine. The directory is created if it does not exist.
    Local {
        /// The directory. Only Strongroom may write to it.
        root: PathBuf,
    },
    /// The memory of this process. The data is lost when the process ends.
    Memory,
    /// Discards all data except the first MiB of each object, which is repeated in downloads. For load tests
    /// only.
    Discard,
    /// A bucket of an S3-compatible store.
    S3(Box<S3Options>),
}

/// Opens the configured store with its retries. [`Stores`] limits its operations. Performs blocking file system
/// operations, so call it during startup.
///
/// # Errors
/// Returns `InvalidInput` if the options are not valid, and any error of the adapter.
pub fn open(
    options: &StorageOptions,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
) -> Result<Arc<dyn ObjectStorage>, StorageError> {
    if options.retry_attempts_max == 0 {
        let reason = "retry_attempts_max is 0; it must be at least 1";
        return Err(StorageError::invalid_input("open storage", reason));
    }
    let adapter: Arc<dyn ObjectStorage> = match &options.adapter {
        AdapterOptions::Local { root } => Arc::new(local::Local::open(root, Arc::clone(&ids))?),
        AdapterOptions::Memory => {
            Arc::new(memory::Memory::new(memory::KeptContent::All, clock, Arc::clone(&ids)))
        }
        AdapterOptions::Discard => {
            tracing::warn!("the discard adapter is in use; only the first MiB of each object is stored");
            Arc::new(memory::Memory::new(memory::KeptContent::Head, clock, Arc::clone(&ids)))
        }
        AdapterOptions::S3(s3) => Arc::new(s3::S3::open(s3)?),
    };
    Ok(with_retries(adapter, options, ids))
}

/// Adds the retry decorator of [`open`] to a store. Tests use it to inject faults between the retries and the
/// adapter.
pub fn with_retries(
    store: Arc<dyn ObjectStorage>,
    options: &StorageOptions,
    ids: Arc<dyn IdSource>,
) -> Arc<dyn ObjectStorage> {
    retrying::Retrying::wrap(store, options, ids)
}
