//! SHA-256 digests: computed over every byte that comes in, recorded with the version, sent with every download.

use std::fmt;

use sha2::{
    Digest as _, Sha256,
    digest::common::hazmat::{SerializableState, SerializedState},
};

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; Self::LENGTH_BYTES]);

/// What came is no SHA-256 digest.
#[derive(Debug, thiserror::Error)]
#[error("must be 32 raw bytes (a SHA-256 digest), got {0}")]
pub struct NotADigest(usize);

impl Digest {
    /// How many bytes a digest has.
    pub const LENGTH_BYTES: usize = 32;

    /// Stands for the digest of bytes that nobody has read yet: of a direct upload, until its job has. No bytes are known that
    /// have it, so whatever is compared with it differs.
    pub const UNKNOWN: Self = Self([0; Self::LENGTH_BYTES]);

    /// Nothing for the digest of bytes that nobody has read yet.
    pub fn known(&self) -> Option<&Self> {
        (*self != Self::UNKNOWN).then_some(self)
    }

    /// Wraps raw bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, NotADigest> {
        bytes.try_into().map(Self).map_err(|_| NotADigest(bytes.len()))
    }

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The raw bytes.
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
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = hex::decode(&text).map_err(|_| NotADigest(text.len() / 2))?;
        Self::from_slice(&bytes)
    }
}

/// Computes a digest as bytes go by.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes a field of a composed payload: its length goes first, so that no two lists of fields look alike.
    pub fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// All that there is to know for going on later, elsewhere. Not for showing: whoever has it and the digest of what follows
    /// could forge the digest of both.
    pub fn state(&self) -> Vec<u8> {
        self.0.serialize().to_vec()
    }

    /// Goes on from a state; nothing when it is none of ours.
    pub fn from_state(state: &[u8]) -> Option<Self> {
        let state: &SerializedState<Sha256> = state.try_into().ok()?;
        Sha256::deserialize(state).ok().map(Self)
    }

    /// The digest of all bytes taken.
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
        fn a_digest_that_was_put_down_and_taken_up_again_is_the_same(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..300,
        ) {
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            let mut hasher = Hasher::default();
            hasher.update(first);
            let mut resumed = Hasher::from_state(&hasher.state()).unwrap();
            resumed.update(rest);
            prop_assert_eq!(resumed.finish(), Digest::of(&bytes));
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let state = Hasher::default().state();
        assert!(Hasher::from_state(&state[1..]).is_none());
        assert!(Hasher::from_state(&[]).is_none());
    }
}
