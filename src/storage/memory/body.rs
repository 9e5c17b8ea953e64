//! The content of an object in memory: either complete, or only its first MiB.
//!
//! With only the first MiB, the store costs almost nothing, which shows the cost of everything else. An
//! object has its original length and repeats its first MiB. That is correct for content with this period and
//! for smaller objects. All other objects are damaged, which their digest reveals when a whole file is read.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::super::Payload;

/// The number of bytes that are kept of a discarded object.
const HEAD_SIZE_BYTES: usize = 1024 * 1024;

/// Which part of the content a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptContent {
    /// The complete content.
    All,
    /// The first MiB.
    Head,
}

/// The content of one object.
#[derive(Clone)]
pub(super) struct Body {
    kept: Payload,
    len_bytes: u64,
}

impl Body {
    /// Creates a body of `len_bytes` of which `kept` is stored.
    pub(super) fn new(kept: Payload, len_bytes: u64) -> Self {
        Self { kept, len_bytes }
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Returns the bytes of a range inside the body, in pieces that are not copied.
    pub(super) fn pieces(&self, range: Range<u64>) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let period = self.kept.len_bytes();
        if period == self.len_bytes || period == 0 {
            return Box::new(self.kept.pieces(&range).into_iter());
        }
        let kept = self.kept.clone();
        let mut position = range.start;
        Box::new(
            std::iter::from_fn(move || {
                let start = position % period;
                let end = period.min(start + range.end.saturating_sub(position));
                position += end - start;
                (start < end).then(|| kept.pieces(&(start..end)))
            })
            .flatten(),
        )
    }
}

/// Copies the first bytes of a body, because a slice would keep its receive buffers alive. Shares the memory
/// of the previous copy if both are equal.
pub(super) fn copy_head(body: &Payload, previous: &mut Bytes) -> Payload {
    let wanted = usize::try_from(body.len_bytes()).unwrap_or(usize::MAX).min(HEAD_SIZE_BYTES);
    let pieces = body.pieces(&(0..wanted as u64));
    if !is_equal(&pieces, previous) {
        let mut copy = BytesMut::with_capacity(wanted);
        pieces.iter().for_each(|piece| copy.extend_from_slice(piece));
        *previous = copy.freeze();
    }
    Payload::from(previous.clone())
}

fn is_equal(pieces: &[Bytes], whole: &[u8]) -> bool {
    let mut rest = whole;
    for piece in pieces {
        match rest.strip_prefix(&piece[..]) {
            Some(tail) => rest = tail,
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Body, range: Range<u64>) -> Vec<u8> {
        body.pieces(range).collect::<Vec<_>>().concat()
    }

    #[test]
    fn kept_head_repeats_up_to_the_object_length() {
        let body = Body::new(Payload::from(Bytes::from_static(b"abc")), 8);
        assert_eq!(read(&body, 0..8), b"abcabcab");
        assert_eq!(read(&body, 2..7), b"cabca");
        assert_eq!(read(&body, 5..5), b"");
        assert_eq!(read(&Body::new(Payload::default(), 0), 0..0), b"");
    }

    #[test]
    fn heads_are_truncated_and_equal_ones_share_memory() {
        let mut before = Bytes::new();
        let large: Payload = vec![Bytes::from(vec![1; HEAD_SIZE_BYTES]), Bytes::from_static(&[2])].into();
        assert_eq!(copy_head(&large, &mut before).len_bytes(), HEAD_SIZE_BYTES as u64);
        let first = copy_head(&large, &mut before);
        let again = copy_head(&large, &mut before);
        assert_eq!(first.chunks()[0].as_ptr(), again.chunks()[0].as_ptr());

        let small = copy_head(&Payload::from(Bytes::from_static(b"other")), &mut before);
        assert_eq!(small.chunks()[0], b"other"[..]);
    }
}
