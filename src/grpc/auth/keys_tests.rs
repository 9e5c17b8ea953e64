//! Tests of keys from files and from an identity provider.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::EncodingKey;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// A key pair of an identity provider.
pub(in crate::grpc::auth) struct TestKey {
    pub(in crate::grpc::auth) signing_key: EncodingKey,
    /// The public key as a JWK.
    pub(in crate::grpc::auth) public_jwk: Value,
}

/// Generates an Ed25519 key.
pub(in crate::grpc::auth) fn generate_ed25519_key() -> TestKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let x = BASE64.encode(pair.public_key_raw());
    let public = json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "x": x});
    TestKey { signing_key: EncodingKey::from_ed_der(&pair.serialize_der()), public_jwk: public }
}

/// Generates a P-256 key.
pub(in crate::grpc::auth) fn generate_p256_key() -> TestKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    // The public key is an uncompressed point: the byte 4, x, y.
    let (x, y) = pair.public_key_raw()[1..].split_at(32);
    let public = json!({"kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y)});
    TestKey { signing_key: EncodingKey::from_ec_der(&pair.serialize_der()), public_jwk: public }
}

/// Builds a JWK set of the public keys with these ids.
pub(in crate::grpc::auth) fn build_jwk_set(keys: &[(&str, &TestKey)]) -> String {
    let with_id = |(id, key): &(&str, &TestKey)| {
        let mut jwk = key.public_jwk.clone();
        jwk["kid"] = json!(id);
        jwk
    };
    json!({"keys": keys.iter().map(with_id).collect::<Vec<_>>()}).to_string()
}

/// Writes a JWK set to a file and returns the configuration of the issuer `https://id` with it.
pub(in crate::grpc::auth) fn create_issuer_config(document: &str) -> (TempDir, IssuerConfig) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, document).unwrap();
    let config = json!({"issuer": "https://id", "audience": "strongroom", "jwks_file": file});
    (directory, serde_json::from_value(config).unwrap())
}

pub(in crate::grpc::auth) async fn open_key_set(config: &IssuerConfig) -> KeySet {
    KeySet::open(config).await.unwrap()
}

#[test]
fn unusable_keys_are_ignored() {
    let usable: Value = serde_json::from_str(&build_jwk_set(&[("1", &generate_ed25519_key())])).unwrap();
    let mut for_encryption = usable["keys"][0].clone();
    (for_encryption["kid"], for_encryption["use"]) = (json!("2"), json!("enc"));
    let document = json!({"keys": [
        {"kty": "oct", "kid": "s", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "kid": "p", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "AKP", "kid": "future"},
        {"nothing": true},
        for_encryption,
        usable["keys"][0],
    ]});
    let keys = parse_keys(document.to_string().as_bytes()).unwrap();
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["1"]);
}

#[test]
fn rejects_jwk_set_without_a_usable_key() {
    assert!(matches!(parse_keys(b"{\"keys\": []}"), Err(KeysError::NoUsableKey)));
    assert!(matches!(parse_keys(b"<html>"), Err(KeysError::Parse(_))));
}

#[tokio::test]
async fn missing_key_file_is_an_error_at_start() {
    let (directory, config) = create_issuer_config("");
    drop(directory);
    assert!(matches!(KeySet::open(&config).await, Err(KeysError::Read { .. })));
}

#[tokio::test(start_paused = true)]
async fn unknown_key_id_reloads_keys_at_most_once_per_interval() {
    let (first, second) = (generate_ed25519_key(), generate_ed25519_key());
    let (directory, config) = create_issuer_config(&build_jwk_set(&[("1", &first)]));
    let keys = open_key_set(&config).await;
    assert!(keys.find_key(Algorithm::EdDSA, Some("guess")).await.is_none());

    let both = build_jwk_set(&[("1", &first), ("2", &second)]);
    std::fs::write(directory.path().join("jwks.json"), both).unwrap();
    assert!(keys.find_key(Algorithm::EdDSA, Some("2")).await.is_none(), "keys were reloaded too early");
    tokio::time::advance(KEYS_REFRESH_INTERVAL_MIN).await;
    assert!(keys.find_key(Algorithm::EdDSA, Some("2")).await.is_some());
}

#[tokio::test]
async fn failed_reload_keeps_the_previous_keys() {
    let (directory, config) = create_issuer_config(&build_jwk_set(&[("1", &generate_ed25519_key())]));
    let keys = open_key_set(&config).await;
    for damage in ["", "{\"keys\": []}"] {
        std::fs::write(directory.path().join("jwks.json"), damage).unwrap();
        keys.refresh().await;
        assert!(keys.find_key(Algorithm::EdDSA, Some("1")).await.is_some());
    }
}

/// Starts a local identity provider that responds to each request with the next of these bodies.
async fn start_provider(bodies: Vec<String>) -> (Url, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap()).parse().unwrap();
    let request_count = AtomicUsize::new(0);
    let server = tokio::spawn(async move {
        while let Some(body) = bodies.get(request_count.fetch_add(1, Ordering::Relaxed)) {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _read = connection.read(&mut request).await.unwrap();
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            connection.write_all(head.as_bytes()).await.unwrap();
            connection.write_all(body.as_bytes()).await.unwrap();
        }
    });
    (url, server)
}

#[tokio::test]
async fn too_large_jwk_set_of_a_provider_is_rejected() {
    // Another test may have installed the provider already.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let valid = build_jwk_set(&[("1", &generate_ed25519_key())]);
    let (url, server) = start_provider(vec![valid, "x".repeat(DOCUMENT_BYTES_MAX + 1)]).await;
    let config = json!({"issuer": "https://id", "audience": "strongroom", "jwks_url": url.as_str()});
    let keys = open_key_set(&serde_json::from_value(config).unwrap()).await;
    assert!(keys.find_key(Algorithm::EdDSA, Some("1")).await.is_some());
    assert!(matches!(keys.reload().await, Err(KeysError::TooLarge)));
    server.abort();
    assert!(keys.find_key(Algorithm::EdDSA, Some("1")).await.is_some());
}
