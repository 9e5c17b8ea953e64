//! Receives the bytes of one upload: checks them, buffers at most one part, and writes full parts while more
//! bytes arrive.
//!
//! `message` defines the messages, and `pace` limits how slowly they may arrive. All buffers share one byte budget of
//! the process (`budget`). `content` computes size, digest and type of the bytes, `part` buffers and writes one part,
//! `assembly` assembles a part that is larger than a buffer, `write` decides which of the two a buffer becomes, and
//! `persisted` describes the parts that were stored before.
//!
//! The next stage is `commit`.

mod assembly;
pub(super) mod budget;
pub(super) mod compare;
pub(super) mod content;
pub(super) mod message;
pub(super) mod pace;
mod part;
pub(super) mod persisted;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use self::{
    assembly::Assembly,
    budget::BudgetError,
    content::{ContentInspector, ContentSummary, InspectedContent},
    message::{PartMessage, UploadMessage},
    pace::{PaceLimits, PaceMonitor, UploadStream},
    part::{Part, WrittenPart},
    persisted::{PersistedParts, ResentParts},
};
use super::{
    admit::{AdmissionBasis, AdmittedUpload, Target, stream_layout},
    error::check_fits_parts,
    open::OpenUpload,
};
use crate::{
    admission::Holder,
    app::{
        App, Error, Workload,
        uploads::{UploadError, UploadStreamOrder},
    },
    domain::{
        block_checksums::{BlockChecksums, Crc32c},
        caller::Caller,
        checksum::{ChecksumAlgorithm, Crc64},
        digest::Digest,
        policy::FileSizeLimits,
        violations::Violations,
    },
    storage::{PartLayout, PartReceipt},
};

/// The destination of received bytes.
pub(super) enum Sink {
    /// The store. An upload is opened when the bytes exceed one part.
    Store {
        /// The location of the new blob.
        target: Box<Target>,
        /// Opened before the first byte if the declared size needs several parts, or if the upload is
        /// resumed.
        open: Option<Box<OpenUpload>>,
    },
    /// None. The bytes of a retry are compared with those that the first attempt stored.
    Compare,
}

impl Sink {
    /// Opens the sink that stores the bytes of a new upload. A file that is known to need several parts
    /// reserves its quota before its first byte.
    async fn open(app: &Arc<App>, caller: &Caller, admitted: &AdmittedUpload) -> Result<Self, Error> {
        let AdmittedUpload { spec, target, .. } = admitted;
        let part_size_bytes = app.limits.uploads.part_size_bytes as u64;
        let open = match spec.checked.size_bytes.filter(|size| *size > part_size_bytes) {
            Some(size) => Some(OpenUpload::open(app, caller, target.clone(), size).await?),
            None => None,
        };
        Ok(Self::Store { target: Box::new(target.clone()), open })
    }
}

/// The result of a finished stream.
pub(super) struct ReceivedStream {
    pub(super) content: ContentSummary,
    pub(super) sha256: Digest,
    /// The checksums of its blocks; see `InspectedContent`.
    pub(super) block_checksums: Option<BlockChecksums>,
    pub(super) bytes: ReceivedBytes,
}

/// The location of received bytes.
pub(super) enum ReceivedBytes {
    /// In memory: a small file that is still to be written.
    Memory(Box<Target>, Part),
    /// In the store as parts of an open upload that is still to be completed, with the checksum of the whole
    /// content.
    Parts { open: Box<OpenUpload>, receipts: Vec<PartReceipt>, crc64nvme: Crc64 },
    /// None. The bytes were only compared.
    Compared,
}

