//! One part of an upload: first the chunks that are being received, then the write to the store.
//!
//! A part of a resumable upload is also recorded, so that any process can resume after it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::budget::{BudgetError, BytePermit};
use crate::{
    app::{
        App, Error,
        uploads::open::{lease_seconds, multipart::OpenMultipart},
    },
    db::{
        Viewer,
        upload_parts::{self, StoredPart},
    },
    domain::{block_checksums::BlockCheckpoint, checksum::Crc64},
    storage::{PartReceipt, Payload},
};

/// Chunks below this size are copied into the part's buffer. Otherwise each would keep a whole network buffer
/// alive.
const COPIED_CHUNK_BYTES_MAX: usize = 64 * 1024;
/// The size at which the buffer of copied chunks is appended to the part.
const COPY_BUFFER_BYTES: usize = 256 * 1024;

/// The bytes of one part and their permit from the byte budget.
pub(in crate::app::uploads) struct Part {
    chunks: Vec<Bytes>,
    copied: BytesMut,
    len_bytes: usize,
    permit: BytePermit,
}

impl Part {
    pub(super) fn new(permit: BytePermit) -> Self {
        Self { chunks: Vec::new(), copied: BytesMut::new(), len_bytes: 0, permit }
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Appends a chunk. Waits until the byte budget grants its bytes.
    ///
    /// # Errors
    /// Returns an error if the budget cannot grant them.
    pub(super) async fn push(&mut self, data: Bytes) -> Result<(), BudgetError> {
        self.permit.grow(data.len()).await?;
        self.len_bytes += data.len();
        if data.len() < COPIED_CHUNK_BYTES_MAX {
            self.copied.extend_from_slice(&data);
            if self.copied.len() >= COPY_BUFFER_BYTES {
                self.flush_copied();
            }
        } else {
            self.flush_copied();
            self.chunks.push(data);
        }
        Ok(())
    }

    /// Returns the body to write and the permit to release once it is written.
    pub(in crate::app::uploads) fn into_body(mut self) -> (Payload, BytePermit) {
        self.flush_copied();
        (self.chunks.into_iter().collect(), self.permit)
    }

    fn flush_copied(&mut self) {
        if !self.copied.is_empty() {
            self.chunks.push(self.copied.split().freeze());
        }
    }
}

/// A part in the store.
pub(super) struct WrittenPart {
    pub(super) receipt: PartReceipt,
    pub(super) crc64nvme: Crc64,
}

/// The state needed to resume after a part.
pub(super) struct PartCheckpoint {
    /// The intermediate state of the digest.
    pub(super) sha256_state: Vec<u8>,
    /// The checkpoint of the block checksums, if it is known.
    pub(super) blocks: Option<BlockCheckpoint>,
    /// The type detected from the first bytes. Only recorded with the first part.
    pub(super) sniffed_mime_type: Option<String>,
}

/// A part to write. It owns everything it needs, because its stream may have ended.
pub(super) struct PartWrite {
    app: Arc<App>,
    upload: OpenMultipart,
    number: u32,
    checkpoint: Option<PartCheckpoint>,
}

impl PartWrite {
    /// Creates the write of part `number` of a multipart upload. A part with a checkpoint is recorded.
    pub(super) fn new(
        app: &Arc<App>,
        upload: OpenMultipart,
        number: u32,
        checkpoint: Option<PartCheckpoint>,
    ) -> Self {
        Self { app: Arc::clone(app), upload, number, checkpoint }
    }

    /// Writes the part, releases its permit, and records it.
    pub(super) async fn write_and_record(
        self,
        body: Payload,
        permit: BytePermit,
    ) -> Result<WrittenPart, Error> {
        let OpenMultipart { target, id, .. } = &self.upload;
        let receipt = target.store.put_part(&target.key, id, self.number, body.clone()).await;
        let crc64nvme = body.crc64nvme();
        drop((body, permit));
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(error) => return Err(self.upload.convert_error(&self.app, error).await),
        };
        let written = WrittenPart { receipt, crc64nvme };
        if let Some(checkpoint) = &self.checkpoint {
            self.record_part(checkpoint, &written).await?;
        }
        Ok(written)
    }

    async fn record_part(&self, checkpoint: &PartCheckpoint, written: &WrittenPart) -> Result<(), Error> {
        let OpenMultipart { tenant, lease, id, .. } = &self.upload;
        let PartReceipt { number, size_bytes, etag } = written.receipt.clone();
        let sha256_state = checkpoint.sha256_state.clone();
        let blocks = checkpoint.blocks.as_ref();
        let partial_block = blocks.map(|blocks| blocks.partial);
        let part = StoredPart {
            number,
            size_bytes,
            etag,
            crc64nvme: written.crc64nvme,
            sha256_state,
            partial_block,
        };
        let mut tx = self.app.db.tenant_tx(*tenant, &Viewer::system()).await?;
        let sniffed = checkpoint.sniffed_mime_type.as_deref();
        let lease_seconds = lease_seconds(&self.app);
        let recorded =
            upload_parts::record(&mut tx, *lease, id.as_str(), &part, blocks, sniffed, lease_seconds).await;
        match tx.finish(recorded).await? {
            true => Ok(()),
            false => Err(self.upload.resolve_unrecorded(&self.app).await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::budget::ByteBudget, *};
    use crate::admission::Holder;

    #[tokio::test]
    async fn single_byte_chunks_do_not_keep_network_buffer_alive() {
        const BYTES: usize = 300_000;
        let network = Bytes::from(vec![7; BYTES]);
        let budget = ByteBudget::new(8 * BYTES, BYTES, BYTES);
        let mut part = Part::new(budget.new_permit(Holder::PLATFORM, BYTES));
        for at in 0..BYTES {
            part.push(network.slice(at..=at)).await.unwrap();
        }
        assert!(network.is_unique(), "every byte was copied");
        assert_eq!((part.len_bytes(), part.chunks.len()), (BYTES, 1));
        assert!(part.copied.capacity() <= COPY_BUFFER_BYTES, "{}", part.copied.capacity());
        let (body, _permit) = part.into_body();
        assert_eq!(body.len_bytes(), BYTES as u64);
        assert!(body.chunks().iter().all(|chunk| chunk.iter().all(|byte| *byte == 7)));
    }
}
