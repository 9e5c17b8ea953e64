//! Receives the bytes of one upload: checks them, keeps at most a part of them, and writes full parts while more arrive.
//!
//! All buffers come out of one byte budget of the process (`budget`). What is learned of the bytes as they go by is in
//! `content`, what of them was there before in `persisted`, and `write` brings parts to the store.

pub(super) mod budget;
pub(super) mod content;
pub(super) mod hashing;
pub(super) mod message;
mod pace;
mod part;
pub(super) mod persisted;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use self::{
    budget::NoRoom,
    content::{Content, Measured},
    message::{PartMessage, UploadMessage},
    pace::Pace,
    part::Part,
    persisted::{Persisted, SentAgain},
    write::{Mark, PartWrite, WrittenPart},
};
use super::{open::OpenUpload, target::Target};
use crate::{
    app::{App, Error},
    domain::{caller::Caller, checksum::Crc64, digest::Digest, violations::Violations},
    storage::{PART_NUMBER_MAX, PartReceipt},
};

/// Where received bytes go.
pub(super) enum Sink {
    /// To the store; an upload is opened when they are more than one part.
    Store {
        /// The place of the new blob.
        target: Box<Target>,
        /// Opened before the first byte where the size is known to need it, or where it is gone on with.
        open: Option<Box<OpenUpload>>,
    },
    /// Nowhere: a retry whose bytes are compared with those that were stored the first time.
    Compare,
}

/// The bytes of a finished stream.
pub(super) struct Received {
    /// What they are.
    pub(super) content: Measured,
    /// Where they are.
    pub(super) place: Place,
}

/// Where received bytes are.
pub(super) enum Place {
    /// In memory: a small file, to be written at once.
    Memory(Box<Target>, Part),
    /// In the store, as parts of an open upload, to be completed; and the checksum of all of them.
    Parts(Box<OpenUpload>, Vec<PartReceipt>, Crc64),
    /// Nowhere.
    Compared,
}

/// Receives until the finish message, and makes sure that nothing follows it. `persisted` is what is in the store already.
pub(super) async fn receive<S>(
    app: &Arc<App>,
    caller: &Caller,
    content: Content,
    sink: Sink,
    persisted: Persisted,
    mut messages: S,
) -> Result<Received, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let mut receiver = Receiver::new(app, caller, content, sink, persisted);
    let mut pace = Pace::new(app);
    loop {
        match pace.next(&mut messages, receiver.streamed_bytes).await? {
            Some(UploadMessage::Chunk { offset, data, crc32c }) => {
                receiver.chunk(offset, data, crc32c).await?
            }
            Some(UploadMessage::Finish { size_bytes, sha256 }) => {
                return match pace.next(&mut messages, receiver.streamed_bytes).await? {
                    None => receiver.finish(size_bytes, sha256).await,
                    Some(_) => Err(Error::StreamOrder("a message came after the finish")),
                };
            }
            Some(UploadMessage::OutOfOrder(why)) => return Err(Error::StreamOrder(why)),
            None => return Err(receiver.pause().await),
        }
    }
}

/// Receives one whole part, or several chunks that are one, and answers how many bytes are stored with it.
pub(super) async fn receive_part(
    app: &Arc<App>,
    caller: &Caller,
    content: Content,
    open: Box<OpenUpload>,
    persisted: Persisted,
    PartMessage { offset, data, crc32c }: PartMessage,
) -> Result<u64, Error> {
    let sink = Sink::Store { target: Box::new(open.target().clone()), open: Some(open) };
    let mut receiver = Receiver::new(app, caller, content, sink, persisted);
    receiver.chunk_size_max_bytes = receiver.part_size_bytes;
    receiver.check_part(offset, data.len())?;
    receiver.chunk(offset, data, crc32c).await?;
    if receiver.again.as_ref().is_some_and(SentAgain::is_inside_a_part) {
        return Err(Violations::one("data", "must be all of the part that is stored here").into());
    }
    if receiver.part.len_bytes() > 0 {
        receiver.write_part().await?;
    }
    receiver.stored_bytes().await
}

struct Receiver<'a> {
    app: &'a Arc<App>,
    caller: &'a Caller,
    content: Content,
    sink: Sink,
    part: Part,
    part_size_bytes: usize,
    chunk_size_max_bytes: usize,
    next_number: u32,
    writes: JoinSet<Result<WrittenPart, Error>>,
    written: Vec<WrittenPart>,
    /// What was in the store before this stream.
    persisted: Persisted,
    /// Bytes that are in the store and come again; known from the first chunk on.
    again: Option<SentAgain>,
    /// Where the next chunk must begin; the first one of an upload that is gone on with may choose.
    offset: Option<u64>,
    /// How many bytes this stream has brought.
    streamed_bytes: u64,
}

