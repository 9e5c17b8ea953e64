//! Keys from files and from a provider.

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

/// A key of an identity provider: the half that signs, and the half that it publishes.
pub(in crate::grpc::auth) struct TestKey {
    pub(in crate::grpc::auth) signing: EncodingKey,
    pub(in crate::grpc::auth) public: Value,
}

/// A fresh Ed25519 key.
pub(in crate::grpc::auth) fn ed25519_key() -> TestKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let x = BASE64.encode(pair.public_key_raw());
    let public = json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "x": x});
    TestKey { signing: EncodingKey::from_ed_der(&pair.serialize_der()), public }
}

/// A fresh P-256 key.
pub(in crate::grpc::auth) fn p256_key() -> TestKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    // An uncompressed point: 4, x, y.
    let (x, y) = pair.public_key_raw()[1..].split_at(32);
    let public = json!({"kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y)});
    TestKey { signing: EncodingKey::from_ec_der(&pair.serialize_der()), public }
}

/// The public halves of keys, by their ids, as a document.
pub(in crate::grpc::auth) fn document(keys: &[(&str, &TestKey)]) -> String {
    let public = |(id, key): &(&str, &TestKey)| {
        let mut jwk = key.public.clone();
        jwk["kid"] = json!(id);
        jwk
    };
    json!({"keys": keys.iter().map(public).collect::<Vec<_>>()}).to_string()
}

/// The issuer `https://id` with this document as its file.
pub(in crate::grpc::auth) fn issuer_config(document: &str) -> (TempDir, IssuerConfig) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("jwks.json");
    std::fs::write(&file, document).unwrap();
    let config = json!({"issuer": "https://id", "audience": "strongroom", "jwks_file": file});
    (directory, serde_json::from_value(config).unwrap())
}

/// Its keys.
pub(in crate::grpc::auth) async fn key_set(config: &IssuerConfig) -> KeySet {
    KeySet::open(config).await.unwrap()
}

#[test]
fn what_is_no_key_of_ours_is_passed_over() {
    let ours: Value = serde_json::from_str(&document(&[("1", &ed25519_key())])).unwrap();
    let mut for_encryption = ours["keys"][0].clone();
    (for_encryption["kid"], for_encryption["use"]) = (json!("2"), json!("enc"));
    let document = json!({"keys": [
        {"kty": "oct", "kid": "s", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "kid": "p", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "AKP", "kid": "of the future"},
        {"nothing": true},
        for_encryption,
        ours["keys"][0],
    ]});
    let keys = parse(document.to_string().as_bytes()).unwrap();
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["1"]);
}

#[test]
fn a_document_without_a_usable_key_is_an_error() {
    assert!(matches!(parse(b"{\"keys\": []}"), Err(KeysError::NoUsableKey)));
    assert!(matches!(parse(b"<html>"), Err(KeysError::Parse(_))));
}

#[tokio::test]
async fn a_missing_file_of_keys_is_an_error_at_the_start() {
    let (directory, config) = issuer_config("");
    drop(directory);
    assert!(matches!(KeySet::open(&config).await, Err(KeysError::Read { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_when_it_is_first_named_but_not_at_every_guess() {
    let (first, second) = (ed25519_key(), ed25519_key());
    let (directory, config) = issuer_config(&document(&[("1", &first)]));
    let keys = key_set(&config).await;
    assert!(keys.find(Algorithm::EdDSA, Some("guess")).await.is_none());

    let both = document(&[("1", &first), ("2", &second)]);
    std::fs::write(directory.path().join("jwks.json"), both).unwrap();
    assert!(keys.find(Algorithm::EdDSA, Some("2")).await.is_none(), "looked again at once");
    tokio::time::advance(KEYS_REFRESH_PAUSE).await;
    assert!(keys.find(Algorithm::EdDSA, Some("2")).await.is_some());
}

#[tokio::test]
async fn a_look_that_fails_keeps_the_keys_that_are_there() {
    let (directory, config) = issuer_config(&document(&[("1", &ed25519_key())]));
    let keys = key_set(&config).await;
    for damage in ["", "{\"keys\": []}"] {
        std::fs::write(directory.path().join("jwks.json"), damage).unwrap();
        keys.refresh().await;
        assert!(keys.find(Algorithm::EdDSA, Some("1")).await.is_some());
    }
}

/// A provider on this machine that answers every request with the next of these bodies.
async fn provider(bodies: Vec<String>) -> (Url, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap()).parse().unwrap();
    let served = AtomicUsize::new(0);
    let serving = tokio::spawn(async move {
        while let Some(body) = bodies.get(served.fetch_add(1, Ordering::Relaxed)) {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _read = connection.read(&mut request).await.unwrap();
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            connection.write_all(head.as_bytes()).await.unwrap();
            connection.write_all(body.as_bytes()).await.unwrap();
        }
    });
    (url, serving)
}

#[tokio::test]
async fn keys_come_from_a_provider_and_a_document_that_never_ends_is_not_read() {
    // Another test may have installed it first.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let good = document(&[("1", &ed25519_key())]);
    let (url, serving) = provider(vec![good, "x".repeat(DOCUMENT_BYTES_MAX + 1)]).await;
    let config = json!({"issuer": "https://id", "audience": "strongroom", "jwks_url": url.as_str()});
    let keys = key_set(&serde_json::from_value(config).unwrap()).await;
    assert!(keys.find(Algorithm::EdDSA, Some("1")).await.is_some());
    assert!(matches!(keys.look().await, Err(KeysError::TooLarge)));
    serving.abort();
    assert!(keys.find(Algorithm::EdDSA, Some("1")).await.is_some());
}
