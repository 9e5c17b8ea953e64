//! Seals small values that clients hold, such as page tokens, with AES-256-GCM and a random nonce. A value
//! that was modified, or sealed for another purpose, cannot be opened.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Seals and opens tokens with one key.
pub struct Sealer(LessSafeKey);

/// The token is damaged, or was sealed with another key or for another purpose.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("token is invalid")]
pub struct SealError;

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// Creates a sealer with this key.
    ///
    /// # Errors
    /// Returns an error if the key cannot be used.
    pub fn new(key: &[u8; 32]) -> Result<Self, SealError> {
        UnboundKey::new(&AES_256_GCM, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| SealError)
    }

    /// Seals a value for one purpose. The result is safe in URLs.
    ///
    /// # Errors
    /// Returns an error if no random bytes are available.
    pub fn seal(&self, purpose: &[u8], value: &[u8]) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealError)?;
        let mut sealed = value.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut sealed)
            .map_err(|_| SealError)?;
        let mut token = nonce.to_vec();
        token.append(&mut sealed);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Opens a token that was sealed for the same purpose.
    ///
    /// # Errors
    /// Returns an error if the token is damaged, or was sealed with another key or for another purpose.
    pub fn open(&self, purpose: &[u8], token: &str) -> Result<Vec<u8>, SealError> {
        let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| SealError)?;
        let (nonce, sealed) = token.split_at_checked(NONCE_LEN).ok_or(SealError)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let mut sealed = sealed.to_vec();
        self.0
            .open_in_place(nonce, Aad::from(purpose), &mut sealed)
            .map(|value| value.to_vec())
            .map_err(|_| SealError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn token_opens_only_for_its_purpose() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let token = sealer.seal(b"acme", b"position").unwrap();
        assert_eq!(sealer.open(b"acme", &token).unwrap(), b"position");
        assert_eq!(sealer.open(b"globex", &token), Err(SealError));
        assert_eq!(Sealer::new(&[8; 32]).unwrap().open(b"acme", &token), Err(SealError));
    }

    proptest! {
        #[test]
        fn forged_token_does_not_open(token in ".{0,80}") {
            prop_assert_eq!(Sealer::new(&[7; 32]).unwrap().open(b"acme", &token), Err(SealError));
        }

        #[test]
        fn modified_token_does_not_open(at in 0usize..20) {
            let sealer = Sealer::new(&[7; 32]).unwrap();
            let mut token = sealer.seal(b"acme", b"position").unwrap().into_bytes();
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(sealer.open(b"acme", std::str::from_utf8(&token).unwrap()), Err(SealError));
        }
    }
}
