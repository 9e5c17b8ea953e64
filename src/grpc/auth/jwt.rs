//! Verification of tokens. The issuers, and the algorithms, audience and keys of each, are configured.
//! Unverified values of a token only select among them.
//!
//! A client sends the same token with every call, and verifying its signature is the most expensive step of a
//! small call (0.14 ms, a tenth of the service's time for a 10 KiB upload). So valid signatures are cached
//! for a limited time, by the digest of key and token. Everything else is checked in every call: issuer,
//! audience, algorithm, times, and that the key still belongs to the issuer.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, Validation, dangerous, errors::ErrorKind};
use moka::future::Cache;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    DevIssuer,
    claims::ClaimRules,
    keys::{KeySet, VerifyingKey},
};
use crate::{
    app::{CredentialsError, InvalidCredentials},
    config::auth::{self, IssuerConfig},
    domain::{
        clock::Timestamp,
        digest::{Digest, Hasher},
    },
};

/// The tolerated difference between clocks for tokens of development issuers.
const DEV_LEEWAY: Duration = Duration::from_secs(5);

/// The maximum total size of the tokens in an issuer's signature cache. Most tokens have about one KiB.
const SIGNATURE_CACHE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long a valid signature is cached.
const SIGNATURE_TIME_TO_LIVE: Duration = Duration::from_secs(300);

/// The claims of tokens with a valid signature and the lengths of the tokens, by the digest of key and token.
type SignatureCache = Cache<[u8; Digest::LENGTH_BYTES], (Arc<Map<String, Value>>, u32)>;

fn new_signature_cache() -> SignatureCache {
    Cache::builder()
        .max_capacity(SIGNATURE_CACHE_BYTES_MAX)
        .weigher(|_, (_, token_bytes)| *token_bytes)
        .time_to_live(SIGNATURE_TIME_TO_LIVE)
        .build()
}

/// An issuer whose tokens are accepted, with its keys.
pub(super) struct Issuer {
    /// The required `iss` claim.
    pub(super) name: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    leeway: Duration,
    /// The longest lifetime of a token. `None` for a development issuer.
    lifetime_max: Option<Duration>,
    /// The meaning of its claims, and the trust in it.
    pub(super) rules: ClaimRules,
    keys: Keys,
    signature_cache: SignatureCache,
}

enum Keys {
    /// The public keys of an identity provider, and their refresh interval.
    Public(KeySet, Duration),
    /// The shared secret of a development issuer.
    Secret(VerifyingKey),
}

/// Claims of a token before its verification. They only select the issuer.
#[derive(Deserialize)]
struct UnverifiedClaims {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|value| value == audience),
        }
    }
}

impl Issuer {
    pub(super) fn from_config(config: &IssuerConfig, rules: ClaimRules, keys: KeySet) -> Self {
        let algorithm = |algorithm: &auth::Algorithm| match algorithm {
            auth::Algorithm::EdDsa => Algorithm::EdDSA,
            auth::Algorithm::Es256 => Algorithm::ES256,
        };
        Self {
            name: config.issuer.clone(),
            audience: config.audience.clone(),
            algorithms: config.algorithms.iter().map(algorithm).collect(),
            leeway: config.leeway(),
            lifetime_max: Some(config.token_lifetime_max()),
            rules,
            keys: Keys::Public(keys, config.jwks_refresh()),
            signature_cache: new_signature_cache(),
        }
    }

    pub(super) fn from_dev_issuer(dev: &DevIssuer, rules: ClaimRules) -> Self {
        Self {
            name: dev.issuer.clone(),
            audience: dev.audience.clone(),
            algorithms: vec![Algorithm::HS256],
            leeway: DEV_LEEWAY,
            lifetime_max: None,
            rules,
            keys: Keys::Secret(VerifyingKey::from_shared_secret(dev.secret.expose_secret().as_bytes())),
            signature_cache: new_signature_cache(),
        }
    }

    /// Returns the keys that must be refreshed and their refresh interval, or `None` for a shared secret.
    pub(super) fn refreshable_keys(&self) -> Option<(&KeySet, Duration)> {
        match &self.keys {
            Keys::Public(keys, interval) => Some((keys, *interval)),
            Keys::Secret(_) => None,
        }
    }

    async fn find_key(&self, algorithm: Algorithm, id: Option<&str>) -> Option<VerifyingKey> {
        match &self.keys {
            Keys::Public(keys, _) => keys.find_key(algorithm, id).await,
            Keys::Secret(key) => Some(key.clone()),
        }
    }
}

/// Verifies a token. Returns its issuer and its claims.
pub(super) async fn verify_token<'a>(
    issuers: &'a [Issuer],
    token: &str,
    now: Timestamp,
) -> Result<(&'a Issuer, Arc<Map<String, Value>>), CredentialsError> {
    // The library rejects algorithm `none` and all algorithms that it does not support.
    let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidCredentials::TokenDamaged)?;
    // RFC 7515, 4.1.11: an unsupported critical header makes the token invalid. None is supported.
    if header.crit.is_some() {
        return Err(InvalidCredentials::CriticalHeaders.into());
    }
    let issuer = select_issuer(issuers, token)?;
    if !issuer.algorithms.contains(&header.alg) {
        return Err(InvalidCredentials::AlgorithmNotAccepted.into());
    }
    let key =
        issuer.find_key(header.alg, header.kid.as_deref()).await.ok_or(InvalidCredentials::KeyUnknown)?;
    let claims = issuer.verify_signature(token, &key, header.alg).await?;
    issuer.check_times(&claims, now)?;
    Ok((issuer, claims))
}