/// Receives the bytes of an upload that begins with them.
pub(super) async fn receive_upload<S>(
    app: &Arc<App>,
    caller: &Caller,
    admitted: &AdmittedUpload,
    messages: S,
) -> Result<ReceivedStream, Error>
where
    S: UploadStream,
{
    let sink = Sink::open(app, caller, admitted).await?;
    let (limits, rules) = match admitted.basis {
        AdmissionBasis::CurrentQuota(limits) => (limits, Some(admitted.spec.rules.clone())),
        AdmissionBasis::CachedQuota(_) => (FileSizeLimits::NONE, None),
    };
    let content = ContentInspector::new(&admitted.spec.checked, limits, rules, &app.hashing.share_of(caller));
    receive_stream(app, caller, content, sink, PersistedParts::default(), messages).await
}

/// Receives messages until the finish message, and checks that no message follows it. `persisted` are the
/// parts that are already in the store.
pub(super) async fn receive_stream<S>(
    app: &Arc<App>,
    caller: &Caller,
    content: ContentInspector,
    sink: Sink,
    persisted: PersistedParts,
    mut messages: S,
) -> Result<ReceivedStream, Error>
where
    S: UploadStream,
{
    let mut receiver = Receiver::new(app, caller, content, sink, persisted);
    let mut pace = PaceMonitor::new(PaceLimits::of_upload(&app.limits.uploads));
    loop {
        match pace.next_message(&mut messages, receiver.streamed_bytes).await? {
            Some(UploadMessage::Chunk { offset, data, crc32c }) => {
                receiver.receive_chunk(offset, data, crc32c).await?
            }
            Some(UploadMessage::Finish { size_bytes, sha256 }) => {
                return match pace.next_message(&mut messages, receiver.streamed_bytes).await? {
                    None => receiver.finish(size_bytes, sha256).await,
                    Some(_) => Err(UploadError::from(UploadStreamOrder::FinishNotLast).into()),
                };
            }
            Some(UploadMessage::OutOfOrder(order)) => return Err(UploadError::from(order).into()),
            None => return Err(receiver.into_pause_error().await),
        }
    }
}

/// Receives one whole part, which may be larger than a chunk. Returns the number of persisted bytes,
/// including this part.
pub(super) async fn receive_part(
    app: &Arc<App>,
    caller: &Caller,
    content: ContentInspector,
    open: Box<OpenUpload>,
    persisted: PersistedParts,
    PartMessage { offset, data, crc32c, held }: PartMessage,
) -> Result<u64, Error> {
    let sink = Sink::Store { target: Box::new(open.target().clone()), open: Some(open) };
    let mut receiver = Receiver::new(app, caller, content, sink, persisted);
    receiver.chunk_size_max_bytes = receiver.part_size_bytes;
    receiver.check_part_length(offset, data.len())?;
    receiver.receive_chunk(offset, data, crc32c).await?;
    drop(held);
    if receiver.resent.as_ref().is_some_and(ResentParts::is_inside_part) {
        return Err(Violations::one("data", "must be the whole part that is stored at this offset").into());
    }
    if receiver.part.len_bytes() > 0 {
        receiver.write_part().await?;
    }
    receiver.wait_for_stored_bytes().await
}

struct Receiver<'a> {
    app: &'a Arc<App>,
    caller: &'a Caller,
    content: ContentInspector,
    sink: Sink,
    part: Part,
    layout: PartLayout,
    /// The size of a buffer: of a part, or of a fragment of a larger part.
    part_size_bytes: usize,
    chunk_size_max_bytes: usize,
    next_number: u32,
    /// The part that is being assembled. All writes are then fragments of it.
    assembly: Option<Assembly>,
    writes: JoinSet<Result<WrittenPart, Error>>,
    written: Vec<WrittenPart>,
    /// The parts that were in the store before this stream.
    persisted: PersistedParts,
    /// The bytes that the client sends again although they are in the store. Set by the first chunk.
    resent: Option<ResentParts>,
    /// The offset of the next chunk. `None` before the first chunk, which determines where a resumed upload
    /// continues.
    offset: Option<u64>,
    /// The bytes received by this stream.
    streamed_bytes: u64,
}

