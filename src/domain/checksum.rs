//! CRC-64/NVME: the checksum of all bytes of an object, which object stores compare as well.
//!
//! A SHA-256 says what a file is; it costs about 0.6 s of CPU for each GiB. To find out whether stored bytes have changed by
//! themselves a CRC of 64 bits is as good (one in 2⁶⁴ changes goes unnoticed) at a twentieth of that.

use std::fmt;

use crc_fast::{CrcAlgorithm, Digest};

/// A CRC-64/NVME.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crc64(u64);

impl Crc64 {
    /// The checksum of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Crc64Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The checksum of the bytes of this one with those of another behind them.
    #[must_use]
    pub fn followed_by(self, next: Self, next_len_bytes: u64) -> Self {
        Self(crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, self.0, next.0, next_len_bytes))
    }

    /// From its bytes, the most significant first.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(u64::from_be_bytes(bytes)))
    }

    /// Its bytes, the most significant first, as stores write it.
    pub const fn to_be_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc64({self})")
    }
}

/// Computes a checksum as bytes go by.
#[derive(Debug, Clone)]
pub struct Crc64Hasher(Digest);

impl Default for Crc64Hasher {
    fn default() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }
}

impl Crc64Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes taken.
    pub fn finish(self) -> Crc64 {
        Crc64(self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_catalogues() {
        assert_eq!(Crc64::of(b"123456789").to_string(), "ae8b14860a799888");
    }

    #[test]
    fn pieces_have_the_checksum_of_the_whole() {
        let mut hasher = Crc64Hasher::default();
        b"123456789".chunks(4).for_each(|piece| hasher.update(piece));
        let crc = hasher.finish();
        assert_eq!(crc, Crc64::of(b"123456789"));
        assert_eq!(Crc64::from_slice(&crc.to_be_bytes()), Some(crc));
        assert_eq!(Crc64::from_slice(b"1234567"), None);
        let parts = [&b""[..], b"1234", b"", b"56789"];
        let combined = parts
            .iter()
            .fold(Crc64::of(b""), |crc, part| crc.followed_by(Crc64::of(part), part.len() as u64));
        assert_eq!(combined, crc);
    }
}
