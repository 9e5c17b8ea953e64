//! Writes the full buffers of a stream to the store: as parts, or as fragments of a larger part.

use tracing::Instrument as _;

use super::{
    Receiver, Sink,
    assembly::Assembly,
    content::HashState,
    part::{Part, PartCheckpoint, PartWrite},
};
use crate::{
    admission::Holder,
    app::{Error, uploads::open::OpenUpload},
};

impl Receiver<'_> {
    /// Writes the current buffer in the background: as a part, or as a fragment of one. Waits if too many are being
    /// written.
    pub(super) async fn write_part(&mut self) -> Result<(), Error> {
        while self.writes.len() >= self.app.limits.uploads.parts_in_flight_max {
            self.join_next_write().await?;
        }
        let checkpoint = match self.is_resumable() {
            true => {
                self.content.ensure_type_resolved()?;
                let HashState { sha256, blocks } = self.content.save_hashes().await?;
                Some(PartCheckpoint {
                    sha256_state: sha256,
                    blocks,
                    sniffed_mime_type: self.content.sniffed_type(),
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
        let is_recorded = checkpoint.is_some();
        let write = match &mut self.assembly {
            Some(assembly) => assembly.next_write(app),
            None => {
                self.next_number += 1;
                PartWrite::new(app, open.multipart().clone(), self.next_number - 1, checkpoint)
            }
        };
        let next = Part::new(app.budget.new_permit(Holder::of_caller(caller), self.part_size_bytes));
        let (body, permit) = std::mem::replace(&mut self.part, next).into_body();
        let write = write.write_and_record(body, permit).in_current_span();
        if is_recorded {
            // Written in a task that outlives the stream, so that a client that disconnects now can resume
            // after this part.
            let write = app.tasks.spawn(write);
            self.writes.spawn(async move { write.await.map_err(Error::internal)? });
        } else {
            self.writes.spawn(write);
        }
        Ok(())
    }

    /// Writes the current buffer, to which more bytes follow. If the next part consists of several fragments, the
    /// buffer is one of them.
    pub(super) async fn write_full_part(&mut self) -> Result<(), Error> {
        let fragment_count = self.layout.fragment_count(self.next_number);
        if fragment_count > 1
            && self.assembly.is_none()
            && let Sink::Store { open: Some(open), .. } = &self.sink
        {
            let upload = open.multipart().clone();
            self.join_all_writes().await?;
            let started = Box::pin(Assembly::start(self.app, upload, self.next_number));
            self.assembly = Some(started.await?);
        }
        self.write_part().await?;
        if self.assembly.as_ref().is_some_and(|assembly| assembly.fragment_count() >= fragment_count) {
            self.finish_assembly().await?;
        }
        Ok(())
    }

    /// Creates the part from its fragments, if one is being assembled.
    pub(super) async fn finish_assembly(&mut self) -> Result<(), Error> {
        self.join_all_writes().await?;
        if let Some(assembly) = self.assembly.take() {
            self.written.push(Box::pin(assembly.finish()).await?);
            self.next_number += 1;
        }
        Ok(())
    }

    pub(super) async fn join_all_writes(&mut self) -> Result<(), Error> {
        while !self.writes.is_empty() {
            self.join_next_write().await?;
        }
        Ok(())
    }

    async fn join_next_write(&mut self) -> Result<(), Error> {
        if let Some(joined) = self.writes.join_next().await {
            let written = joined.map_err(Error::internal)??;
            match &mut self.assembly {
                Some(assembly) => assembly.add_written(written),
                None => self.written.push(written),
            }
        }
        Ok(())
    }
}
