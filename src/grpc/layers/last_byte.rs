//! Keeps a call from ending before its client can receive the response.
//!
//! The transport takes a piece of a response as a whole as soon as the client has room for one byte of it. Without
//! this, a call would end, and hold nothing any more, while the transport still has its last piece. So the last byte
//! of a larger piece is sent on its own: the transport takes it when the client has room for everything before it.

use bytes::Bytes;

/// Pieces up to this size are not split. A connection can have one of them for each of its streams.
const UNSPLIT_BYTES_MAX: usize = 4 * 1024;

/// Splits the last byte off, if the piece is large.
pub(super) fn split_last_byte(piece: &mut Bytes) -> Option<Bytes> {
    (piece.len() > UNSPLIT_BYTES_MAX).then(|| piece.split_off(piece.len() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_are_split_before_their_last_byte() {
        for (length, expected) in [(0, None), (UNSPLIT_BYTES_MAX, None), (UNSPLIT_BYTES_MAX + 1, Some(1))] {
            let mut piece = Bytes::from(vec![7; length]);
            let last = split_last_byte(&mut piece).map(|last| last.len());
            assert_eq!((last, piece.len() + last.unwrap_or_default()), (expected, length));
        }
    }
}
