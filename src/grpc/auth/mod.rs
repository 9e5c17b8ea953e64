//! Who is calling, and whether it may call this method at all.
//!
//! A caller comes from a verified token and from nothing else; its claims are the directory. Which files it
//! may touch is decided further in, by the use cases.

pub mod access;
mod claims;
mod jwt;
mod keys;
pub(super) mod layer;

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use secrecy::SecretString;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{claims::ClaimRules, jwt::Issuer, keys::KeySet};
use crate::{
    app::{CredentialsError, tenants::resolve::Identity},
    config::AuthConfig,
    domain::clock::{Clock, Timestamp},
};

pub use self::keys::KeysError;

/// An issuer whose tokens are signed with a shared secret. For `dev` and tests alone: whoever can verify can
/// also sign, so no configuration file can name one.
#[derive(Debug, Clone)]
pub struct DevIssuer {
    /// Exactly the token's `iss` claim.
    pub issuer: String,
    /// One of the token's `aud` values.
    pub audience: String,
    /// The secret of HS256.
    pub secret: SecretString,
}

/// Verifies tokens and reads their claims.
pub struct Authenticator {
    issuers: Vec<Issuer>,
    claims: ClaimRules,
    clock: Arc<dyn Clock>,
}

impl Authenticator {
    /// Reads the keys of every configured issuer. A URL that does not answer is tried again later, so that
    /// this service starts also while an identity provider does not; its tokens are refused until then.
    ///
    /// # Errors
    /// When a file of keys cannot be read or holds no usable key.
    pub async fn open(config: &AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, KeysError> {
        let mut issuers = Vec::with_capacity(config.issuers.len());
        for issuer in &config.issuers {
            issuers.push(Issuer::configured(issuer, KeySet::open(issuer).await?));
        }
        Ok(Self { issuers, claims: ClaimRules::new(config.clone()), clock })
    }

    /// Accepts the tokens of one more issuer, signed with a shared secret. For `dev` and tests alone.
    #[must_use]
    pub fn with_dev_secret(mut self, dev: &DevIssuer) -> Self {
        self.issuers.push(Issuer::dev(dev));
        self
    }

    /// Looks at the keys again and again, each issuer's in its own time, until `stop`.
    pub(super) async fn keep_keys_fresh(self: Arc<Self>, stop: CancellationToken) {
        let mut watches = JoinSet::new();
        for index in 0..self.issuers.len() {
            let (this, stop) = (Arc::clone(&self), stop.clone());
            watches.spawn(async move {
                let Some((keys, every)) = this.issuers.get(index).and_then(Issuer::refreshed) else { return };
                while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
                    keys.refresh().await;
                }
            });
        }
        watches.join_all().await;
    }

    /// Who the bearer of this request's token is, and until when it holds.
    pub(super) async fn identify(
        &self,
        headers: &HeaderMap,
    ) -> Result<(Identity, Timestamp), CredentialsError> {
        let token = bearer(headers)?;
        let (issuer, claims) = jwt::verify(&self.issuers, token, self.clock.now()).await?;
        Ok((self.claims.identity(&issuer.name, &claims)?, issuer.valid_until(&claims)))
    }
}

/// The token of `authorization: Bearer <JWT>`.
fn bearer(headers: &HeaderMap) -> Result<&str, CredentialsError> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let (value, more) = (values.next().ok_or(CredentialsError::Missing)?, values.next());
    let invalid = || CredentialsError::Invalid("send exactly one `authorization: Bearer <JWT>`".to_owned());
    if more.is_some() {
        return Err(invalid());
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(invalid)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(invalid()) }
}

/// The least time between two looks at one issuer's keys that unknown key ids can cause.
const KEYS_REFRESH_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (http::header::AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn exactly_one_bearer_token_is_taken() {
        assert_eq!(bearer(&headers(&["Bearer a.b.c"])), Ok("a.b.c"));
        assert_eq!(bearer(&headers(&["bearer a.b.c"])), Ok("a.b.c"));
        assert_eq!(bearer(&headers(&[])), Err(CredentialsError::Missing));
        for wrong in [&["Basic dXNlcg=="][..], &["a.b.c"], &["Bearer a", "Bearer b"]] {
            assert!(matches!(bearer(&headers(wrong)), Err(CredentialsError::Invalid(_))), "{wrong:?}");
        }
    }
}