impl<'a> Receiver<'a> {
    fn new(
        app: &'a Arc<App>,
        caller: &'a Caller,
        content: Content,
        sink: Sink,
        persisted: Persisted,
    ) -> Self {
        let part_size_bytes = match &sink {
            Sink::Store { open: Some(open), .. } => open.part_size_bytes(),
            _ => app.limits.uploads.part_size_bytes,
        };
        Self {
            app,
            caller,
            content,
            sink,
            part_size_bytes,
            chunk_size_max_bytes: app.limits.uploads.chunk_size_max_bytes,
            part: Part::new(app.budget.room(caller.tenant_id(), part_size_bytes)),
            next_number: persisted.next_number(),
            writes: JoinSet::new(),
            written: Vec::new(),
            persisted,
            again: None,
            offset: None,
            streamed_bytes: 0,
        }
    }

    async fn chunk(&mut self, offset: i64, mut data: Bytes, crc32c: Option<u32>) -> Result<(), Error> {
        let max = self.chunk_size_max_bytes;
        if data.len() > max {
            let wrong = format!("must have at most {max} bytes, has {}", data.len());
            return Err(Violations::one("chunk.data", wrong).into());
        }
        let begin = self.check_offset(offset)?;
        if crc32c.is_some_and(|sent| sent != crc32c_of(&data)) {
            return Err(Error::ChecksumMismatch { algorithm: "crc32c" });
        }
        self.offset = Some(begin + data.len() as u64);
        self.streamed_bytes += data.len() as u64;
        self.app.metrics.uploaded_bytes(data.len() as u64);
        if let Some(again) = &mut self.again {
            again.take(&mut data)?;
        }
        match self.sink {
            Sink::Compare => self.content.take(&data).await,
            Sink::Store { .. } => self.keep(data).await,
        }
    }

    /// A part that is not whole is the last one: with it the upload is as long as it was said to be.
    fn check_part(&self, offset: i64, length: usize) -> Result<(), Violations> {
        let end = u64::try_from(offset).unwrap_or_default() + length as u64;
        let is_last = self.content.declared_bytes().is_none_or(|declared| end >= declared);
        if length < self.part_size_bytes && !is_last && length > 0 {
            let wrong = format!(
                "must have {} bytes, has {length}: only the last part may be shorter",
                self.part_size_bytes
            );
            return Err(Violations::one("data", wrong));
        }
        Ok(())
    }

    /// A chunk follows the one before. The first of an upload that is gone on with begins where the stored bytes end, or at
    /// any stored part.
    fn check_offset(&mut self, offset: i64) -> Result<u64, Error> {
        let expected = self.offset.unwrap_or_else(|| self.persisted.size_bytes());
        let gap = Error::OffsetGap { expected, received: offset };
        let Ok(begin) = u64::try_from(offset) else { return Err(gap) };
        if self.offset.is_none() {
            self.again = Some(self.persisted.sent_again_from(begin).ok_or(gap)?);
        } else if begin != expected {
            return Err(gap);
        }
        Ok(begin)
    }

