//! Tokens of shares: `srs_`, the id of the tenant as 32 hexadecimal digits, `_`, and a secret of 256 bits as
//! base64url.
//!
//! A token names its tenant, so that it is looked up in the rows of that tenant only. The database stores the digest of
//! the token. The secret is random and long, so a fast digest without a key is sufficient.

use aws_lc_rs::{constant_time, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use uuid::Uuid;

use crate::domain::{
    digest::{Digest, Hasher},
    ids::TenantId,
};

/// The prefix of every token.
const PREFIX: &str = "srs_";
const SECRET_BYTES: usize = 32;
/// The number of hexadecimal digits of a tenant's id.
const TENANT_DIGITS: usize = 32;
/// The length of a token in bytes.
const TOKEN_BYTES: usize = PREFIX.len() + TENANT_DIGITS + 1 + SECRET_BYTES.div_ceil(3) * 4 - 1;

/// The token of a share. Its `Debug` output does not contain the secret.
#[derive(Debug)]
pub struct ShareToken {
    tenant: TenantId,
    secret: SecretBox<[u8; SECRET_BYTES]>,
}

/// No random bytes are available, or the text is not a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("share token could not be generated or is malformed")]
pub struct ShareTokenError;

impl ShareToken {
    /// Generates a new token for a share of the tenant.
    ///
    /// # Errors
    /// Returns an error if no random bytes are available.
    pub fn generate(tenant: TenantId) -> Result<Self, ShareTokenError> {
        let mut secret = Box::new([0; SECRET_BYTES]);
        rand::fill(secret.as_mut_slice()).map_err(|_| ShareTokenError)?;
        Ok(Self { tenant, secret: SecretBox::new(secret) })
    }

    /// Parses a token.
    ///
    /// # Errors
    /// Returns an error if the text does not have the form of a token.
    pub fn parse(text: &str) -> Result<Self, ShareTokenError> {
        if text.len() != TOKEN_BYTES {
            return Err(ShareTokenError);
        }
        let rest = text.strip_prefix(PREFIX).ok_or(ShareTokenError)?;
        let (tenant, secret) = rest.split_once('_').ok_or(ShareTokenError)?;
        let is_canonical = tenant.len() == TENANT_DIGITS && !tenant.bytes().any(|b| b.is_ascii_uppercase());
        let tenant = Uuid::try_parse(tenant).ok().filter(|_| is_canonical).ok_or(ShareTokenError)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| ShareTokenError)?;
        let secret: Box<[u8; SECRET_BYTES]> =
            secret.into_boxed_slice().try_into().map_err(|_| ShareTokenError)?;
        Ok(Self { tenant: TenantId::from_uuid(tenant), secret: SecretBox::new(secret) })
    }

    /// Returns the tenant of the share.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Returns the token as shown to its creator.
    pub fn text(&self) -> SecretString {
        let secret = URL_SAFE_NO_PAD.encode(self.secret.expose_secret());
        format!("{PREFIX}{}_{secret}", self.tenant.as_uuid().as_simple()).into()
    }

    /// Returns the digest that is stored. It depends on the tenant too.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.field(b"share token");
        hasher.field(self.tenant.as_uuid().as_bytes());
        hasher.field(self.secret.expose_secret());
        hasher.finish()
    }

    /// Returns whether a stored digest is that of this token. Takes the same time for all digests.
    pub fn matches(&self, stored: &Digest) -> bool {
        constant_time::verify_slices_are_equal(self.digest().as_bytes(), stored.as_bytes()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(n: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn token_names_its_tenant() {
        let token = ShareToken::generate(tenant(7)).unwrap();
        let text = token.text();
        let parsed = ShareToken::parse(text.expose_secret()).unwrap();
        assert_eq!(parsed.tenant(), tenant(7));
        assert!(parsed.matches(&token.digest()));
        assert_eq!(text.expose_secret().len(), TOKEN_BYTES);
    }

    #[test]
    fn tokens_are_unique_and_never_printed() {
        let (one, other) =
            (ShareToken::generate(tenant(7)).unwrap(), ShareToken::generate(tenant(7)).unwrap());
        assert!(!one.matches(&other.digest()));
        let secret = URL_SAFE_NO_PAD.encode(one.secret.expose_secret());
        assert!(!format!("{one:?} {:?}", one.text()).contains(&secret));
    }

    #[test]
    fn secret_of_another_tenant_does_not_match() {
        let token = ShareToken::generate(tenant(7)).unwrap();
        let text = token.text().expose_secret().replace("0007_", "0008_");
        assert!(!ShareToken::parse(&text).unwrap().matches(&token.digest()));
    }

    proptest! {
        #[test]
        fn other_texts_are_no_tokens(text in "(srs_)?[0-9a-fA-F_-]{0,90}") {
            if let Ok(token) = ShareToken::parse(&text) {
                let parsed = token.text();
                prop_assert_eq!(parsed.expose_secret(), &text);
            }
        }
    }
}
