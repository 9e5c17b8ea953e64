//! The port to the object store: where the bytes live. Everything else about a file is a row in the database.
//!
//! ```text
//! app  ──►  Stores ──► Traced ──► Retrying ──► Limited ──► Local | Memory | S3
//! ```
//!
//! # What every adapter promises
//!
//! **Atomicity.** An object is there whole or not at all. Until [`ObjectStorage::put`] or
//! [`ObjectStorage::complete_multipart`] has done its work, `head`, `get` and `list` do not know the key;
//! afterwards they know all of it. Nothing is ever overwritten: of any number of writers of one key exactly
//! one succeeds, and the others get [`StorageErrorKind::AlreadyExists`]. This last promise holds where
//! [`Capabilities::conditional_writes`] says so; elsewhere (some S3 stores) the last writer of a key wins, and
//! nothing guards against that but that keys are minted once.
//!
//! **Durability.** What `put` and `complete_multipart` have acknowledged survives a power cut. So does a part
//! whose receipt was handed out, and a multipart upload whose id was. What `delete` has acknowledged stays
//! deleted. (The memory adapter survives nothing; it is for tests and trials.)
//!
//! **Failure is not knowledge.** A call that failed or was dropped half way may have happened all the same,
//! or may still happen: the object is then there whole, or not at all. Whoever minted the key decides what
//! becomes of it; the key is never minted twice, so a stray object or upload is found by listing and swept
//! after a grace period.
//!
//! **Idempotence.** `complete_multipart` after it has succeeded gives the same answer. `abort_multipart` and
//! `delete` succeed when there is nothing left to do. `put_part` with the same number replaces the part, and
//! the receipt given last is the one that counts. A refused `complete_multipart` leaves the upload open.
//!
//! **Order.** `list` and `list_multiparts` are in bytewise order of the keys; the uploads of one key come in an
//! order of the store's own, which does not change. A listing shows everything that was acknowledged before it began and not deleted since.
//! Names in the store that are no [`ObjectKey`] are not ours and are left out.
//!
//! **Bounds.** `get` holds at most two pieces in memory, each of at most [`PIECE_SIZE_BYTES_MAX`], and yields
//! exactly the bytes of the range or an error, never a quiet early end. Bodies are never copied as a whole.
//!
//! **Errors** say what the caller can do ([`StorageErrorKind`]); only `Transient` is worth the same call
//! again.
//!
//! # How to add a provider
//!
//! 1. Write a private sibling (as `s3/` is) with a type that implements [`ObjectStorage`]; the vendor's SDK is
//!    named nowhere else. Its own retries are off: `Retrying` has the one budget. Map its errors to kinds in
//!    one place, and no text of theirs goes into ours unread: it may hold a URL that is signed.
//! 2. Add a variant to [`AdapterOptions`] and a line to [`open`]; `config` maps its section onto it.
//! 3. Say in [`Capabilities`] what the store cannot do. Every other promise that it does not keep by itself is
//!    the adapter's to keep (say, a complete whose answer is an error although it worked).
//! 4. Run [`conformance::conformance`] against a real one, bare and below [`flaky::Flaky`] and the retries
//!    (`tests/storage/`), with a script beside `scripts/with-garage` that starts it.

pub mod conformance;
pub mod flaky;

mod backoff;
mod directory;
mod error;
mod foreign;
mod foreign_object;
mod limited;
mod local;
mod memory;
mod object;
mod payload;
mod presign;
mod provision;
mod retrying;
mod s3;
mod stores;
#[cfg(test)]
mod tests;
mod traced;

