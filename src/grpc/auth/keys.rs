//! The public keys of an issuer, loaded from a file or a URL. They are reloaded at an interval, and when a
//! token names an unknown key. If a reload fails, the previous keys remain in use.

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

use super::KEYS_REFRESH_INTERVAL_MIN;
use crate::{
    config::auth::{IssuerConfig, JwksSource},
    domain::digest::Digest,
};

/// The timeout of a request to an identity provider.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of a JWK set, in bytes.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// An error that occurred while loading the keys of an issuer.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The configuration names neither a file nor a URL, or both.
    #[error("issuer {issuer} must have exactly one of jwks_file and jwks_url")]
    NoSource { issuer: String },
    #[error("failed to build HTTP client")]
    Client(#[source] reqwest::Error),
    /// The request failed, or its response is not a success.
    #[error("failed to fetch keys")]
    Fetch(#[source] reqwest::Error),
    #[error("failed to read keys from {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("JWK set is larger than the limit of {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge,
    #[error("failed to parse JWK set")]
    Parse(#[source] serde_json::Error),
    #[error("JWK set has no key for EdDSA (Ed25519) or ES256 (P-256) signatures")]
    NoUsableKey,
}

enum Source {
    File(PathBuf),
    Url(Url, reqwest::Client),
}

/// A key that verifies signatures.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// A digest of the key. It also differs from that of a later key with the same id.
    pub(super) fingerprint: Digest,
}

impl VerifyingKey {
    /// Creates the key of a development issuer.
    pub(super) fn from_shared_secret(secret: &[u8]) -> Self {
        let (key, fingerprint) = (DecodingKey::from_secret(secret), Digest::compute(secret));
        Self { algorithm: Algorithm::HS256, key, fingerprint }
    }
}

/// Keys by their id. Keys without an id have the empty id.
type Keys = HashMap<String, Vec<VerifyingKey>>;

/// The current keys of an issuer.
pub(super) struct KeySet {
    issuer: String,
    source: Source,
    keys: RwLock<Arc<Keys>>,
    /// When the keys were last reloaded. Locked during a reload, so that concurrent calls wait for the same
    /// reload.
    last_reload: Mutex<Option<Instant>>,
}

impl KeySet {
    /// Loads the keys for the first time. A failed request to a URL is logged and tried again later.
    ///
    /// # Errors
    /// Returns an error if the configuration has no source, or if a key file cannot be loaded.
    pub(super) async fn open(config: &IssuerConfig) -> Result<Self, KeysError> {
        let source = match config.jwks() {
            Some(JwksSource::File(path)) => Source::File(path.to_owned()),
            Some(JwksSource::Url(url)) => Source::Url(url.clone(), build_client()?),
            None => return Err(KeysError::NoSource { issuer: config.issuer.clone() }),
        };
        let is_file = matches!(source, Source::File(_));
        let set = Self {
            issuer: config.issuer.clone(),
            source,
            keys: RwLock::default(),
            last_reload: Mutex::default(),
        };
        match set.reload().await {
            Err(error) if is_file => return Err(error),
            result => set.log_failure(result),
        }
        Ok(set)
    }

    /// Reloads the keys. A failure is logged, and the previous keys remain in use.
    pub(super) async fn refresh(&self) {
        let mut last_reload = self.last_reload.lock().await;
        *last_reload = Some(Instant::now());
        self.log_failure(self.reload().await);
    }

    /// Finds the key with this id for this algorithm. An unknown id may belong to a new key, so the keys are
    /// reloaded, but at most once per `KEYS_REFRESH_INTERVAL_MIN`, because callers can invent ids. Without an
    /// id, the key is found only if it is the only one for the algorithm.
    pub(super) async fn find_key(&self, algorithm: Algorithm, id: Option<&str>) -> Option<VerifyingKey> {
        if let Some(key) = self.find_loaded_key(algorithm, id) {
            return Some(key);
        }
        let mut last_reload = self.last_reload.lock().await;
        if let Some(key) = self.find_loaded_key(algorithm, id) {
            return Some(key);
        }
        if last_reload.is_some_and(|last| last.elapsed() < KEYS_REFRESH_INTERVAL_MIN) {
            return None;
        }
        *last_reload = Some(Instant::now());
        self.log_failure(self.reload().await);
        self.find_loaded_key(algorithm, id)
    }

    fn find_loaded_key(&self, algorithm: Algorithm, id: Option<&str>) -> Option<VerifyingKey> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let has_algorithm = |key: &&VerifyingKey| key.algorithm == algorithm;
        match id {
            Some(id) => keys.get(id)?.iter().find(has_algorithm).cloned(),
            None => {
                let mut candidates = keys.values().flatten().filter(has_algorithm);
                let only = candidates.next()?;
                candidates.next().is_none().then(|| only.clone())
            }
        }
    }

    async fn reload(&self) -> Result<(), KeysError> {
        let document = match &self.source {
            Source::File(path) => tokio::fs::read(path)
                .await
                .map_err(|source| KeysError::Read { path: path.clone(), source })?,
            Source::Url(url, client) => fetch_document(client, url).await?,
        };
        let keys = Arc::new(parse_keys(&document)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn log_failure(&self, result: Result<(), KeysError>) {
        if let Err(error) = result {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(issuer = self.issuer, %error, cause, "failed to load keys; the previous ones remain in use");
        }
    }
}

/// Builds the HTTP client. It follows no redirects, so that keys are loaded only from the configured URL.
fn build_client() -> Result<reqwest::Client, KeysError> {
    reqwest::Client::builder()
        .timeout(FETCH_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(KeysError::Client)
}

async fn fetch_document(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, KeysError> {
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

/// Parses the usable keys of a JWK set. Other keys (RSA, encryption, future curves) are ignored, because a
/// provider may publish them in the same set.
fn parse_keys(document: &[u8]) -> Result<Keys, KeysError> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(document).map_err(KeysError::Parse)?;
    let mut keys = Keys::new();
    for jwk in set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()) {
        if let Some(key) = convert_key(&jwk) {
            keys.entry(jwk.common.key_id.unwrap_or_default()).or_default().push(key);
        }
    }
    if keys.is_empty() { Err(KeysError::NoUsableKey) } else { Ok(keys) }
}

/// Converts an OKP or EC key. Symmetric keys (`oct`) are ignored: with one in a public document, all its
/// readers could sign tokens.
fn convert_key(jwk: &Jwk) -> Option<VerifyingKey> {
    let (algorithm, key_algorithm, material) = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA, format!("OKP {}", key.x))
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256, format!("EC {} {}", key.x, key.y))
        }
        _ => return None,
    };
    let is_for_signatures =
        jwk.common.public_key_use.as_ref().is_none_or(|key_use| *key_use == PublicKeyUse::Signature);
    let has_algorithm = jwk.common.key_algorithm.is_none_or(|declared| declared == key_algorithm);
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let fingerprint = Digest::compute(material.as_bytes());
    (is_for_signatures && has_algorithm).then_some(VerifyingKey { algorithm, key, fingerprint })
}

#[cfg(test)]
#[path = "keys_tests.rs"]
pub(super) mod tests;
