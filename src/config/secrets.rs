//! `[secrets]`: the keys of this service.

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretBox, SecretSlice, SecretString};
use serde::Deserialize;

use super::{validation::Violations, values::empty_secret_as_none};

/// The keys of this service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsConfig {
    /// The page token key as base64 of 32 bytes. Read it with [`Self::page_token_key`].
    #[serde(deserialize_with = "empty_secret_as_none")]
    pub page_token_key: Option<SecretString>,
}

impl SecretsConfig {
    /// Returns the key that encrypts page tokens, or `None` if it is not set or is not base64 of 32 bytes.
    pub fn page_token_key(&self) -> Option<SecretBox<[u8; 32]>> {
        let text = self.page_token_key.as_ref()?.expose_secret();
        let decoded: SecretSlice<u8> = STANDARD.decode(text).ok()?.into();
        let key = <&[u8; 32]>::try_from(decoded.expose_secret()).ok()?;
        Some(SecretBox::init_with_mut(|bytes: &mut [u8; 32]| bytes.copy_from_slice(key)))
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        if self.page_token_key.is_some() && self.page_token_key().is_none() {
            violations
                .add("secrets.page_token_key", "must be base64 of 32 bytes (`openssl rand -base64 32`)");
        }
    }

    pub(super) fn check_for_serve(&self, violations: &mut Violations) {
        if self.page_token_key.is_none() {
            let message = "is required: base64 of 32 random bytes (`openssl rand -base64 32`), the same in \
                           every process";
            violations.add("secrets.page_token_key", message);
        }
    }
}
