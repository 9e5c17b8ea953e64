//! The identity provider of the tests: one Ed25519 key, made anew in every process, whose public half the service reads
//! from a file as it does in production.

use std::{io::Write, sync::OnceLock};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use strongroom::{
    config::{
        Config,
        auth::{self, IssuerConfig, RoleName},
    },
    domain::clock::Timestamp,
};

pub(crate) const ISSUER: &str = "https://id.example.org";
pub(crate) const AUDIENCE: &str = "strongroom";

/// Who a token is for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) organization: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) kind: Option<String>,
}

/// One key of the provider.
pub(crate) struct Key {
    id: String,
    private: Vec<u8>,
    public: Vec<u8>,
}

impl Key {
    pub(crate) fn generate(id: &str) -> Self {
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        Self { id: id.to_owned(), private: private.as_ref().to_vec(), public }
    }

    pub(crate) fn sign(&self, claims: &Map<String, Value>) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&self.private)).unwrap()
    }

    fn jwk(&self) -> Value {
        json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
            "kid": self.id, "x": URL_SAFE_NO_PAD.encode(&self.public),
        })
    }
}

/// The key that signs unless a test says otherwise.
pub(crate) fn key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| Key::generate("first"))
}

pub(crate) fn keys_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    publish(&file, &[key()]);
    file
}

/// Writes what the provider publishes.
pub(crate) fn publish(file: &tempfile::NamedTempFile, keys: &[&Key]) {
    let document = json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() });
    let mut writer = std::fs::File::create(file.path()).unwrap();
    writer.write_all(document.to_string().as_bytes()).unwrap();
}

/// Makes the service accept the provider's tokens.
pub(crate) fn trust(config: &mut Config, keys: &tempfile::NamedTempFile) {
    config.auth.issuers = vec![IssuerConfig {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        jwks_file: Some(keys.path().to_owned()),
        jwks_url: None,
        jwks_refresh_seconds: 300,
        algorithms: vec![auth::Algorithm::EdDsa, auth::Algorithm::Es256],
        leeway_seconds: 30,
    }];
    config.auth.roles.insert("operator".to_owned(), RoleName::Operator);
}

/// The claims of a token that holds for an hour.
pub(crate) fn claims(identity: &Identity, now: Timestamp) -> Map<String, Value> {
    let claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": identity.user,
        "org_id": identity.organization,
        "role": identity.role,
        "groups": identity.groups,
        "kind": identity.kind,
        "iat": now.timestamp(),
        "exp": (now + chrono::Duration::hours(1)).timestamp(),
    });
    let Value::Object(claims) = claims else { unreachable!("an object was written above") };
    claims.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// A token that holds for an hour.
pub(crate) fn token(identity: &Identity, now: Timestamp) -> String {
    key().sign(&claims(identity, now))
}
