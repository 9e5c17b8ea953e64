//! A part under construction: received bytes, kept as they came.

use bytes::{Bytes, BytesMut};

use super::budget::{NoRoom, Room};
use crate::storage::Payload;

/// Chunks below this are copied into the part's buffer: each would keep a whole network buffer alive otherwise.
const COPIED_BYTES_MAX: usize = 64 * 1024;
/// A buffer of copied chunks is closed at this size.
const COPY_BUFFER_BYTES: usize = 256 * 1024;

/// Bytes of one part, with the room they hold in the budget.
pub(in crate::app::uploads) struct Part {
    chunks: Vec<Bytes>,
    copied: BytesMut,
    len_bytes: usize,
    room: Room,
}

impl Part {
    pub(super) fn new(room: Room) -> Self {
        Self { chunks: Vec::new(), copied: BytesMut::new(), len_bytes: 0, room }
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Takes bytes, once the budget has room for them.
    ///
    /// # Errors
    /// When there is no room, and why.
    pub(super) async fn push(&mut self, data: Bytes) -> Result<(), NoRoom> {
        self.room.grow(data.len()).await?;
        self.len_bytes += data.len();
        if data.len() < COPIED_BYTES_MAX {
            self.copied.extend_from_slice(&data);
            if self.copied.len() >= COPY_BUFFER_BYTES {
                self.close_copies();
            }
        } else {
            self.close_copies();
            self.chunks.push(data);
        }
        Ok(())
    }

    /// The body to write, and the room to give back once it is written.
    pub(in crate::app::uploads) fn into_body(mut self) -> (Payload, Room) {
        self.close_copies();
        (self.chunks.into_iter().collect(), self.room)
    }

    fn close_copies(&mut self) {
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
    async fn a_part_of_single_bytes_keeps_no_network_buffer_alive_and_holds_no_more_than_twice_its_bytes() {
        const BYTES: usize = 300_000;
        let network = Bytes::from(vec![7; BYTES]);
        let budget = ByteBudget::new(8 * BYTES, BYTES, BYTES);
        let mut part = Part::new(budget.room(TenantId::from_uuid(uuid::Uuid::nil()), BYTES));
        for at in 0..BYTES {
            part.push(network.slice(at..=at)).await.unwrap();
        }
        assert!(network.is_unique(), "every byte was copied");
        assert_eq!((part.len_bytes(), part.chunks.len()), (BYTES, 1));
        assert!(part.copied.capacity() <= COPY_BUFFER_BYTES, "{}", part.copied.capacity());
        let (body, _room) = part.into_body();
        assert_eq!(body.len_bytes(), BYTES as u64);
        assert!(body.chunks().iter().all(|chunk| chunk.iter().all(|byte| *byte == 7)));
    }
}