    /// Adds bytes to the part under construction. A full part is written when more bytes come: that were all, they would be
    /// a small file. Of an upload that can be resumed it is written at once, and counts the sooner.
    async fn keep(&mut self, mut data: Bytes) -> Result<(), Error> {
        let part_size_bytes = self.part_size_bytes;
        if !data.is_empty() && self.persisted.is_closed(part_size_bytes as u64) {
            return Err(Error::UploadEnds { size_bytes: self.persisted.size_bytes() });
        }
        while !data.is_empty() {
            if self.part.len_bytes() == part_size_bytes {
                self.write_part().await?;
            }
            let piece = data.split_to(data.len().min(part_size_bytes - self.part.len_bytes()));
            self.content.take(&piece).await?;
            if let Sink::Store { open: Some(open), .. } = &mut self.sink {
                open.cover(self.content.received_bytes()).await?;
            }
            let pushed = self.part.push(piece).await;
            pushed.map_err(|no_room| match no_room {
                NoRoom::TooManyWait => Error::Overloaded("uploads"),
                NoRoom::PartTooLarge => {
                    Error::UploadPartsTooLarge { part_size_bytes: part_size_bytes as u64 }
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

    /// Writes the part beside the stream. Waits when enough parts are being written already.
    async fn write_part(&mut self) -> Result<(), Error> {
        while self.writes.len() >= self.app.limits.uploads.parts_in_flight_max {
            self.join_one().await?;
        }
        let mark = match self.is_resumable() {
            // What is not taken must not be recorded: whoever goes on behind it would have it committed.
            true if self.next_number > PART_NUMBER_MAX => return Err(self.too_many_parts()),
            true => {
                self.content.judge()?;
                Some(Mark {
                    sha256_state: self.content.digest_state().await?,
                    sniffed_mime_type: self.content.sniffed(),
                })
            }
            false => None,
        };
        let (app, caller) = (self.app, self.caller);
        let received = self.content.received_bytes();
        let Sink::Store { target, open } = &mut self.sink else { return Ok(()) };
        let open = match open {
            Some(open) => open,
            None => open.insert(OpenUpload::open(app, caller, (**target).clone(), received).await?),
        };
        let is_recorded = mark.is_some();
        let write = PartWrite::of(app, caller.tenant_id(), open, self.next_number, mark);
        self.next_number += 1;
        let next = Part::new(app.budget.room(caller.tenant_id(), self.part_size_bytes));
        let (body, room) = std::mem::replace(&mut self.part, next).into_body();
        let write = write.run(body, room).in_current_span();
        if is_recorded {
            // In a task that outlives the stream: a client that leaves now goes on behind this part.
            let write = app.tasks.spawn(write);
            self.writes.spawn(async move { write.await.map_err(Error::internal)? });
        } else {
            self.writes.spawn(write);
        }
        Ok(())
    }

    /// A store puts no more parts together than these.
    fn too_many_parts(&self) -> Error {
        let limit = u64::from(PART_NUMBER_MAX) * self.part_size_bytes as u64;
        Error::too_large(None, self.content.received_bytes(), i64::try_from(limit).unwrap_or(i64::MAX))
    }

    async fn join_one(&mut self) -> Result<(), Error> {
        if let Some(joined) = self.writes.join_next().await {
            self.written.push(joined.map_err(Error::internal)??);
        }
        Ok(())
    }

    /// The stream ended without a finish. What can be resumed says where, once all its parts are in the store.
    async fn pause(self) -> Error {
        if !self.is_resumable() {
            return Error::UploadNotFinished;
        }
        match self.stored_bytes().await {
            Ok(persisted_size_bytes) => Error::UploadPaused { persisted_size_bytes },
            Err(error) => error,
        }
    }

    /// How many bytes are in the store, once all parts that are on their way are.
    async fn stored_bytes(mut self) -> Result<u64, Error> {
        while !self.writes.is_empty() {
            self.join_one().await?;
        }
        let written: u64 = self.written.iter().map(|part| part.receipt.size_bytes).sum();
        Ok(self.persisted.size_bytes() + written)
    }

    async fn finish(mut self, size_bytes: i64, sha256: Option<Vec<u8>>) -> Result<Received, Error> {
        let declared = declared(size_bytes, sha256.as_deref())?;
        // Before the last part: an upload that can be resumed stays as it was when this is refused.
        self.content.check(declared.0, declared.1).await?;
        if matches!(&self.sink, Sink::Store { open: Some(_), .. }) && self.part.len_bytes() > 0 {
            self.write_part().await?;
        }
        while !self.writes.is_empty() {
            self.join_one().await?;
        }
        let content = self.content.finish().await?;
        let place = match self.sink {
            Sink::Compare => Place::Compared,
            Sink::Store { open: Some(open), .. } => {
                self.written.sort_by_key(|part| part.receipt.number);
                let written = self.written.into_iter().map(|part| (part.receipt, part.crc64nvme));
                let parts: Vec<_> = self.persisted.receipts().chain(written).collect();
                let crc64nvme = parts
                    .iter()
                    .fold(Crc64::of(&[]), |crc, (receipt, next)| crc.followed_by(*next, receipt.size_bytes));
                Place::Parts(open, parts.into_iter().map(|(receipt, _)| receipt).collect(), crc64nvme)
            }
            Sink::Store { target, open: None } => Place::Memory(target, self.part),
        };
        Ok(Received { content, place })
    }
}

/// What a finish message says, if it can be read: all that is wrong with it at once.
fn declared(size_bytes: i64, sha256: Option<&[u8]>) -> Result<(u64, Option<Digest>), Violations> {
    let mut wrong = Violations::new();
    let size_bytes =
        wrong.take("finish.size_bytes", u64::try_from(size_bytes).map_err(|_| "must not be negative"));
    let sha256 = sha256.and_then(|raw| wrong.take("finish.sha256", Digest::from_slice(raw)));
    wrong.into_result()?;
    Ok((size_bytes.unwrap_or_default(), sha256))
}

/// The CRC32C (Castagnoli) of some bytes.
fn crc32c_of(data: &[u8]) -> u32 {
    // The checksum has 32 bits; the library answers all of its algorithms in 64.
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data)).unwrap_or_default()
}
