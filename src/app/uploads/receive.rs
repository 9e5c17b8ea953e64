//! Receives the bytes of one upload: checks them, keeps at most a part of them, and writes full parts while more arrive.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::{task::JoinSet, time::Instant};

use super::{
    budget::TooManyWait,
    content::{Content, Measured},
    message::UploadMessage,
    open::{OpenUpload, Target},
    part::Part,
};
use crate::{
    app::{App, Error},
    domain::{caller::Caller, checksum::Crc64, digest::Digest, violations::Violations},
    storage::{PartReceipt, StorageError, StorageErrorKind},
};

/// Where received bytes go.
pub(super) enum Sink {
    /// To the store; an upload is opened when they are more than one part.
    Store {
        /// The place of the new blob.
        target: Box<Target>,
        /// Opened before the first byte where the size is known to need it.
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

/// Receives until the finish message, and makes sure that nothing follows it.
pub(super) async fn receive<S>(
    app: &Arc<App>,
    caller: &Caller,
    content: Content,
    sink: Sink,
    mut messages: S,
) -> Result<Received, Error>
where
    S: Stream<Item = UploadMessage> + Send + Unpin,
{
    let mut receiver = Receiver::new(app, caller, content, sink);
    let mut pace = Pace::new(app);
    loop {
        match pace.next(&mut messages, receiver.content.received_bytes()).await? {
            Some(UploadMessage::Chunk { offset, data, crc32c }) => {
                receiver.chunk(offset, data, crc32c).await?
            }
            Some(UploadMessage::Finish { size_bytes, sha256 }) => {
                return match pace.next(&mut messages, receiver.content.received_bytes()).await? {
                    None => receiver.finish(size_bytes, sha256).await,
                    Some(_) => Err(Error::StreamOrder("a message came after the finish")),
                };
            }
            Some(UploadMessage::OutOfOrder(why)) => return Err(Error::StreamOrder(why)),
            None => return Err(Error::UploadNotFinished),
        }
    }
}

/// Ends uploads that stand still or drip. Only time spent waiting for the client counts, in windows of the grace period:
/// what came fast at first does not pay for dripping later, and waiting for our own budget is nobody's fault.
struct Pace<'a> {
    app: &'a App,
    waited: Duration,
    window_began_bytes: u64,
}

impl<'a> Pace<'a> {
    fn new(app: &'a App) -> Self {
        Self { app, waited: Duration::ZERO, window_began_bytes: 0 }
    }

    async fn next<S>(&mut self, messages: &mut S, received_bytes: u64) -> Result<Option<UploadMessage>, Error>
    where
        S: Stream<Item = UploadMessage> + Send + Unpin,
    {
        let limits = &self.app.limits.uploads;
        let idle = limits.idle_timeout();
        let asked = Instant::now();
        let next = tokio::time::timeout(idle, messages.next())
            .await
            .map_err(|_| Error::UploadStalled(format!("no message for {} seconds", idle.as_secs())))?;
        self.waited += asked.elapsed();
        if self.waited >= limits.rate_grace() {
            let rate = limits.rate_min_bytes_per_second;
            if received_bytes - self.window_began_bytes < rate.saturating_mul(self.waited.as_secs()) {
                return Err(Error::UploadStalled(format!("fewer than {rate} bytes per second")));
            }
            (self.waited, self.window_began_bytes) = (Duration::ZERO, received_bytes);
        }
        Ok(next)
    }
}

/// A part that is in the store.
struct WrittenPart {
    receipt: PartReceipt,
    len_bytes: u64,
    crc64nvme: Crc64,
}

struct Receiver<'a> {
    app: &'a Arc<App>,
    caller: &'a Caller,
    content: Content,
    sink: Sink,
    part: Part,
    next_number: u32,
    writes: JoinSet<Result<WrittenPart, StorageError>>,
    written: Vec<WrittenPart>,
}

impl<'a> Receiver<'a> {
    fn new(app: &'a Arc<App>, caller: &'a Caller, content: Content, sink: Sink) -> Self {
        let part = Part::new(app.budget.room(caller.tenant_id()));
        Self { app, caller, content, sink, part, next_number: 1, writes: JoinSet::new(), written: Vec::new() }
    }

    async fn chunk(&mut self, offset: i64, data: Bytes, crc32c: Option<u32>) -> Result<(), Error> {
        let max = self.app.limits.uploads.chunk_size_max_bytes;
        if data.len() > max {
            let wrong = format!("must have at most {max} bytes, has {}", data.len());
            return Err(Violations::one("chunk.data", wrong).into());
        }
        let expected = self.content.received_bytes();
        if u64::try_from(offset) != Ok(expected) {
            return Err(Error::OffsetGap { expected, received: offset });
        }
        if crc32c.is_some_and(|sent| sent != crc32c_of(&data)) {
            return Err(Error::ChecksumMismatch { algorithm: "crc32c" });
        }
        self.content.take(&data).await?;
        self.app.metrics.uploaded_bytes(data.len() as u64);
        match self.sink {
            Sink::Compare => Ok(()),
            Sink::Store { .. } => self.keep(data).await,
        }
    }