impl<'a> Receiver<'a> {
    fn new(
        app: &'a Arc<App>,
        caller: &'a Caller,
        content: ContentInspector,
        sink: Sink,
        persisted: PersistedParts,
    ) -> Self {
        let layout = match &sink {
            Sink::Store { open: Some(open), .. } => open.layout(),
            _ => stream_layout(app),
        };
        // A part is in memory, so its size fits.
        let part_size_bytes = usize::try_from(layout.part_size_bytes()).unwrap_or(usize::MAX);
        Self {
            app,
            caller,
            content,
            sink,
            layout,
            part_size_bytes,
            chunk_size_max_bytes: app.limits.uploads.chunk_size_max_bytes,
            part: Part::new(app.budget.new_permit(Holder::of_caller(caller), part_size_bytes)),
            next_number: persisted.next_number(),
            assembly: None,
            writes: JoinSet::new(),
            written: Vec::new(),
            persisted,
            resent: None,
            offset: None,
            streamed_bytes: 0,
        }
    }

    async fn receive_chunk(
        &mut self,
        offset: i64,
        mut data: Bytes,
        crc32c: Option<u32>,
    ) -> Result<(), Error> {
        let max = self.chunk_size_max_bytes;
        if data.len() > max {
            let problem = format!("has {} bytes; a chunk has at most {max} bytes", data.len());
            return Err(Violations::one("chunk.data", problem).into());
        }
        let begin = self.check_offset(offset)?;
        if crc32c.is_some_and(|sent| sent != Crc32c::compute([&*data]).as_u32()) {
            return Err(UploadError::ChecksumMismatch { algorithm: ChecksumAlgorithm::Crc32c }.into());
        }
        self.offset = Some(begin + data.len() as u64);
        self.streamed_bytes += data.len() as u64;
        self.app.metrics.add_uploaded_bytes(data.len() as u64);
        if let Some(resent) = &mut self.resent {
            resent.compare(&mut data)?;
        }
        match self.sink {
            Sink::Compare => self.content.update(&data).await,
            Sink::Store { .. } => self.buffer_chunk(data).await,
        }
    }

    /// Checks that a part shorter than the part size is the last one.
    fn check_part_length(&self, offset: i64, length: usize) -> Result<(), Violations> {
        let end = u64::try_from(offset).unwrap_or_default() + length as u64;
        let is_last = self.content.declared_bytes().is_none_or(|declared| end >= declared);
        if length < self.part_size_bytes && !is_last && length > 0 {
            let problem = format!(
                "has {length} bytes instead of {}; only the last part may be shorter",
                self.part_size_bytes
            );
            return Err(Violations::one("data", problem));
        }
        Ok(())
    }

    /// Checks that a chunk follows the previous one. The first chunk of a resumed upload begins where the
    /// stored bytes end, or at any stored part.
    fn check_offset(&mut self, offset: i64) -> Result<u64, Error> {
        let expected = self.offset.unwrap_or_else(|| self.persisted.size_bytes());
        let gap = || UploadError::OffsetGap { expected, received: offset };
        let Ok(begin) = u64::try_from(offset) else { return Err(gap().into()) };
        if self.offset.is_none() {
            self.resent = Some(self.persisted.resent_parts_from(begin).ok_or_else(gap)?);
        } else if begin != expected {
            return Err(gap().into());
        }
        Ok(begin)
    }

