//! Compares bytes that are sent again for a file that was committed before. They are not stored.

use std::sync::Arc;

use super::{
    Receiver, Sink,
    content::ContentInspector,
    message::{PartMessage, UploadMessage},
    pace::{PaceLimits, PaceMonitor, UploadStream},
    parse_finish,
    persisted::{PersistedParts, ResentParts},
    receive_stream,
};
use crate::{
    app::{
        App, Error,
        uploads::{CommittedUpload, UploadError, UploadStreamOrder},
    },
    db::resumable_uploads::StoredUpload,
    domain::{
        caller::Caller, checksum::ChecksumAlgorithm, digest::Digest, policy::FileSizeLimits,
        upload_spec::CheckedSpec, violations::Violations,
    },
};

/// Receives the bytes of a retry to the end without storing them. Returns their digest.
pub(in crate::app::uploads) async fn receive_to_compare<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: &CheckedSpec,
    messages: S,
) -> Result<Digest, Error>
where
    S: UploadStream,
{
    let content = ContentInspector::new(spec, FileSizeLimits::NONE, None, &app.hashing.share_of(caller));
    let received =
        receive_stream(app, caller, content, Sink::Compare, PersistedParts::default(), messages).await?;
    Ok(received.sha256)
}

/// The size and the digest of a committed file.
#[derive(Debug, Clone, Copy)]
pub(in crate::app::uploads) struct CommittedContent {
    pub(in crate::app::uploads) size_bytes: u64,
    /// `None` until the bytes of a direct upload are verified.
    pub(in crate::app::uploads) sha256: Option<Digest>,
}

impl From<&CommittedUpload> for CommittedContent {
    fn from(committed: &CommittedUpload) -> Self {
        Self { size_bytes: committed.file.size_bytes, sha256: committed.file.sha256 }
    }
}

impl CommittedContent {
    /// Checks that an upload is completed again with the same size and digest.
    ///
    /// # Errors
    /// Returns `SizeMismatch` or `ChecksumMismatch`.
    pub(in crate::app::uploads) fn check(
        &self,
        size_bytes: u64,
        sha256: Option<Digest>,
    ) -> Result<(), UploadError> {
        if size_bytes != self.size_bytes {
            return Err(UploadError::SizeMismatch { declared: size_bytes, received: self.size_bytes });
        }
        match (sha256, self.sha256) {
            (Some(sent), Some(committed)) if sent != committed => {
                Err(UploadError::ChecksumMismatch { algorithm: ChecksumAlgorithm::Sha256 })
            }
            _ => Ok(()),
        }
    }
}

/// An upload that was committed, with the parts that it was committed from.
pub(in crate::app::uploads) struct CommittedParts {
    pub(in crate::app::uploads) stored: StoredUpload,
    pub(in crate::app::uploads) persisted: PersistedParts,
}

impl CommittedParts {
    /// Compares a stream that resumes the upload with the committed content. A stream that ends without a
    /// finish message completes nothing, so it is not an error.
    ///
    /// # Errors
    /// Returns `SizeMismatch` or `ChecksumMismatch` if the stream completes another file, and the errors of an
    /// invalid stream.
    pub(in crate::app::uploads) async fn compare_stream<S>(
        self,
        app: &Arc<App>,
        caller: &Caller,
        committed: CommittedContent,
        mut messages: S,
    ) -> Result<(), Error>
    where
        S: UploadStream,
    {
        let mut receiver = self.into_receiver(app, caller)?;
        let mut pace = PaceMonitor::new(PaceLimits::of_upload(&app.limits.uploads));
        loop {
            match pace.next_message(&mut messages, receiver.streamed_bytes).await? {
                Some(UploadMessage::Chunk { offset, data, crc32c }) => {
                    receiver.receive_chunk(offset, data, crc32c).await.map_err(map_difference)?;
                }
                Some(UploadMessage::Finish { size_bytes, sha256 }) => {
                    if pace.next_message(&mut messages, receiver.streamed_bytes).await?.is_some() {
                        return Err(UploadError::from(UploadStreamOrder::FinishNotLast).into());
                    }
                    let (declared, sha256) = parse_finish(size_bytes, sha256.as_deref())?;
                    if let Some(received) = receiver.offset.filter(|received| *received != declared) {
                        return Err(UploadError::SizeMismatch { declared, received }.into());
                    }
                    return Ok(committed.check(declared, sha256)?);
                }
                Some(UploadMessage::OutOfOrder(order)) => return Err(UploadError::from(order).into()),
                None => return Ok(()),
            }
        }
    }

    /// Compares one whole part with the committed content.
    ///
    /// # Errors
    /// Returns `ChecksumMismatch` if its bytes differ, and `SizeMismatch` if it exceeds the committed content.
    pub(in crate::app::uploads) async fn compare_part(
        self,
        app: &Arc<App>,
        caller: &Caller,
        PartMessage { offset, data, crc32c, held: _held }: PartMessage,
    ) -> Result<(), Error> {
        let committed_bytes = self.persisted.size_bytes();
        let mut receiver = self.into_receiver(app, caller)?;
        receiver.receive_chunk(offset, data, crc32c).await.map_err(map_difference)?;
        if let Some(declared) = receiver.offset.filter(|end| *end > committed_bytes) {
            return Err(UploadError::SizeMismatch { declared, received: committed_bytes }.into());
        }
        if receiver.resent.as_ref().is_some_and(ResentParts::is_inside_part) {
            return Err(
                Violations::one("data", "must be the whole part that is stored at this offset").into()
            );
        }
        Ok(())
    }

    fn into_receiver<'a>(self, app: &'a Arc<App>, caller: &'a Caller) -> Result<Receiver<'a>, Error> {
        let Self { stored, persisted } = self;
        let sniffed = stored.sniffed_mime_type.as_deref();
        let content = ContentInspector::resume(
            &stored.spec,
            FileSizeLimits::NONE,
            &app.hashing.share_of(caller),
            &persisted,
            sniffed,
        )?;
        let mut receiver = Receiver::new(app, caller, content, Sink::Compare, persisted);
        receiver.chunk_size_max_bytes = receiver
            .chunk_size_max_bytes
            .max(usize::try_from(stored.upload.part_size_bytes).unwrap_or(usize::MAX));
        Ok(receiver)
    }
}

/// An open upload reports that bytes differ from its own; a committed one reports that they are another file.
fn map_difference(error: Error) -> Error {
    match error {
        Error::Upload(UploadError::ResentBytesDiffer) => {
            UploadError::ChecksumMismatch { algorithm: ChecksumAlgorithm::Sha256 }.into()
        }
        error => error,
    }
}
