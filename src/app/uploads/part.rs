//! A part under construction: received bytes, kept as they came.

use bytes::{Bytes, BytesMut};

use super::budget::Room;
use crate::storage::Payload;

/// Chunks below this are copied into the part's buffer: each would keep a whole network buffer alive otherwise.
const COPIED_BYTES_MAX: usize = 64 * 1024;
/// A buffer of copied chunks is closed at this size.
const COPY_BUFFER_BYTES: usize = 256 * 1024;

/// Bytes of one part, with the room they hold in the budget.
pub(super) struct Part {
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
    pub(super) async fn push(&mut self, data: Bytes) {
        self.room.grow(data.len()).await;
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
    }

    /// The body to write, and the room to give back once it is written.
    pub(super) fn into_body(mut self) -> (Payload, Room) {
        self.close_copies();
        (self.chunks.into_iter().collect(), self.room)
    }

    fn close_copies(&mut self) {
        if !self.copied.is_empty() {
            self.chunks.push(self.copied.split().freeze());
        }
    }
}
