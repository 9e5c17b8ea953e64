//! Authenticates callers, and checks whether they may call a method.
//!
//! Callers are identified only by verified tokens; their claims are the only directory. The use cases
//! decide which files a caller may access.

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
    app::{CredentialsError, InvalidCredentials, tenants::resolve::Identity},
    config::AuthConfig,
    domain::clock::{Clock, Timestamp},
};

pub use self::keys::KeysError;

/// An issuer whose tokens are signed with a shared secret. Only for `dev` and tests: anyone who can verify
/// such a token can also sign one, so the configuration does not support it.
#[derive(Debug, Clone)]
pub struct DevIssuer {
    /// The required `iss` claim.
    pub issuer: String,
    /// The value that the `aud` claim must contain.
    pub audience: String,
    /// The secret for HS256 signatures.
    pub secret: SecretString,
}

/// Verifies tokens and reads their claims.
pub struct Authenticator {
    issuers: Vec<Issuer>,
    dev_rules: ClaimRules,
    clock: Arc<dyn Clock>,
}

impl Authenticator {
    /// Loads the keys of all configured issuers. If a URL fails, it is tried again later, so that the service
    /// can start while an identity provider is unavailable. Until then the issuer's tokens are rejected.
    ///
    /// # Errors
    /// Returns an error if a key file cannot be read or contains no usable key.
    pub async fn open(config: &AuthConfig, clock: Arc<dyn Clock>) -> Result<Self, KeysError> {
        let mut issuers = Vec::with_capacity(config.issuers.len());
        for issuer in &config.issuers {
            let rules = ClaimRules::of_issuer(config, issuer);
            issuers.push(Issuer::from_config(issuer, rules, KeySet::open(issuer).await?));
        }
        Ok(Self { issuers, dev_rules: ClaimRules::of_dev_issuer(config), clock })
    }

    /// Adds an issuer whose tokens are signed with a shared secret. Only for `dev` and tests.
    #[must_use]
    pub fn with_dev_secret(mut self, dev: &DevIssuer) -> Self {
        self.issuers.push(Issuer::from_dev_issuer(dev, self.dev_rules.clone()));
        self
    }

    /// Reloads the keys of each issuer at its refresh interval, until `stop` is cancelled.
    pub(super) async fn refresh_keys_until(self: Arc<Self>, stop: CancellationToken) {
        let mut refreshers = JoinSet::new();
        for index in 0..self.issuers.len() {
            let (this, stop) = (Arc::clone(&self), stop.clone());
            refreshers.spawn(async move {
                let Some((keys, interval)) = this.issuers.get(index).and_then(Issuer::refreshable_keys)
                else {
                    return;
                };
                while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
                    keys.refresh().await;
                }
            });
        }
        refreshers.join_all().await;
    }

    /// Verifies the token of a request. Returns the identity of its bearer and the time at which it expires.
    pub(super) async fn identify(
        &self,
        headers: &HeaderMap,
    ) -> Result<(Identity, Timestamp), CredentialsError> {
        let token = extract_bearer_token(headers)?;
        let (issuer, claims) = jwt::verify_token(&self.issuers, token, self.clock.now()).await?;
        Ok((issuer.rules.read_identity(&issuer.name, &claims)?, issuer.valid_until(&claims)))
    }
}

/// Returns the token of the header `authorization: Bearer <JWT>`.
fn extract_bearer_token(headers: &HeaderMap) -> Result<&str, CredentialsError> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let (value, more) = (values.next().ok_or(CredentialsError::Missing)?, values.next());
    let invalid = || CredentialsError::from(InvalidCredentials::HeaderMalformed);
    if more.is_some() {
        return Err(invalid());
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(invalid)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(invalid()) }
}

/// The shortest time between two refreshes of an issuer's keys because of unknown key ids.
const KEYS_REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (http::header::AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn accepts_exactly_one_bearer_token() {
        assert_eq!(extract_bearer_token(&headers(&["Bearer a.b.c"])), Ok("a.b.c"));
        assert_eq!(extract_bearer_token(&headers(&["bearer a.b.c"])), Ok("a.b.c"));
        assert_eq!(extract_bearer_token(&headers(&[])), Err(CredentialsError::Missing));
        for wrong in [&["Basic dXNlcg=="][..], &["a.b.c"], &["Bearer a", "Bearer b"]] {
            assert!(
                matches!(extract_bearer_token(&headers(wrong)), Err(CredentialsError::Invalid(_))),
                "{wrong:?}"
            );
        }
    }
}
