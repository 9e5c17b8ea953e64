//! Tokens that hold, and every way in which they do not.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::grpc::auth::keys::tests::{TestKey, document, ed25519_key, issuer_config, key_set, p256_key};

const NOW: i64 = 1_700_000_000;

fn now() -> Timestamp {
    Timestamp::from_timestamp(NOW, 0).unwrap()
}

fn claims() -> Value {
    json!({"iss": "https://id", "aud": "strongroom", "sub": "alice", "exp": NOW + 60})
}

fn header(algorithm: Algorithm, kid: Option<&str>) -> Header {
    Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) }
}

fn token(key: &EncodingKey, header: &Header, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

fn dev(secret: &str) -> DevIssuer {
    let (issuer, audience) = ("https://id".to_owned(), "strongroom".to_owned());
    DevIssuer { issuer, audience, secret: secret.to_owned().into() }
}

/// The one issuer `https://id`, with these keys in its document.
async fn issuers(keys: &[(&str, &TestKey)]) -> Vec<Issuer> {
    let (directory, config) = issuer_config(&document(keys));
    let issuer = Issuer::configured(&config, key_set(&config).await);
    drop(directory);
    vec![issuer]
}

async fn refusal(issuers: &[Issuer], token: &str) -> String {
    match verify(issuers, token, now()).await {
        Err(refused) => refused.to_string(),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn a_good_token_of_either_algorithm_is_accepted() {
    let (ed, es) = (ed25519_key(), p256_key());
    let issuers = issuers(&[("e", &ed), ("s", &es)]).await;
    for (key, algorithm, kid) in [(&ed, Algorithm::EdDSA, "e"), (&es, Algorithm::ES256, "s")] {
        let token = token(&key.signing, &header(algorithm, Some(kid)), &claims());
        let (issuer, verified) = verify(&issuers, &token, now()).await.unwrap();
        assert_eq!(issuer.name, "https://id");
        assert_eq!(verified["sub"], "alice");
    }
}

#[tokio::test]
async fn a_token_without_a_key_id_is_accepted_where_there_is_no_choice() {
    let (one, other) = (ed25519_key(), ed25519_key());
    let token = token(&one.signing, &header(Algorithm::EdDSA, None), &claims());
    let alone = issuers(&[("1", &one)]).await;
    assert!(verify(&alone, &token, now()).await.is_ok());
    let two = issuers(&[("1", &one), ("2", &other)]).await;
    assert_eq!(refusal(&two, &token).await, "the token's key is not one of its issuer's");
}

#[tokio::test]
async fn what_a_token_claims_must_hold() {
    let key = ed25519_key();
    let issuers = issuers(&[("1", &key)]).await;
    for (claim, value, why) in [
        ("exp", json!(NOW - 31), "the token has expired"),
        ("exp", Value::Null, "one of the claims `exp`, `iss` and `aud` is missing or malformed"),
        ("exp", json!("soon"), "one of the claims `exp`, `iss` and `aud` is missing or malformed"),
        ("nbf", json!(NOW + 31), "the token is not valid yet"),
        ("nbf", json!("later"), "claim `nbf` must be a number of seconds"),
        ("aud", json!("another"), "the token is for another audience"),
        ("aud", Value::Null, "the token is for another audience"),
        ("iss", json!("https://evil"), "the token's issuer is not known here"),
        ("iss", Value::Null, "claim `iss` is missing"),
    ] {
        let mut claims = claims();
        claims[claim] = value.clone();
        let token = token(&key.signing, &header(Algorithm::EdDSA, Some("1")), &claims);
        assert_eq!(refusal(&issuers, &token).await, why, "{claim} {value}");
    }
}

#[tokio::test]
async fn clocks_may_differ_by_the_leeway() {
    let key = ed25519_key();
    let issuers = issuers(&[("1", &key)]).await;
    let mut claims = claims();
    (claims["exp"], claims["nbf"]) = (json!(NOW - 29), json!(NOW + 29));
    claims["aud"] = json!(["another", "strongroom"]);
    let token = token(&key.signing, &header(Algorithm::EdDSA, Some("1")), &claims);
    assert!(verify(&issuers, &token, now()).await.is_ok());
}

#[tokio::test]
async fn keys_and_signatures_are_the_issuers_or_nothing() {
    let (key, stranger) = (ed25519_key(), ed25519_key());
    let issuers = issuers(&[("1", &key)]).await;
    let unknown = token(&key.signing, &header(Algorithm::EdDSA, Some("2")), &claims());
    assert_eq!(refusal(&issuers, &unknown).await, "the token's key is not one of its issuer's");
    let forged = token(&stranger.signing, &header(Algorithm::EdDSA, Some("1")), &claims());
    assert_eq!(refusal(&issuers, &forged).await, "the token's signature is wrong");

    let good = token(&key.signing, &header(Algorithm::EdDSA, Some("1")), &claims());
    let mut parts: Vec<&str> = good.split('.').collect();
    let other = token(
        &stranger.signing,
        &header(Algorithm::EdDSA, Some("1")),
        &json!({
            "iss": "https://id", "aud": "strongroom", "sub": "mallory", "exp": NOW + 60,
        }),
    );
    parts[1] = other.split('.').nth(1).unwrap();
    assert_eq!(refusal(&issuers, &parts.join(".")).await, "the token's signature is wrong");
}

#[tokio::test]
async fn algorithms_are_pinned() {
    let key = ed25519_key();
    let issuers = issuers(&[("1", &key)]).await;
    let unsigned =
        [&json!({"alg": "none", "kid": "1"}), &claims()].map(|part| BASE64.encode(part.to_string()));
    assert_eq!(refusal(&issuers, &format!("{}.{}.", unsigned[0], unsigned[1])).await, "the token is damaged");

    // The classic confusion: the public key as the secret of an HMAC.
    let secret = EncodingKey::from_secret(&BASE64.decode(key.public["x"].as_str().unwrap()).unwrap());
    let confused = token(&secret, &header(Algorithm::HS256, Some("1")), &claims());
    assert_eq!(refusal(&issuers, &confused).await, "the token's algorithm is not accepted from its issuer");

    let other_curve = token(&p256_key().signing, &header(Algorithm::ES256, Some("1")), &claims());
    assert_eq!(refusal(&issuers, &other_curve).await, "the token's key is not one of its issuer's");
}

#[tokio::test]
async fn a_shared_secret_counts_for_its_own_issuer_alone() {
    let secret = EncodingKey::from_secret(b"dev secret");
    let token = token(&secret, &header(Algorithm::HS256, None), &claims());
    assert!(verify(&[Issuer::dev(&dev("dev secret"))], &token, now()).await.is_ok());
    let other = [Issuer::dev(&dev("another secret"))];
    assert_eq!(refusal(&other, &token).await, "the token's signature is wrong");
}

#[tokio::test]
async fn damaged_and_critical_tokens_are_refused() {
    let issuers = [Issuer::dev(&dev("dev secret"))];
    for damaged in ["", "a", "a.b", "a.b.c", "....", "é.é.é"] {
        assert_eq!(refusal(&issuers, damaged).await, "the token is damaged", "{damaged:?}");
    }
    let secret = EncodingKey::from_secret(b"dev secret");
    let critical = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::HS256) };
    let token = token(&secret, &critical, &claims());
    assert!(refusal(&issuers, &token).await.contains("critical"));
}

#[tokio::test]
async fn one_issuer_may_be_configured_for_two_audiences() {
    let mut second = dev("second");
    second.audience = "archive".into();
    let issuers = [Issuer::dev(&dev("first")), Issuer::dev(&second)];
    let mut claims = claims();
    claims["aud"] = json!("archive");
    let token = token(&EncodingKey::from_secret(b"second"), &header(Algorithm::HS256, None), &claims);
    assert!(verify(&issuers, &token, now()).await.is_ok());
}

#[tokio::test]
async fn a_remembered_signature_outlives_neither_its_token_nor_its_key() {
    let (old, new) = (ed25519_key(), ed25519_key());
    let (directory, config) = issuer_config(&document(&[("1", &old)]));
    let issuers = vec![Issuer::configured(&config, key_set(&config).await)];
    let token = token(&old.signing, &header(Algorithm::EdDSA, Some("1")), &claims());
    for _ in 0..2 {
        assert!(verify(&issuers, &token, now()).await.is_ok());
    }
    let later = now() + chrono::TimeDelta::days(1);
    let expired = verify(&issuers, &token, later).await.map(|_| ()).unwrap_err();
    assert_eq!(expired.to_string(), "the token has expired");

    std::fs::write(directory.path().join("jwks.json"), document(&[("1", &new)])).unwrap();
    let (keys, _) = issuers[0].refreshed().unwrap();
    keys.refresh().await;
    assert_eq!(refusal(&issuers, &token).await, "the token's signature is wrong");
}
