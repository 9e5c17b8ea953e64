//! What of an upload is in the store already, and bytes that are sent again.

use bytes::Bytes;

use crate::{
    app::Error,
    db::upload_parts::StoredPart,
    domain::{
        checksum::{Crc64, Crc64Hasher},
        digest::Hasher,
    },
    storage::PartReceipt,
};

/// The parts that count: from the first on, without a gap.
#[derive(Debug, Default)]
pub(in crate::app::uploads) struct Persisted(Vec<StoredPart>);

impl Persisted {
    /// Of all the parts that were recorded, by number.
    pub(in crate::app::uploads) fn of(mut parts: Vec<StoredPart>) -> Self {
        let gapless = parts.iter().zip(1..).take_while(|(part, number)| part.number == *number).count();
        parts.truncate(gapless);
        Self(parts)
    }

    /// How many bytes they have.
    pub(super) fn size_bytes(&self) -> u64 {
        self.0.iter().map(|part| part.size_bytes).sum()
    }

    /// Whether the last part is a short one: then the upload was finished before, and nothing can follow.
    pub(super) fn is_closed(&self, part_size_bytes: u64) -> bool {
        self.0.last().is_some_and(|last| last.size_bytes < part_size_bytes)
    }

    /// The number of the next part.
    pub(in crate::app::uploads) fn next_number(&self) -> u32 {
        self.0.last().map_or(1, |part| part.number + 1)
    }

    /// The digest of their bytes, to be gone on with.
    pub(super) fn hasher(&self) -> Result<Hasher, Error> {
        match self.0.last() {
            None => Ok(Hasher::default()),
            Some(last) => Hasher::from_state(&last.sha256_state)
                .ok_or_else(|| Error::internal("the digest of an upload cannot be read")),
        }
    }

    /// What completes the object, and the checksums of its parts.
    pub(super) fn receipts(&self) -> impl Iterator<Item = (PartReceipt, Crc64)> + '_ {
        self.0.iter().map(|part| {
            let StoredPart { number, size_bytes, etag, crc64nvme, .. } = part;
            (PartReceipt { number: *number, size_bytes: *size_bytes, etag: etag.clone() }, *crc64nvme)
        })
    }

    /// Whether a stream may begin here: where the stored bytes end, or at any part, whose bytes are then compared.
    pub(super) fn sent_again_from(&self, offset: u64) -> Option<SentAgain> {
        let mut begin = 0;
        for (place, part) in self.0.iter().enumerate() {
            if begin == offset {
                return Some(SentAgain::new(
                    self.0[place..].iter().map(|part| (part.size_bytes, part.crc64nvme)),
                ));
            }
            begin += part.size_bytes;
        }
        (begin == offset).then(|| SentAgain::new([]))
    }
}

/// Bytes that are in the store already. They are not skipped blindly: each part is compared with its checksum, because a
/// client that sends other bytes now means another file.
#[derive(Debug, Default)]
pub(super) struct SentAgain {
    /// The parts still to come, the next one last.
    parts: Vec<(u64, Crc64)>,
    hasher: Crc64Hasher,
    seen_bytes: u64,
}

impl SentAgain {
    fn new(parts: impl IntoIterator<Item = (u64, Crc64)>) -> Self {
        let mut parts: Vec<_> = parts.into_iter().collect();
        parts.reverse();
        Self { parts, ..Self::default() }
    }

    /// Whether a part was begun and not ended: what came of it is not compared.
    pub(super) fn is_inside_a_part(&self) -> bool {
        self.seen_bytes > 0
    }

    /// Takes what is in the store already off the front.
    pub(super) fn take(&mut self, data: &mut Bytes) -> Result<(), Error> {
        while let Some((size_bytes, crc64nvme)) = self.parts.last().copied() {
            if data.is_empty() {
                return Ok(());
            }
            let missing = usize::try_from(size_bytes - self.seen_bytes).unwrap_or(usize::MAX);
            let piece = data.split_to(missing.min(data.len()));
            self.hasher.update(&piece);
            self.seen_bytes += piece.len() as u64;
            if self.seen_bytes == size_bytes {
                if std::mem::take(&mut self.hasher).finish() != crc64nvme {
                    return Err(Error::SentAgainDiffers);
                }
                self.parts.pop();
                self.seen_bytes = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: usize = 4;

    fn parts(bytes: &[u8]) -> Vec<StoredPart> {
        let part = |(number, bytes): (u32, &[u8])| StoredPart {
            number,
            size_bytes: bytes.len() as u64,
            etag: String::new(),
            crc64nvme: Crc64::of(bytes),
            sha256_state: Hasher::default().state(),
        };
        (1..).zip(bytes.chunks(PART)).map(part).collect()
    }

    #[test]
    fn parts_count_as_far_as_there_is_no_gap() {
        let all = parts(b"0123456789");
        for (missing, persisted) in [(0, 0), (1, 4), (2, 8), (3, 10)] {
            let mut some = all.clone();
            if missing < some.len() {
                some.remove(missing);
            }
            assert_eq!(Persisted::of(some).size_bytes(), persisted);
        }
        assert_eq!(Persisted::of(all).next_number(), 4);
    }

    #[test]
    fn bytes_sent_again_are_compared_and_what_follows_them_is_left() {
        let persisted = Persisted::of(parts(b"01234567"));
        for begin in [0, 4, 8] {
            let mut again = persisted.sent_again_from(begin).unwrap();
            let mut left = Vec::new();
            for piece in b"01234567new"[usize::try_from(begin).unwrap()..].chunks(3) {
                let mut data = Bytes::copy_from_slice(piece);
                again.take(&mut data).unwrap();
                left.extend_from_slice(&data);
            }
            assert_eq!(left, b"new");
        }
    }

    #[test]
    fn other_bytes_are_refused_and_a_stream_cannot_begin_inside_a_part() {
        let persisted = Persisted::of(parts(b"01234567"));
        let mut again = persisted.sent_again_from(4).unwrap();
        assert!(matches!(again.take(&mut Bytes::from_static(b"4x67")), Err(Error::SentAgainDiffers)));
        for inside in [1, 3, 5, 9] {
            assert!(persisted.sent_again_from(inside).is_none());
        }
    }
}
