//! The bytes of an object in memory: all of them, or a beginning that stands for the rest.
//!
//! The second kind makes a store that costs nothing, to see what everything else costs. What was put comes back as
//! long as it was, with its first MiB again and again: right for content with that period and for whatever is smaller,
//! and damaged for everything else, which the digest of a whole file shows when it is read.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::super::Payload;

/// How much is kept of an object whose bytes are discarded.
const HEAD_SIZE_BYTES: usize = 1024 * 1024;

/// What a store keeps of the bodies that it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Everything.
    All,
    /// A beginning.
    Head,
}

/// What is kept of one object.
#[derive(Clone)]
pub(super) struct Body {
    kept: Payload,
    len_bytes: u64,
}

impl Body {
    /// The body of `len_bytes` of which this was kept.
    pub(super) fn new(kept: Payload, len_bytes: u64) -> Self {
        Self { kept, len_bytes }
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The bytes of a range that lies inside the body, in pieces that nobody copied.
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

/// The beginning of a body, in memory of its own: a slice would keep the buffers alive that it arrived in. Where it is the
/// same as the one before, it shares that one's memory.
pub(super) fn head(body: &Payload, before: &mut Bytes) -> Payload {
    let wanted = usize::try_from(body.len_bytes()).unwrap_or(usize::MAX).min(HEAD_SIZE_BYTES);
    let pieces = body.pieces(&(0..wanted as u64));
    if !is_equal(&pieces, before) {
        let mut copy = BytesMut::with_capacity(wanted);
        pieces.iter().for_each(|piece| copy.extend_from_slice(piece));
        *before = copy.freeze();
    }
    Payload::from(before.clone())
}

fn is_equal(pieces: &[Bytes], whole: &[u8]) -> bool {
    let mut rest = whole;
    for piece in pieces {
        match rest.strip_prefix(&piece[..]) {
            Some(behind) => rest = behind,
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
    fn a_kept_beginning_repeats_itself_to_the_length_of_the_object() {
        let body = Body::new(Payload::from(Bytes::from_static(b"abc")), 8);
        assert_eq!(read(&body, 0..8), b"abcabcab");
        assert_eq!(read(&body, 2..7), b"cabca");
        assert_eq!(read(&body, 5..5), b"");
        assert_eq!(read(&Body::new(Payload::default(), 0), 0..0), b"");
    }

    #[test]
    fn the_beginning_is_cut_and_equal_ones_share_their_memory() {
        let mut before = Bytes::new();
        let large: Payload = vec![Bytes::from(vec![1; HEAD_SIZE_BYTES]), Bytes::from_static(&[2])].into();
        assert_eq!(head(&large, &mut before).len_bytes(), HEAD_SIZE_BYTES as u64);
        let first = head(&large, &mut before);
        let again = head(&large, &mut before);
        assert_eq!(first.chunks()[0].as_ptr(), again.chunks()[0].as_ptr());

        let small = head(&Payload::from(Bytes::from_static(b"other")), &mut before);
        assert_eq!(small.chunks()[0], b"other"[..]);
    }
}