use std::{fmt::Debug, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::{
    directory::Directory,
    error::{StorageError, StorageErrorKind},
    foreign::{ForeignStore, ForeignWalk},
    foreign_object::ForeignObject,
    object::{ListPage, MultipartId, MultipartInfo, MultipartPage, ObjectInfo, PartReceipt, PutOptions},
    payload::Payload,
    presign::{PresignRequest, PresignedUrl},
    provision::{Capabilities, InitOptions, InitOutcome, InitReport, InitStep, Space},
    s3::{Encryption, ForeignBucket, PayloadSigning, S3Credentials, S3Options},
    stores::{Stores, UnknownProvider},
    traced::Traced,
};
use crate::domain::{
    clock::{Clock, IdSource},
    object_key::ObjectKey,
};

/// The largest piece that a download yields: one gRPC message carries it.
pub const PIECE_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// The highest part number, as in S3.
pub const PART_NUMBER_MAX: u32 = 10_000;

/// The largest part, as in S3.
pub const PART_SIZE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// The bytes of an object, in order. See "Bounds" above.
pub type ByteStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// A store of immutable objects. The promises are those of the [module](self).
#[async_trait]
pub trait ObjectStorage: Send + Sync + Debug + 'static {
    /// The provider's name, recorded with each blob: the one it is configured under. A bare adapter answers its kind.
    fn provider(&self) -> &str;

    /// Which promises the store keeps by itself, and what it offers beyond them.
    fn capabilities(&self) -> Capabilities;

    /// Stores an object in one piece. For bodies of up to about a part; larger ones go in parts.
    ///
    /// # Errors
    /// `AlreadyExists` when the key is taken; `NoSpace`.
    async fn put(
        &self,
        key: &ObjectKey,
        body: Payload,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError>;

    /// Opens a multipart upload, whose parts all have `part_size_bytes` but the last, which may be shorter.
    /// Some stores want at least 5 MiB.
    ///
    /// # Errors
    /// `InvalidInput` when the store cannot take parts of this size.
    async fn start_multipart(
        &self,
        key: &ObjectKey,
        part_size_bytes: u64,
        options: &PutOptions,
    ) -> Result<MultipartId, StorageError>;

    /// Stores a part. Parts are numbered from 1 and arrive in parallel and in any order.
    ///
    /// # Errors `NotFound` when there is no such open upload, `InvalidInput` when number or size do not fit,
    /// `NoSpace`.
    async fn put_part(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        number: u32,
        body: Payload,
    ) -> Result<PartReceipt, StorageError>;

    /// Turns parts 1 to n into the object. Parts that were put but are not named are dropped.
    ///
    /// # Errors `InvalidInput` when a part is missing, was never put, was replaced since, or has the wrong
    /// size; `NotFound` when there is no such upload and no such object; `AlreadyExists` when another writer
    /// took the key.
    async fn complete_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
    ) -> Result<ObjectInfo, StorageError>;

    /// Gives an upload up and frees its parts. Of a completed upload, the object stays.
    async fn abort_multipart(&self, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError>;

    /// Tells about an object.
    ///
    /// # Errors
    /// `NotFound`.
    async fn head(&self, key: &ObjectKey) -> Result<ObjectInfo, StorageError>;

    /// Reads the bytes of a range, which may be empty and must lie inside the object.
    ///
    /// # Errors `NotFound`, and `InvalidInput` for a range that is reversed or ends after the object. Later
    /// failures arrive in the stream: `Damaged` when the object is shorter than it was.
    async fn get(&self, key: &ObjectKey, range: Range<u64>) -> Result<ByteStream, StorageError>;

    /// Makes a second object of the same bytes, inside the store: in the class that the options say, whatever that of the
    /// first one is.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` when the new key is taken; `NoSpace`.
    async fn copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        options: &PutOptions,
    ) -> Result<ObjectInfo, StorageError>;

    /// Removes an object.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StorageError>;

    /// Lists up to `limit` objects whose keys begin with `prefix` (text, not a directory) and are greater
    /// than `after`.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<ListPage, StorageError>;

    /// Lists up to `limit` open multipart uploads, and whatever else a crash has left unfinished, whose keys
    /// begin with `prefix` and that come after `after`. All of them can be aborted.
    async fn list_multiparts(
        &self,
        prefix: &str,
        after: Option<&MultipartInfo>,
        limit: usize,
    ) -> Result<MultipartPage, StorageError>;

    /// Lists all parts that an open upload has, by number, as `complete_multipart` wants them.
    ///
    /// # Errors
    /// `NotFound` when there is no such open upload.
    async fn list_parts(&self, key: &ObjectKey, id: &MultipartId) -> Result<Vec<PartReceipt>, StorageError>;

    /// A URL of the store's own; nothing where it has none. The object need not be there.
    ///
    /// # Errors
    /// `InvalidInput` for what the store would refuse, such as more than seven days.
    async fn presign(&self, request: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError>;

    /// Makes the store ready for use: for `strongroom storage init`, and safe to call again. Not retried.
    async fn initialise(&self, options: &InitOptions) -> Result<InitReport, StorageError>;

    /// How much room there is, where the store knows.
    async fn space(&self) -> Result<Option<Space>, StorageError>;

    /// Whether the store can be reached and written to. For readiness: neither queued nor retried.
    async fn check(&self) -> Result<(), StorageError>;
}

/// Which store, and how hard it may be pressed.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// The name of the provider, which blobs record.
    pub provider: String,
    /// The store.
    pub adapter: AdapterOptions,
    /// How many operations, downloads in progress included, may be under way at once; at least 1.
    pub concurrency_max: usize,
    /// How often an operation is tried in all; 1 means no retries.
    pub retry_attempts_max: u32,
    /// The longest pause before the first retry; each further one may be twice as long.
    pub retry_backoff_base: Duration,
    /// The longest pause before any retry.
    pub retry_backoff_max: Duration,
}