/// Selects the issuer by the issuer and the audience that the token names. An identity provider may be
/// configured with several audiences.
fn select_issuer<'a>(issuers: &'a [Issuer], token: &str) -> Result<&'a Issuer, CredentialsError> {
    let claimed: UnverifiedClaims =
        dangerous::insecure_decode_claims(token).map_err(|_| InvalidCredentials::TokenDamaged)?;
    let name = claimed.iss.ok_or_else(|| InvalidCredentials::ClaimMissing("iss".to_owned()))?;
    let mut candidates = issuers.iter().filter(|issuer| issuer.name == name).peekable();
    if candidates.peek().is_none() {
        return Err(InvalidCredentials::IssuerUnknown.into());
    }
    let has_audience =
        |issuer: &&Issuer| claimed.aud.as_ref().is_some_and(|aud| aud.contains(&issuer.audience));
    candidates.find(has_audience).ok_or(InvalidCredentials::AudienceUnknown.into())
}

impl Issuer {
    /// Verifies the signature, the issuer and the audience of a token, or finds it in the cache. Returns its
    /// claims.
    async fn verify_signature(
        &self,
        token: &str,
        key: &VerifyingKey,
        algorithm: Algorithm,
    ) -> Result<Arc<Map<String, Value>>, CredentialsError> {
        let mut hasher = Hasher::default();
        hasher.field(key.fingerprint.as_bytes());
        hasher.field(token.as_bytes());
        let cache_key = *hasher.finish().as_bytes();
        if let Some((claims, _)) = self.signature_cache.get(&cache_key).await {
            return Ok(claims);
        }
        let verified =
            jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &self.validation(algorithm))
                .map_err(|error| classify_error(error.kind()))?;
        let claims = Arc::new(verified.claims);
        let token_bytes = u32::try_from(token.len()).unwrap_or(u32::MAX);
        self.signature_cache.insert(cache_key, (Arc::clone(&claims), token_bytes)).await;
        Ok(claims)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.name]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // The library would use the clock of the operating system; `check_times` uses the injected clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation
    }

    /// Returns the time until which a token with these claims is accepted.
    pub(super) fn valid_until(&self, claims: &Map<String, Value>) -> Timestamp {
        let expires = read_seconds(claims, "exp").ok().flatten().unwrap_or_default();
        #[allow(clippy::cast_possible_truncation, reason = "the conversion saturates, and so does the time")]
        let expires = expires.ceil() as i64;
        let leeway = i64::try_from(self.leeway.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_timestamp(expires.saturating_add(leeway), 0).unwrap_or(Timestamp::MAX_UTC)
    }

    fn check_times(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<(), CredentialsError> {
        #[allow(clippy::cast_precision_loss, reason = "exact for all dates before the year 285 million")]
        let (now, leeway) = (now.timestamp() as f64, self.leeway.as_secs() as f64);
        let expires =
            read_seconds(claims, "exp")?.ok_or_else(|| InvalidCredentials::ClaimMissing("exp".to_owned()))?;
        if now - leeway >= expires {
            return Err(InvalidCredentials::Expired.into());
        }
        match read_seconds(claims, "nbf")? {
            Some(not_before) if not_before > now + leeway => {
                return Err(InvalidCredentials::NotValidYet.into());
            }
            _ => {}
        }
        let issued = read_seconds(claims, "iat")?;
        self.check_lifetime(expires, issued.map_or(now + leeway, |issued| issued.min(now + leeway)))
    }

    /// Checks the lifetime of a token that was issued at this time, by its own claim or at the latest now. A
    /// token without the claim is therefore accepted only in the last part of its life.
    fn check_lifetime(&self, expires: f64, issued: f64) -> Result<(), CredentialsError> {
        let Some(lifetime_max) = self.lifetime_max else { return Ok(()) };
        let lifetime = Duration::try_from_secs_f64((expires - issued).max(0.0)).unwrap_or(Duration::MAX);
        if lifetime <= lifetime_max {
            return Ok(());
        }
        let (lifetime_seconds, lifetime_seconds_max) = (lifetime.as_secs(), lifetime_max.as_secs());
        Err(InvalidCredentials::LifetimeTooLong { lifetime_seconds, lifetime_seconds_max }.into())
    }
}

/// Reads a claim in seconds since 1970, which may have a fraction.
fn read_seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, CredentialsError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|seconds| seconds.is_finite()) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(InvalidCredentials::ClaimNotSeconds(name.to_owned()).into()),
        },
    }
}

const fn classify_error(kind: &ErrorKind) -> InvalidCredentials {
    match kind {
        ErrorKind::InvalidSignature => InvalidCredentials::SignatureInvalid,
        ErrorKind::InvalidAudience => InvalidCredentials::AudienceUnknown,
        ErrorKind::InvalidIssuer => InvalidCredentials::IssuerUnknown,
        ErrorKind::InvalidAlgorithm => InvalidCredentials::AlgorithmNotAccepted,
        ErrorKind::MissingRequiredClaim(_) => InvalidCredentials::RequiredClaimMissing,
        _ => InvalidCredentials::TokenDamaged,
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
