//! SHA-256 digests. They are computed for all uploaded bytes, recorded with the version, and sent with every
//! download.

use std::fmt;

use sha2::{
    Digest as _, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

use super::checksum::Crc64;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; Self::LENGTH_BYTES]);

/// The hashes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectHashes {
    pub sha256: Digest,
    /// The checksum, verified by every download of the whole object.
    pub crc64nvme: Crc64,
}

/// The value is not a SHA-256 digest.
#[derive(Debug, thiserror::Error)]
#[error("must be 32 raw bytes (a SHA-256 digest), got {0}")]
pub struct InvalidDigest(usize);

impl Digest {
    /// The length of a digest, in bytes.
    pub const LENGTH_BYTES: usize = 32;

    /// Creates a digest from its raw bytes.
    ///
    /// # Errors
    /// Returns [`InvalidDigest`] if the length is not 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidDigest> {
        bytes.try_into().map(Self).map_err(|_| InvalidDigest(bytes.len()))
    }

    /// Computes the digest of the given bytes.
    pub fn compute(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the raw bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH_BYTES] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = hex::decode(&text).map_err(|_| InvalidDigest(text.len() / 2))?;
        Self::from_slice(&bytes)
    }
}

/// Computes a digest incrementally.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds a field of a composed payload. The length is added first, so that different lists of fields never
    /// produce the same bytes.
    pub fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// Returns the state, to resume hashing later or in another process.
    ///
    /// The state must stay secret: it allows computing digests of extensions of the hashed bytes.
    pub fn state(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// Resumes from a state. Returns `None` if the state is invalid.
    pub fn from_state(state: &[u8]) -> Option<Self> {
        let state: &SerializedState<Sha256> = state.try_into().ok()?;
        Sha256::deserialize(state).ok().map(Self)
    }

    /// Returns the digest of all added bytes.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn resumed_hasher_computes_the_same_digest(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..300,
        ) {
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            let mut hasher = Hasher::default();
            hasher.update(first);
            let mut resumed = Hasher::from_state(&hasher.state()).unwrap();
            resumed.update(rest);
            prop_assert_eq!(resumed.finish(), Digest::compute(&bytes));
        }
    }

    #[test]
    fn invalid_state_is_rejected() {
        let state = Hasher::default().state();
        assert!(Hasher::from_state(&state[1..]).is_none());
        assert!(Hasher::from_state(&[]).is_none());
    }
}
