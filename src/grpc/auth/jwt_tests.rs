//! Tests of valid and invalid tokens.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::{
    config::Config,
    grpc::auth::keys::tests::{
        TestKey, build_jwk_set, create_issuer_config, generate_ed25519_key, generate_p256_key, open_key_set,
    },
};

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

fn sign_token(key: &EncodingKey, header: &Header, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

fn rules() -> ClaimRules {
    ClaimRules::of_dev_issuer(&Config::defaults().unwrap().auth)
}

fn dev_issuer(secret: &str) -> DevIssuer {
    let (issuer, audience) = ("https://id".to_owned(), "strongroom".to_owned());
    DevIssuer { issuer, audience, secret: secret.to_owned().into() }
}

/// Returns the issuer `https://id` with these keys.
async fn issuers_with_keys(keys: &[(&str, &TestKey)]) -> Vec<Issuer> {
    let (directory, config) = create_issuer_config(&build_jwk_set(keys));
    let issuer = Issuer::from_config(&config, rules(), open_key_set(&config).await);
    drop(directory);
    vec![issuer]
}

async fn rejection(issuers: &[Issuer], token: &str) -> String {
    match verify_token(issuers, token, now()).await {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn accepts_valid_tokens_of_both_algorithms() {
    let (ed, es) = (generate_ed25519_key(), generate_p256_key());
    let issuers = issuers_with_keys(&[("e", &ed), ("s", &es)]).await;
    for (key, algorithm, kid) in [(&ed, Algorithm::EdDSA, "e"), (&es, Algorithm::ES256, "s")] {
        let token = sign_token(&key.signing_key, &header(algorithm, Some(kid)), &claims());
        let (issuer, verified) = verify_token(&issuers, &token, now()).await.unwrap();
        assert_eq!(issuer.name, "https://id");
        assert_eq!(verified["sub"], "alice");
    }
}

#[tokio::test]
async fn token_without_key_id_is_accepted_if_the_key_is_unique() {
    let (one, other) = (generate_ed25519_key(), generate_ed25519_key());
    let token = sign_token(&one.signing_key, &header(Algorithm::EdDSA, None), &claims());
    let one_key = issuers_with_keys(&[("1", &one)]).await;
    assert!(verify_token(&one_key, &token, now()).await.is_ok());
    let two_keys = issuers_with_keys(&[("1", &one), ("2", &other)]).await;
    assert_eq!(rejection(&two_keys, &token).await, "the token's key is not one of its issuer's");
}

#[tokio::test]
async fn rejects_tokens_with_invalid_claims() {
    let key = generate_ed25519_key();
    let issuers = issuers_with_keys(&[("1", &key)]).await;
    for (claim, value, message) in [
        ("exp", json!(NOW - 31), "the token has expired"),
        ("exp", Value::Null, "one of the claims `exp`, `iss` and `aud` is missing or malformed"),
        ("exp", json!("soon"), "one of the claims `exp`, `iss` and `aud` is missing or malformed"),
        ("nbf", json!(NOW + 31), "the token is not valid yet"),
        ("nbf", json!("later"), "claim `nbf` must be a number of seconds"),
        ("aud", json!("another"), "the token is for another audience"),
        ("aud", Value::Null, "the token is for another audience"),
        ("iss", json!("https://evil"), "the token's issuer is not configured"),
        ("iss", Value::Null, "claim `iss` is missing"),
    ] {
        let mut claims = claims();
        claims[claim] = value.clone();
        let token = sign_token(&key.signing_key, &header(Algorithm::EdDSA, Some("1")), &claims);
        assert_eq!(rejection(&issuers, &token).await, message, "{claim} {value}");
    }
}

#[tokio::test]
async fn lifetime_of_tokens_is_limited() {
    const DAY: i64 = 86_400;
    let key = generate_ed25519_key();
    let issuers = issuers_with_keys(&[("1", &key)]).await;
    let sign = |issued: Value, expires: i64| {
        let mut claims = claims();
        claims["exp"] = json!(expires);
        if !issued.is_null() {
            claims["iat"] = issued;
        }
        sign_token(&key.signing_key, &header(Algorithm::EdDSA, Some("1")), &claims)
    };
    for (issued, expires) in [
        (json!(NOW), NOW + DAY),
        (json!(NOW - DAY + 10), NOW + 10),
        // The clock of the issuer may be ahead by the leeway.
        (json!(NOW + 30), NOW + 30 + DAY),
        (Value::Null, NOW + DAY),
    ] {
        assert!(verify_token(&issuers, &sign(issued.clone(), expires), now()).await.is_ok(), "{issued}");
    }
    let year = NOW + 365 * DAY;
    for (issued, expires, seconds) in [
        (json!(NOW), NOW + DAY + 1, DAY + 1),
        (json!(NOW - 2 * DAY), NOW + 60, 2 * DAY + 60),
        // A time of issue in the future does not extend a token.
        (json!(year - 60), year, 365 * DAY - 30),
        (Value::Null, year, 365 * DAY - 30),
    ] {
        let expected = format!("the token is valid for {seconds} s; the limit for its issuer is {DAY} s");
        assert_eq!(rejection(&issuers, &sign(issued, expires)).await, expected);
    }
    let issued = sign(json!("today"), NOW + 60);
    assert_eq!(rejection(&issuers, &issued).await, "claim `iat` must be a number of seconds");
}

#[tokio::test]
async fn clocks_may_differ_by_the_leeway() {
    let key = generate_ed25519_key();
    let issuers = issuers_with_keys(&[("1", &key)]).await;
    let mut claims = claims();
    (claims["exp"], claims["nbf"]) = (json!(NOW - 29), json!(NOW + 29));
    claims["aud"] = json!(["another", "strongroom"]);
    let token = sign_token(&key.signing_key, &header(Algorithm::EdDSA, Some("1")), &claims);
    assert!(verify_token(&issuers, &token, now()).await.is_ok());
}

#[tokio::test]
async fn rejects_keys_and_signatures_of_others() {
    let (key, stranger) = (generate_ed25519_key(), generate_ed25519_key());
    let issuers = issuers_with_keys(&[("1", &key)]).await;
    let unknown = sign_token(&key.signing_key, &header(Algorithm::EdDSA, Some("2")), &claims());
    assert_eq!(rejection(&issuers, &unknown).await, "the token's key is not one of its issuer's");
    let forged = sign_token(&stranger.signing_key, &header(Algorithm::EdDSA, Some("1")), &claims());
    assert_eq!(rejection(&issuers, &forged).await, "the token's signature is invalid");

    let good = sign_token(&key.signing_key, &header(Algorithm::EdDSA, Some("1")), &claims());
    let mut parts: Vec<&str> = good.split('.').collect();
    let other = sign_token(
        &stranger.signing_key,
        &header(Algorithm::EdDSA, Some("1")),
        &json!({
            "iss": "https://id", "aud": "strongroom", "sub": "mallory", "exp": NOW + 60,
        }),
    );
    parts[1] = other.split('.').nth(1).unwrap();
    assert_eq!(rejection(&issuers, &parts.join(".")).await, "the token's signature is invalid");
}

#[tokio::test]
async fn algorithms_are_pinned() {
    let key = generate_ed25519_key();
    let issuers = issuers_with_keys(&[("1", &key)]).await;
    let unsigned =
        [&json!({"alg": "none", "kid": "1"}), &claims()].map(|part| BASE64.encode(part.to_string()));
    assert_eq!(
        rejection(&issuers, &format!("{}.{}.", unsigned[0], unsigned[1])).await,
        "the token is damaged"
    );

    // The algorithm confusion attack: the public key is used as the secret of an HMAC.
    let secret = EncodingKey::from_secret(&BASE64.decode(key.public_jwk["x"].as_str().unwrap()).unwrap());
    let confused = sign_token(&secret, &header(Algorithm::HS256, Some("1")), &claims());
    assert_eq!(rejection(&issuers, &confused).await, "the token's algorithm is not accepted from its issuer");

    let other_curve =
        sign_token(&generate_p256_key().signing_key, &header(Algorithm::ES256, Some("1")), &claims());
    assert_eq!(rejection(&issuers, &other_curve).await, "the token's key is not one of its issuer's");
}

#[tokio::test]
async fn shared_secret_is_valid_only_for_its_issuer() {
    let secret = EncodingKey::from_secret(b"dev secret");
    let token = sign_token(&secret, &header(Algorithm::HS256, None), &claims());
    assert!(
        verify_token(&[Issuer::from_dev_issuer(&dev_issuer("dev secret"), rules())], &token, now())
            .await
            .is_ok()
    );
    let other = [Issuer::from_dev_issuer(&dev_issuer("another secret"), rules())];
    assert_eq!(rejection(&other, &token).await, "the token's signature is invalid");
}

#[tokio::test]
async fn rejects_damaged_tokens_and_critical_headers() {
    let issuers = [Issuer::from_dev_issuer(&dev_issuer("dev secret"), rules())];
    for damaged in ["", "a", "a.b", "a.b.c", "....", "é.é.é"] {
        assert_eq!(rejection(&issuers, damaged).await, "the token is damaged", "{damaged:?}");
    }
    let secret = EncodingKey::from_secret(b"dev secret");
    let critical = Header { crit: Some(vec!["exp".into()]), ..Header::new(Algorithm::HS256) };
    let token = sign_token(&secret, &critical, &claims());
    assert!(rejection(&issuers, &token).await.contains("critical"));
}

#[tokio::test]
async fn one_issuer_may_have_two_audiences() {
    let mut second = dev_issuer("second");
    second.audience = "archive".into();
    let issuers =
        [Issuer::from_dev_issuer(&dev_issuer("first"), rules()), Issuer::from_dev_issuer(&second, rules())];
    let mut claims = claims();
    claims["aud"] = json!("archive");
    let token = sign_token(&EncodingKey::from_secret(b"second"), &header(Algorithm::HS256, None), &claims);
    assert!(verify_token(&issuers, &token, now()).await.is_ok());
}

#[tokio::test]
async fn cached_signature_expires_with_its_token_and_key() {
    let (old, new) = (generate_ed25519_key(), generate_ed25519_key());
    let (directory, config) = create_issuer_config(&build_jwk_set(&[("1", &old)]));
    let issuers = vec![Issuer::from_config(&config, rules(), open_key_set(&config).await)];
    let token = sign_token(&old.signing_key, &header(Algorithm::EdDSA, Some("1")), &claims());
    for _ in 0..2 {
        assert!(verify_token(&issuers, &token, now()).await.is_ok());
    }
    let later = now() + chrono::TimeDelta::days(1);
    let expired = verify_token(&issuers, &token, later).await.map(|_| ()).unwrap_err();
    assert_eq!(expired.to_string(), "the token has expired");

    std::fs::write(directory.path().join("jwks.json"), build_jwk_set(&[("1", &new)])).unwrap();
    let (keys, _) = issuers[0].refreshable_keys().unwrap();
    keys.refresh().await;
    assert_eq!(rejection(&issuers, &token).await, "the token's signature is invalid");
}