    /// Adds bytes to the current part. A full part is written only when more bytes arrive, because a file of
    /// at most one part is stored without a multipart upload. A full part of a resumable upload is written
    /// immediately, so that it is recorded sooner.
    async fn buffer_chunk(&mut self, mut data: Bytes) -> Result<(), Error> {
        let part_size_bytes = self.part_size_bytes;
        if !data.is_empty() && self.persisted.is_closed(part_size_bytes as u64) {
            return Err(UploadError::HasAllBytes { size_bytes: self.persisted.size_bytes() }.into());
        }
        while !data.is_empty() {
            if self.part.len_bytes() == part_size_bytes {
                self.write_full_part().await?;
            }
            let chunk = data.split_to(data.len().min(part_size_bytes - self.part.len_bytes()));
            self.content.update(&chunk).await?;
            // Parts beyond the limit must not be recorded: a later writer would resume after them.
            check_fits_parts(self.content.received_bytes(), self.layout)?;
            if let Sink::Store { open: Some(open), .. } = &mut self.sink {
                open.reserve_at_least(self.content.received_bytes()).await?;
            }
            let pushed = self.part.push(chunk).await;
            pushed.map_err(|error| match error {
                BudgetError::Overloaded => Error::Overloaded(Workload::Uploads),
                BudgetError::PartTooLarge => {
                    UploadError::PartsTooLarge { part_size_bytes: part_size_bytes as u64 }.into()
                }
            })?;
        }
        if self.part.len_bytes() == part_size_bytes && self.is_resumable() {
            self.write_part().await?;
        }
        Ok(())
    }

    fn is_resumable(&self) -> bool {
        matches!(&self.sink, Sink::Store { open: Some(open), .. } if open.is_resumable())
    }

    /// Returns the error for a stream that ended without a finish message. For a resumable upload it contains
    /// the persisted size, once all pending parts are written.
    async fn into_pause_error(self) -> Error {
        if !self.is_resumable() {
            return UploadError::NotFinished.into();
        }
        match self.wait_for_stored_bytes().await {
            Ok(persisted_size_bytes) => UploadError::Paused { persisted_size_bytes }.into(),
            Err(error) => error,
        }
    }

    /// Waits for all pending parts and returns the number of stored bytes.
    async fn wait_for_stored_bytes(mut self) -> Result<u64, Error> {
        self.join_all_writes().await?;
        let written: u64 = self.written.iter().map(|part| part.receipt.size_bytes).sum();
        Ok(self.persisted.size_bytes() + written)
    }

    async fn finish(mut self, size_bytes: i64, sha256: Option<Vec<u8>>) -> Result<ReceivedStream, Error> {
        let (size_bytes, sha256) = parse_finish(size_bytes, sha256.as_deref())?;
        // Checked before the last part is written: if this fails, a resumable upload stays as it was.
        self.content.check_declared(size_bytes, sha256).await?;
        if matches!(&self.sink, Sink::Store { open: Some(_), .. }) && self.part.len_bytes() > 0 {
            self.write_part().await?;
        }
        self.finish_assembly().await?;
        let InspectedContent { summary: content, sha256, block_checksums } = self.content.finish().await?;
        let bytes = match self.sink {
            Sink::Compare => ReceivedBytes::Compared,
            Sink::Store { open: Some(open), .. } => {
                self.written.sort_by_key(|part| part.receipt.number);
                let written = self.written.into_iter().map(|part| (part.receipt, part.crc64nvme));
                let parts: Vec<_> = self.persisted.receipts().chain(written).collect();
                let crc64nvme = parts
                    .iter()
                    .fold(Crc64::compute(&[]), |crc, (receipt, next)| crc.combine(*next, receipt.size_bytes));
                let receipts = parts.into_iter().map(|(receipt, _)| receipt).collect();
                ReceivedBytes::Parts { open, receipts, crc64nvme }
            }
            Sink::Store { target, open: None } => ReceivedBytes::Memory(target, self.part),
        };
        Ok(ReceivedStream { content, sha256, block_checksums, bytes })
    }
}

/// Parses a finish message and reports all violations at once.
fn parse_finish(size_bytes: i64, sha256: Option<&[u8]>) -> Result<(u64, Option<Digest>), Violations> {
    let mut violations = Violations::new();
    let size_bytes = violations
        .ok_or_add("finish.size_bytes", u64::try_from(size_bytes).map_err(|_| "must not be negative"));
    let sha256 = sha256.and_then(|raw| violations.ok_or_add("finish.sha256", Digest::from_slice(raw)));
    violations.into_result()?;
    Ok((size_bytes.unwrap_or_default(), sha256))
}