/// The stores that can be opened.
#[derive(Debug, Clone)]
pub enum AdapterOptions {
    /// Files below a directory of this machine, which is made if it is not there.
    Local {
        /// The directory. It belongs to Strongroom alone.
        root: PathBuf,
    },
    /// The memory of this process.
    Memory,
    /// Nowhere: of each object its first MiB, which is handed out again and again. For the load command.
    Discard,
    /// A bucket of a store that speaks S3.
    S3(Box<S3Options>),
}

/// Opens the configured store. Touches the disk, so call it while starting up.
///
/// # Errors
/// `InvalidInput` when nothing could ever run under these options, otherwise what the adapter says.
pub fn open(
    options: &StorageOptions,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
) -> Result<Arc<dyn ObjectStorage>, StorageError> {
    if options.concurrency_max == 0 || options.retry_attempts_max == 0 {
        return Err(StorageError::invalid(
            "open storage",
            "concurrency_max and retry_attempts_max begin at 1",
        ));
    }
    let adapter: Arc<dyn ObjectStorage> = match &options.adapter {
        AdapterOptions::Local { root } => Arc::new(local::Local::open(root, Arc::clone(&ids))?),
        AdapterOptions::Memory => Arc::new(memory::Memory::new(memory::Keep::All, clock, Arc::clone(&ids))),
        AdapterOptions::Discard => {
            tracing::warn!("storage.adapter is \"discard\": of what is uploaded, only a beginning is kept");
            Arc::new(memory::Memory::new(memory::Keep::Head, clock, Arc::clone(&ids)))
        }
        AdapterOptions::S3(s3) => Arc::new(s3::S3::open(s3)?),
    };
    Ok(retried(limited::Limited::over(adapter, options.concurrency_max), options, ids))
}

/// Puts the retries of these options above a store: what [`open`] does, for tests that put faults between.
pub fn retried(
    store: Arc<dyn ObjectStorage>,
    options: &StorageOptions,
    ids: Arc<dyn IdSource>,
) -> Arc<dyn ObjectStorage> {
    retrying::Retrying::over(store, options, ids)
}

/// The range must lie inside an object of this size.
fn check_range(range: &Range<u64>, size_bytes: u64, operation: &'static str) -> Result<(), StorageError> {
    if range.start <= range.end && range.end <= size_bytes {
        return Ok(());
    }
    let reason = format!("bytes {}..{} of an object of {size_bytes}", range.start, range.end);
    Err(StorageError::invalid(operation, reason))
}
