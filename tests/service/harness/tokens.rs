//! The identity provider of the tests. Each process generates one Ed25519 key, and the service reads the
//! public key from a file, as it does in production.

use std::{io::Write, sync::OnceLock};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use strongroom::{
    config::{
        Config,
        auth::{self, IssuerClaimsConfig, IssuerConfig, Organizations, RoleName},
    },
    domain::{clock::Timestamp, scope::Scope},
};

const ISSUER: &str = "https://id.example.org";
const AUDIENCE: &str = "strongroom";

/// The identity in a token.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) organization: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) kind: Option<String>,
    pub(crate) scope: Option<String>,
}

/// One signing key of the provider.
pub(crate) struct Key {
    id: String,
    algorithm: Algorithm,
    private: Vec<u8>,
    public: Vec<u8>,
}

impl Key {
    pub(crate) fn generate(id: &str) -> Self {
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        Self { id: id.to_owned(), algorithm: Algorithm::EdDSA, private: private.as_ref().to_vec(), public }
    }

    /// Generates a key on the curve P-256.
    pub(crate) fn generate_p256(id: &str) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let private = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref()).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        Self { id: id.to_owned(), algorithm: Algorithm::ES256, private: private.as_ref().to_vec(), public }
    }

    pub(crate) fn sign(&self, claims: &Map<String, Value>) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) };
        let key = match self.algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_der(&self.private),
            _ => EncodingKey::from_ed_der(&self.private),
        };
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    fn jwk(&self) -> Value {
        if self.algorithm == Algorithm::ES256 {
            // An uncompressed point: the byte 4, then both coordinates.
            let (x, y) = self.public[1..].split_at(32);
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            return json!({
                "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": x, "y": y,
            });
        }
        json!({
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
            "kid": self.id, "x": URL_SAFE_NO_PAD.encode(&self.public),
        })
    }
}

/// Returns the key that signs all tokens, unless a test uses its own key.
pub(crate) fn default_key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| Key::generate("first"))
}

pub(crate) fn create_keys_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    publish_keys(&file, &[default_key()]);
    file
}

/// Replaces the keys that the provider publishes.
pub(crate) fn publish_keys(file: &tempfile::NamedTempFile, keys: &[&Key]) {
    let document = json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() });
    let mut writer = std::fs::File::create(file.path()).unwrap();
    writer.write_all(document.to_string().as_bytes()).unwrap();
}

/// Configures the service to accept tokens of the provider.
pub(crate) fn trust_issuer(config: &mut Config, keys: &tempfile::NamedTempFile) {
    config.auth.issuers = vec![IssuerConfig {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        jwks_file: Some(keys.path().to_owned()),
        jwks_url: None,
        jwks_refresh_seconds: 300,
        algorithms: vec![auth::Algorithm::EdDsa, auth::Algorithm::Es256],
        leeway_seconds: 30,
        token_lifetime_max_seconds: 86_400,
        operators: true,
        roles: None,
        claims: IssuerClaimsConfig::default(),
        organizations: Organizations::Any,
        scopes: vec![Scope::CreditsWrite],
        create_tenants: None,
        presets: [(super::SCHOOL.to_owned(), "education".to_owned())].into(),
    }];
    config.auth.roles.insert("operator".to_owned(), RoleName::Operator);
}

/// Returns the claims of a token that expires in one hour.
pub(crate) fn claims(identity: &Identity, now: Timestamp) -> Map<String, Value> {
    let claims = json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": identity.user,
        "org_id": identity.organization,
        "role": identity.role,
        "groups": identity.groups,
        "kind": identity.kind,
        "scope": identity.scope,
        "iat": now.timestamp(),
        "exp": (now + chrono::Duration::hours(1)).timestamp(),
    });
    let Value::Object(claims) = claims else { unreachable!("the value above is an object") };
    claims.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// Returns a token that expires in one hour.
pub(crate) fn token(identity: &Identity, now: Timestamp) -> String {
    default_key().sign(&claims(identity, now))
}
