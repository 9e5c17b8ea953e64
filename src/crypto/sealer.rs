//! Seals small values that travel through callers' hands: page tokens. AES-256-GCM with a random nonce; what comes back
//! changed, or was sealed for another purpose, does not open.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Seals and opens tokens under one key.
pub struct Sealer(LessSafeKey);

/// The token is damaged, or was sealed under another key or for another purpose.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token does not open")]
pub struct NotSealedHere;

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// A sealer under this key.
    pub fn new(key: &[u8; 32]) -> Result<Self, NotSealedHere> {
        UnboundKey::new(&AES_256_GCM, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| NotSealedHere)
    }

    /// Seals a value for one purpose, as text that fits into a URL.
    pub fn seal(&self, purpose: &[u8], value: &[u8]) -> Result<String, NotSealedHere> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| NotSealedHere)?;
        let mut sealed = value.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut sealed)
            .map_err(|_| NotSealedHere)?;
        let mut token = nonce.to_vec();
        token.append(&mut sealed);
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Opens what was sealed for the same purpose.
    pub fn open(&self, purpose: &[u8], token: &str) -> Result<Vec<u8>, NotSealedHere> {
        let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| NotSealedHere)?;
        let (nonce, sealed) = token.split_at_checked(NONCE_LEN).ok_or(NotSealedHere)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotSealedHere)?;
        let mut sealed = sealed.to_vec();
        self.0
            .open_in_place(nonce, Aad::from(purpose), &mut sealed)
            .map(|value| value.to_vec())
            .map_err(|_| NotSealedHere)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_opens_for_its_purpose_only() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let token = sealer.seal(b"acme", b"position").unwrap();
        assert_eq!(sealer.open(b"acme", &token).unwrap(), b"position");
        assert_eq!(sealer.open(b"globex", &token), Err(NotSealedHere));
        assert_eq!(Sealer::new(&[8; 32]).unwrap().open(b"acme", &token), Err(NotSealedHere));
    }

    proptest! {
        #[test]
        fn nothing_made_up_opens(token in ".{0,80}") {
            prop_assert_eq!(Sealer::new(&[7; 32]).unwrap().open(b"acme", &token), Err(NotSealedHere));
        }

        #[test]
        fn a_token_with_a_changed_byte_does_not_open(at in 0usize..20) {
            let sealer = Sealer::new(&[7; 32]).unwrap();
            let mut token = sealer.seal(b"acme", b"position").unwrap().into_bytes();
            token[at] = if token[at] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(sealer.open(b"acme", std::str::from_utf8(&token).unwrap()), Err(NotSealedHere));
        }
    }
}
