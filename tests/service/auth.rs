//! Who is calling: verified tokens and nothing else.

use chrono::Duration;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use strongroom::domain::clock::Clock;
use tonic::Code;

use crate::harness::{Identity, Key, Service, claims, key, publish, reason, service_test, token};

/// What the service says to this token.
async fn outcome(s: &Service, token: &str) -> Result<(), (Code, String)> {
    let caller = s.caller_with(Identity::default(), token);
    caller.quota().await.map(|_| ()).map_err(|status| (status.code(), reason(&status)))
}

fn refused() -> Result<(), (Code, String)> {
    Err((Code::Unauthenticated, "CREDENTIALS_INVALID".to_owned()))
}

/// Alice's claims, changed.
fn changed(s: &Service, change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let mut claims = claims(&s.alice().identity, s.clock.now());
    change(&mut claims);
    key().sign(&claims)
}

#[test]
fn a_token_holds_until_it_expires_by_the_clock_of_the_service() {
    service_test(|s| async move {
        let token = token(&s.alice().identity, s.clock.now());
        assert_eq!(outcome(&s, &token).await, Ok(()));
        s.clock.advance(Duration::minutes(59));
        assert_eq!(outcome(&s, &token).await, Ok(()));
        s.clock.advance(Duration::seconds(91));
        assert_eq!(outcome(&s, &token).await, refused());
    });
}

#[test]
fn a_token_with_wrong_claims_is_refused() {
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
            let token = changed(&s, |claims| {
                change(claims);
                text = format!("{claims:?}");
            });
            assert_eq!(outcome(&s, &token).await, refused(), "{n}: {text}");
        }
        assert_eq!(s.owner.number("SELECT count(*) FROM tenants").await, 0, "nobody was born of them");
    });
}

#[test]
fn a_signature_by_anything_but_the_published_keys_is_refused() {
    service_test(|s| async move {
        let claims = claims(&s.alice().identity, s.clock.now());
        let good = key().sign(&claims);
        let parts: Vec<&str> = good.split('.').collect();
        let none = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
        let hs256 = jsonwebtoken::encode(
            &Header { kid: Some("first".to_owned()), ..Header::new(Algorithm::HS256) },
            &claims,
            &EncodingKey::from_secret(b"a secret that everyone knows"),
        );
        let forged = Key::generate("first").sign(&claims);
        let unknown = Key::generate("unknown").sign(&claims);
        let cut = good[..good.len() - 4].to_owned();
        let swapped = format!("{}.{}.{}", parts[0], parts[1], forged.split('.').nth(2).unwrap());
        for token in
            [none, hs256.unwrap(), forged, unknown, cut, swapped, "nonsense".to_owned(), "a.b.c".to_owned()]
        {
            assert_eq!(outcome(&s, &token).await, refused(), "{token}");
        }
        assert_eq!(outcome(&s, &good).await, Ok(()));
    });
}

#[test]
fn keys_that_are_published_later_are_found_and_withdrawn_ones_forgotten() {
    service_test(|s| async move {
        let claims = claims(&s.alice().identity, s.clock.now());
        let second = Key::generate("second");
        assert_eq!(outcome(&s, &key().sign(&claims)).await, Ok(()));
        publish(&s.keys, &[&second]);
        // An id that is not known is looked up at once; the document replaces the old one.
        assert_eq!(outcome(&s, &second.sign(&claims)).await, Ok(()));
        assert_eq!(outcome(&s, &key().sign(&claims)).await, refused());
    });
}

#[test]
fn tokens_of_the_other_curve_are_accepted() {
    service_test(|s| async move {
        let es256 = Key::generate_p256("curve");
        publish(&s.keys, &[key(), &es256]);
        let claims = claims(&s.alice().identity, s.clock.now());
        assert_eq!(outcome(&s, &es256.sign(&claims)).await, Ok(()));
        assert_eq!(outcome(&s, &key().sign(&claims)).await, Ok(()));
    });
}

#[test]
fn a_person_needs_no_role_and_a_member_does() {
    service_test(|s| async move {
        let alone = changed(&s, |claims| {
            claims.remove("org_id");
            claims.remove("role");
        });
        assert_eq!(outcome(&s, &alone).await, Ok(()));
        let several = changed(&s, |claims| {
            claims.insert("aud".to_owned(), json!(["other", "strongroom"]));
        });
        assert_eq!(outcome(&s, &several).await, Ok(()));
    });
}

#[test]
fn a_bare_header_says_nothing_about_who_calls() {
    service_test(|s| async move {
        for name in ["x-user-id", "x-tenant-id", "x-org-id", "x-role", "x-forwarded-user", "x-api-key"] {
            let mut request = tonic::Request::new(Default::default());
            request.metadata_mut().insert(name, "admin".parse().unwrap());
            let refused = s.nobody().quotas.get_quota(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{name}");
        }
    });
}
