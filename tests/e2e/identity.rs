//! A test identity provider: an Ed25519 key, its JWKS file, and tokens signed with the key.

use std::{fs, path::Path};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::SecretString;
use serde_json::{Value, json};
use strongroom::domain::clock::{Clock as _, SystemClock};

pub(crate) const ISSUER: &str = "https://identity.example";
pub(crate) const AUDIENCE: &str = "strongroom";

pub(crate) struct IdentityProvider {
    key: EncodingKey,
}

impl IdentityProvider {
    /// Generates a key and writes its public half to the JWKS file.
    pub(crate) fn new(jwks_file: &Path) -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k1", "x": x }] });
        fs::write(jwks_file, jwks.to_string()).unwrap();
        let pkcs8 = key.to_pkcs8v1().unwrap();
        Self { key: EncodingKey::from_ed_der(pkcs8.as_ref()) }
    }

    /// Signs a token for a user of an organization. It is valid for one hour.
    pub(crate) fn token(&self, user: &str, organization: &str, role: &str) -> SecretString {
        self.sign(json!({ "sub": user, "org_id": organization, "role": role }))
    }

    /// Signs a token for an operator of the platform. It is valid for one hour.
    pub(crate) fn operator_token(&self, user: &str) -> SecretString {
        self.sign(json!({ "sub": user, "role": "operator" }))
    }

    fn sign(&self, mut claims: Value) -> SecretString {
        let now = SystemClock.now().timestamp();
        claims["iss"] = ISSUER.into();
        claims["aud"] = AUDIENCE.into();
        claims["iat"] = now.into();
        claims["exp"] = (now + 3600).into();
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::EdDSA) };
        SecretString::from(jsonwebtoken::encode(&header, &claims, &self.key).unwrap())
    }
}
