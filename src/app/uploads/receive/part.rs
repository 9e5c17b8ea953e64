//! A part that is being received, as a list of chunks.

use bytes::{Bytes, BytesMut};

use super::budget::{BudgetError, BytePermit};
use crate::storage::Payload;

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

#[cfg(test)]
mod tests {
    use super::{super::budget::ByteBudget, *};
    use crate::domain::ids::TenantId;

    #[tokio::test]
    async fn single_byte_chunks_do_not_keep_network_buffer_alive() {
        const BYTES: usize = 300_000;
        let network = Bytes::from(vec![7; BYTES]);
        let budget = ByteBudget::new(8 * BYTES, BYTES, BYTES);
        let mut part = Part::new(budget.new_permit(TenantId::from_uuid(uuid::Uuid::nil()), BYTES));
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
