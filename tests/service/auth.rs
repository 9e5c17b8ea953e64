//! Authentication. Only verified tokens identify a caller.

use chrono::Duration;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use strongroom::domain::clock::Clock;
use tonic::Code;

use crate::harness::{
    Identity, Key, Service, claims, default_key, publish_keys, reason, service_test, token,
};

/// Calls an RPC with this token.
async fn call_with_token(s: &Service, token: &str) -> Result<(), (Code, String)> {
    let caller = s.caller_with_token(Identity::default(), token);
    caller.quota().await.map(|_| ()).map_err(|status| (status.code(), reason(&status)))
}

fn credentials_invalid() -> Result<(), (Code, String)> {
    Err((Code::Unauthenticated, "CREDENTIALS_INVALID".to_owned()))
}

/// Signs alice's claims after a change.
fn token_with_claims(s: &Service, change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let mut claims = claims(&s.alice().identity, s.clock.now());
    change(&mut claims);
    default_key().sign(&claims)
}

#[test]
fn token_is_valid_until_it_expires_on_the_service_clock() {
    service_test(|s| async move {
        let token = token(&s.alice().identity, s.clock.now());
        assert_eq!(call_with_token(&s, &token).await, Ok(()));
        s.clock.advance(Duration::minutes(59));
        assert_eq!(call_with_token(&s, &token).await, Ok(()));
        s.clock.advance(Duration::seconds(91));
        assert_eq!(call_with_token(&s, &token).await, credentials_invalid());
    });
}

#[test]
fn rejects_token_with_wrong_claims() {
    service_test(|s| async move {
        type Change = Box<dyn FnOnce(&mut Map<String, Value>)>;
        let set = |name: &'static str, value: Value| -> Change {
            Box::new(move |claims| {
                claims.insert(name.to_owned(), value);
            })
        };
        let without = |name: &'static str| -> Change {
            Box::new(move |claims| {
                claims.remove(name);
            })
        };
        let later = s.clock.now().timestamp() + 1000;
        let wrong = [
            set("aud", json!("another")),
            set("aud", json!([])),
            without("aud"),
            set("iss", json!("https://evil.example.org")),
            without("iss"),
            without("exp"),
            set("exp", json!("tomorrow")),
            set("nbf", json!(later)),
            without("sub"),
            set("sub", json!("")),
            set("sub", json!("x".repeat(256))),
            set("sub", json!(7)),
            set("org_id", json!("")),
            set("org_id", json!(["acme"])),
            set("role", json!("superuser")),
            set("role", json!("Admin")),
            set("role", json!("")),
            without("role"),
            set("groups", json!(7)),
            set("groups", json!([7])),
        ];
        for (n, change) in wrong.into_iter().enumerate() {
            let mut text = String::new();
            let token = token_with_claims(&s, |claims| {
                change(claims);
                text = format!("{claims:?}");
            });
            assert_eq!(call_with_token(&s, &token).await, credentials_invalid(), "{n}: {text}");
        }
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM tenants").await,
            0,
            "a rejected token creates no tenant"
        );
    });
}

#[test]
fn rejects_signature_of_unpublished_key() {
    service_test(|s| async move {
        let claims = claims(&s.alice().identity, s.clock.now());
        let good = default_key().sign(&claims);
        let parts: Vec<&str> = good.split('.').collect();
        let none = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
        let hs256 = jsonwebtoken::encode(
            &Header { kid: Some("first".to_owned()), ..Header::new(Algorithm::HS256) },
            &claims,
            &EncodingKey::from_secret(b"a public secret"),
        );
        let forged = Key::generate("first").sign(&claims);
        let unknown = Key::generate("unknown").sign(&claims);
        let cut = good[..good.len() - 4].to_owned();
        let swapped = format!("{}.{}.{}", parts[0], parts[1], forged.split('.').nth(2).unwrap());
        for token in
            [none, hs256.unwrap(), forged, unknown, cut, swapped, "nonsense".to_owned(), "a.b.c".to_owned()]
        {
            assert_eq!(call_with_token(&s, &token).await, credentials_invalid(), "{token}");
        }
        assert_eq!(call_with_token(&s, &good).await, Ok(()));
    });
}

#[test]
fn published_keys_replace_withdrawn_keys() {
    service_test(|s| async move {
        let claims = claims(&s.alice().identity, s.clock.now());
        let second = Key::generate("second");
        assert_eq!(call_with_token(&s, &default_key().sign(&claims)).await, Ok(()));
        publish_keys(&s.keys, &[&second]);
        // An unknown key id is looked up at once, and the new document replaces the old one.
        assert_eq!(call_with_token(&s, &second.sign(&claims)).await, Ok(()));
        assert_eq!(call_with_token(&s, &default_key().sign(&claims)).await, credentials_invalid());
    });
}

#[test]
fn accepts_es256_token() {
    service_test(|s| async move {
        let es256 = Key::generate_p256("curve");
        publish_keys(&s.keys, &[default_key(), &es256]);
        let claims = claims(&s.alice().identity, s.clock.now());
        assert_eq!(call_with_token(&s, &es256.sign(&claims)).await, Ok(()));
        assert_eq!(call_with_token(&s, &default_key().sign(&claims)).await, Ok(()));
    });
}

#[test]
fn person_without_organization_needs_no_role() {
    service_test(|s| async move {
        let alone = token_with_claims(&s, |claims| {
            claims.remove("org_id");
            claims.remove("role");
        });
        assert_eq!(call_with_token(&s, &alone).await, Ok(()));
        let several = token_with_claims(&s, |claims| {
            claims.insert("aud".to_owned(), json!(["other", "strongroom"]));
        });
        assert_eq!(call_with_token(&s, &several).await, Ok(()));
    });
}

#[test]
fn rejects_identity_in_plain_header() {
    service_test(|s| async move {
        for name in ["x-user-id", "x-tenant-id", "x-org-id", "x-role", "x-forwarded-user", "x-api-key"] {
            let mut request = tonic::Request::new(Default::default());
            request.metadata_mut().insert(name, "admin".parse().unwrap());
            let rejected = s.anonymous().quotas.get_quota(request).await.unwrap_err();
            assert_eq!(rejected.code(), Code::Unauthenticated, "{name}");
        }
    });
}
