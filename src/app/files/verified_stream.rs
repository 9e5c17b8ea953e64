//! A stream of exactly the bytes of a range, which is verified, and ends when the reader loses its permission.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::time::Instant;

use super::block_stream::{BlobToRead, BlockStream, DownloadPiece, StreamError};
use crate::{
    admission::Holder,
    app::{
        App, Error,
        integrity::{damage::Suspicion, recheck::SuspectObject},
    },
    db::versions::ReadableVersion,
    domain::{
        block_checksums::BlockSlice,
        checksum::{Crc64, Crc64Hasher},
        ids::{FileId, TenantId},
    },
    storage::StorageErrorKind,
};

/// The permission to read a version. It is checked again while the version is read, because the file may be
/// hidden, deleted or quarantined during a long download.
#[async_trait]
pub(in crate::app) trait ReadPermission: Send + Sync {
    /// Returns the error that ends the download, if the reader has no permission any more.
    async fn check(&self) -> Result<(), Error>;

    /// Returns the file, for the log.
    fn file(&self) -> FileId;
}

struct ReadAccess {
    permission: Box<dyn ReadPermission>,
    interval: Duration,
    next_check: Instant,
}

impl ReadAccess {
    /// Checks the permission, if the last check was longer ago than the interval. While the database is
    /// unavailable, the download continues: nobody can change the permission then. Any other failure of the
    /// check ends it, because the caller could cause the failure.
    async fn check_if_due(&mut self) -> Result<(), Error> {
        if Instant::now() < self.next_check {
            return Ok(());
        }
        let checked = self.permission.check().await;
        self.next_check = Instant::now() + self.interval;
        match checked {
            Err(Error::DatabaseUnavailable(error)) if error.is_outage() => {
                let file = self.permission.file();
                tracing::warn!(%file, %error, "failed to check the permission of a download");
                Ok(())
            }
            checked => checked,
        }
    }
}

/// A range of a version to read.
pub(in crate::app) struct RangeToRead {
    pub(in crate::app) tenant: TenantId,
    /// The holder of the operations on the store.
    pub(in crate::app) holder: Holder,
    pub(in crate::app) version: ReadableVersion,
    /// The blocks whose checksums were read.
    pub(in crate::app) slice: BlockSlice,
    pub(in crate::app) range: Range<u64>,
}

/// A range whose object is open.
pub(in crate::app) struct OpenedRange {
    bytes: BlockStream,
    length_bytes: u64,
    is_whole: bool,
    expected_crc64: Crc64,
    suspect: SuspectObject,
}

impl OpenedRange {
    /// Opens the object of a range.
    ///
    /// # Errors
    /// Returns `ObjectMissing`, `ObjectDamaged` or `StorageUnavailable`.
    pub(in crate::app) async fn open(app: &Arc<App>, read: RangeToRead) -> Result<Self, Error> {
        let RangeToRead { tenant, holder, version: ReadableVersion { stored, checksums }, slice, range } =
            read;
        let hashes = stored.blob.hashes.ok_or_else(|| Error::internal("available version without hashes"))?;
        let provider = &stored.blob.provider;
        let suspect = SuspectObject {
            app: Arc::clone(app),
            tenant,
            store: Arc::clone(app.stores.get(provider)?),
            blob: stored.blob.clone(),
        };
        let from = BlobToRead {
            app: Arc::clone(app),
            tenant,
            store: app.stores.get_for(provider, holder)?,
            blob: stored.blob.clone(),
            checksums,
            slice,
        };
        let bytes = BlockStream::open(from, range.clone()).await.map_err(|error| match error.kind {
            // The range is within the recorded size, so a store that rejects it has a shorter object.
            StorageErrorKind::InvalidInput => Error::ObjectDamaged,
            _ => error.into(),
        });
        let bytes = bytes.inspect_err(|error| {
            if matches!(error, Error::ObjectMissing | Error::ObjectDamaged) {
                suspect.recheck_in_background(Suspicion::Length);
            }
        })?;
        let length_bytes = range.end - range.start;
        let is_whole = length_bytes == stored.blob.size_bytes;
        Ok(Self { bytes, length_bytes, is_whole, expected_crc64: hashes.crc64nvme, suspect })
    }

    /// Returns the stream of the bytes. `permission` is checked in intervals.
    pub(in crate::app) fn into_stream(
        self,
        permission: Box<dyn ReadPermission>,
        interval: Duration,
    ) -> BoxStream<'static, Result<DownloadPiece, Error>> {
        let access = ReadAccess { permission, interval, next_check: Instant::now() + interval };
        VerifiedStream {
            access,
            remaining_bytes: self.length_bytes,
            hasher: (self.is_whole && !self.bytes.verifies_whole()).then(Crc64Hasher::default),
            bytes: self.bytes,
            expected_crc64: self.expected_crc64,
            suspect: self.suspect,
        }
        .into_stream()
    }
}

/// A stream of exactly the bytes of a range. Reports an error if the bytes end early. Also verifies the
/// checksum of a whole file, and returns an error instead of the last chunk if it differs.
struct VerifiedStream {
    access: ReadAccess,
    bytes: BlockStream,
    remaining_bytes: u64,
    /// Present if the range is the whole file, and its checksum is not verified with its only block.
    hasher: Option<Crc64Hasher>,
    expected_crc64: Crc64,
    suspect: SuspectObject,
}

impl VerifiedStream {
    fn into_stream(self) -> BoxStream<'static, Result<DownloadPiece, Error>> {
        stream::unfold(Some(self), |verified| async move {
            let mut verified = verified?;
            match verified.next_piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(verified))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next_piece(&mut self) -> Result<Option<DownloadPiece>, Error> {
        self.access.check_if_due().await?;
        let next = self.read_piece().await;
        match &next {
            Err(StreamError::Length) => self.suspect.recheck_in_background(Suspicion::Length),
            Err(StreamError::Checksum) => self.suspect.recheck_in_background(Suspicion::Checksum),
            _ => {}
        }
        next.map_err(Error::from)
    }

    async fn read_piece(&mut self) -> Result<Option<DownloadPiece>, StreamError> {
        let Some(piece) = self.bytes.next().await? else {
            return if self.remaining_bytes == 0 { Ok(None) } else { Err(StreamError::Length) };
        };
        self.remaining_bytes =
            self.remaining_bytes.checked_sub(piece.data.len() as u64).ok_or(StreamError::Length)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece.data);
        }
        if self.remaining_bytes == 0 {
            let checksum = self.hasher.take().map(Crc64Hasher::finish);
            if checksum.is_some_and(|checksum| checksum != self.expected_crc64) {
                return Err(StreamError::Checksum);
            }
        }
        Ok(Some(piece))
    }
}