    /// Adds bytes to the part under construction; a part that is full when more bytes come is written.
    async fn keep(&mut self, mut data: Bytes) -> Result<(), Error> {
        let received = self.content.received_bytes();
        if let Sink::Store { open: Some(open), .. } = &mut self.sink {
            open.cover(received).await?;
        }
        while !data.is_empty() {
            let free = self.app.limits.uploads.part_size_bytes - self.part.len_bytes();
            if free == 0 {
                self.write_part().await?;
                continue;
            }
            let piece = data.split_to(data.len().min(free));
            let room = self.part.push(piece).await;
            room.map_err(|TooManyWait| Error::Overloaded("uploads"))?;
        }
        Ok(())
    }

    /// Writes the part beside the stream. Waits when enough parts are being written already.
    async fn write_part(&mut self) -> Result<(), Error> {
        while self.writes.len() >= self.app.limits.uploads.parts_in_flight_max {
            self.join_one().await?;
        }
        let received = self.content.received_bytes();
        let (app, caller) = (self.app, self.caller);
        let Sink::Store { target, open } = &mut self.sink else { return Ok(()) };
        let open = match open {
            Some(open) => open,
            None => open.insert(OpenUpload::open(app, caller, (**target).clone(), received).await?),
        };
        let (key, multipart) = (open.target().key.clone(), open.multipart().clone());
        let part = std::mem::replace(&mut self.part, Part::new(app.budget.room(caller.tenant_id())));
        let (body, room) = part.into_body();
        let (store, number) = (Arc::clone(&open.target().store), self.next_number);
        self.next_number += 1;
        self.writes.spawn(async move {
            let receipt = store.put_part(&key, &multipart, number, body.clone()).await;
            let (len_bytes, crc64nvme) = (body.len_bytes(), body.crc64nvme());
            drop((body, room));
            Ok(WrittenPart { receipt: receipt?, len_bytes, crc64nvme })
        });
        Ok(())
    }

    async fn join_one(&mut self) -> Result<(), Error> {
        if let Some(joined) = self.writes.join_next().await {
            self.written.push(joined.map_err(Error::internal)?.map_err(of_parts)?);
        }
        Ok(())
    }

    async fn finish(mut self, size_bytes: i64, sha256: Option<Vec<u8>>) -> Result<Received, Error> {
        let received = self.content.received_bytes();
        let declared = u64::try_from(size_bytes)
            .map_err(|_| Violations::one("finish.size_bytes", "must not be negative"))?;
        if declared != received {
            return Err(Error::SizeMismatch { declared, received });
        }
        if matches!(&self.sink, Sink::Store { open: Some(_), .. }) && self.part.len_bytes() > 0 {
            self.write_part().await?;
        }
        while !self.writes.is_empty() {
            self.join_one().await?;
        }
        let content = self.content.finish().await?;
        if let Some(raw) = sha256 {
            let sent = Digest::from_slice(&raw)
                .map_err(|error| Violations::one("finish.sha256", error.to_string()))?;
            if sent != content.sha256 {
                return Err(Error::ChecksumMismatch { algorithm: "sha256" });
            }
        }
        let place = match self.sink {
            Sink::Compare => Place::Compared,
            Sink::Store { open: Some(open), .. } => {
                self.written.sort_by_key(|part| part.receipt.number);
                let crc64nvme = self
                    .written
                    .iter()
                    .fold(Crc64::of(&[]), |crc, part| crc.followed_by(part.crc64nvme, part.len_bytes));
                let receipts = self.written.into_iter().map(|part| part.receipt).collect();
                Place::Parts(open, receipts, crc64nvme)
            }
            Sink::Store { target, open: None } => Place::Memory(target, self.part),
        };
        Ok(Received { content, place })
    }
}

/// Why parts cannot be written or put together. An unfinished object that is gone was given up by someone else, when the
/// lease had run out; nothing that was stored is lost.
pub(super) fn of_parts(error: StorageError) -> Error {
    match error.kind {
        StorageErrorKind::NotFound => Error::UploadFenced,
        _ => error.into(),
    }
}

/// The CRC32C (Castagnoli) of some bytes.
fn crc32c_of(data: &[u8]) -> u32 {
    // The checksum has 32 bits; the library answers all of its algorithms in 64.
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data)).unwrap_or_default()
}
