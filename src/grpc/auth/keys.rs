//! The public keys of an issuer: read from a file or a URL, looked at again from time to time, and at once
//! when a token names a key that is not among them. A look that fails keeps the keys that are there.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};
use url::Url;

use super::KEYS_REFRESH_PAUSE;
use crate::{
    config::auth::{IssuerConfig, JwksSource},
    domain::digest::Digest,
};

/// How long a provider may take to answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest document of keys, in bytes.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Why an issuer's keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The configuration names neither a file nor a URL, or both.
    #[error("issuer {issuer} needs one of jwks_file and jwks_url")]
    NoSource {
        /// The issuer.
        issuer: String,
    },
    /// The HTTP client could not be built.
    #[error("build HTTP client")]
    Client(#[source] reqwest::Error),
    /// The provider did not answer well.
    #[error("fetch keys")]
    Fetch(#[source] reqwest::Error),
    /// The file could not be read.
    #[error("read keys from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The document is larger than any set of keys.
    #[error("the document of keys is larger than {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge,
    /// The document is no JWK set.
    #[error("parse JWK set")]
    Parse(#[source] serde_json::Error),
    /// No key of the set can be used here.
    #[error("the JWK set has no key for EdDSA (Ed25519) or ES256 (P-256) signatures")]
    NoUsableKey,
}

enum Source {
    File(PathBuf),
    Url(Url, reqwest::Client),
}

/// A key that signatures are checked with.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// Tells this key from every other, also from one that comes under its id later.
    pub(super) fingerprint: Digest,
}

impl VerifyingKey {
    /// The shared secret of a development issuer.
    pub(super) fn shared(secret: &[u8]) -> Self {
        let (key, fingerprint) = (DecodingKey::from_secret(secret), Digest::compute(secret));
        Self { algorithm: Algorithm::HS256, key, fingerprint }
    }
}

/// Keys by their id; those without one stand under the empty id.
type Keys = HashMap<String, Vec<VerifyingKey>>;

/// The keys of one issuer, as they were last seen.
pub(super) struct KeySet {
    issuer: String,
    source: Source,
    keys: RwLock<Arc<Keys>>,
    /// When the keys were last looked at. Held while they are, so that one look serves all who wait for it.
    last_look: Mutex<Option<Instant>>,
}

impl KeySet {
    /// Reads the keys for the first time.
    pub(super) async fn open(config: &IssuerConfig) -> Result<Self, KeysError> {
        let source = match config.jwks() {
            Some(JwksSource::File(path)) => Source::File(path.to_owned()),
            Some(JwksSource::Url(url)) => Source::Url(url.clone(), client()?),
            None => return Err(KeysError::NoSource { issuer: config.issuer.clone() }),
        };
        let is_file = matches!(source, Source::File(_));
        let set = Self {
            issuer: config.issuer.clone(),
            source,
            keys: RwLock::default(),
            last_look: Mutex::default(),
        };
        match set.look().await {
            Err(error) if is_file => return Err(error),
            looked => set.report(looked),
        }
        Ok(set)
    }

    /// Looks at the keys again.
    pub(super) async fn refresh(&self) {
        let mut last_look = self.last_look.lock().await;
        *last_look = Some(Instant::now());
        self.report(self.look().await);
    }

    /// The key with this id for this algorithm. One that is not there may be new: then the keys are looked
    /// at, but not more often than every few seconds, because anyone can invent an id. A token without an id
    /// finds its key only where there is no choice.
    pub(super) async fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Option<VerifyingKey> {
        if let Some(key) = self.known(algorithm, id) {
            return Some(key);
        }
        let mut last_look = self.last_look.lock().await;
        if let Some(key) = self.known(algorithm, id) {
            return Some(key);
        }
        if last_look.is_some_and(|last| last.elapsed() < KEYS_REFRESH_PAUSE) {
            return None;
        }
        *last_look = Some(Instant::now());
        self.report(self.look().await);
        self.known(algorithm, id)
    }

    fn known(&self, algorithm: Algorithm, id: Option<&str>) -> Option<VerifyingKey> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let fits = |key: &&VerifyingKey| key.algorithm == algorithm;
        match id {
            Some(id) => keys.get(id)?.iter().find(fits).cloned(),
            None => {
                let mut candidates = keys.values().flatten().filter(fits);
                let only = candidates.next()?;
                candidates.next().is_none().then(|| only.clone())
            }
        }
    }

    async fn look(&self) -> Result<(), KeysError> {
        let document = match &self.source {
            Source::File(path) => tokio::fs::read(path)
                .await
                .map_err(|source| KeysError::Read { path: path.clone(), source })?,
            Source::Url(url, client) => fetch(client, url).await?,
        };
        let keys = Arc::new(parse(&document)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn report(&self, looked: Result<(), KeysError>) {
        if let Err(error) = looked {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(issuer = self.issuer, %error, cause, "keys were not read; the last ones stay");
        }
    }
}

/// No redirects: keys come from where the configuration says and from nowhere else.
fn client() -> Result<reqwest::Client, KeysError> {
    reqwest::Client::builder()
        .timeout(FETCH_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(KeysError::Client)
}

async fn fetch(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, KeysError> {
    let request = client.get(url.clone()).send().await;
    let mut response = request.and_then(reqwest::Response::error_for_status).map_err(KeysError::Fetch)?;
    let mut document = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(KeysError::Fetch)? {
        if document.len() + piece.len() > DOCUMENT_BYTES_MAX {
            return Err(KeysError::TooLarge);
        }
        document.extend_from_slice(&piece);
    }
    Ok(document)
}

/// The usable keys of a JWK set. Others (RSA, encryption, curves to come) are passed over, so that a provider
/// may publish them beside ours.
fn parse(document: &[u8]) -> Result<Keys, KeysError> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(document).map_err(KeysError::Parse)?;
    let mut keys = Keys::new();
    for jwk in set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()) {
        if let Some(key) = usable(&jwk) {
            keys.entry(jwk.common.key_id.unwrap_or_default()).or_default().push(key);
        }
    }
    if keys.is_empty() { Err(KeysError::NoUsableKey) } else { Ok(keys) }
}

/// OKP and EC alone: a symmetric key (`oct`) in a public document would let everyone sign.
fn usable(jwk: &Jwk) -> Option<VerifyingKey> {
    let (algorithm, named, material) = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA, format!("OKP {}", key.x))
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256, format!("EC {} {}", key.x, key.y))
        }
        _ => return None,
    };
    let is_for_signatures =
        jwk.common.public_key_use.as_ref().is_none_or(|meant| *meant == PublicKeyUse::Signature);
    let is_for_this = jwk.common.key_algorithm.is_none_or(|meant| meant == named);
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let fingerprint = Digest::compute(material.as_bytes());
    (is_for_signatures && is_for_this).then_some(VerifyingKey { algorithm, key, fingerprint })
}

#[cfg(test)]
#[path = "keys_tests.rs"]
pub(super) mod tests;
