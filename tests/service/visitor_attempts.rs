//! Failed attempts of visitors of shares, and the access log that managers of a share read.

use chrono::Duration;
use futures::future::join_all;
use secrecy::ExposeSecret as _;
use strongroom::{
    crypto::share_token::ShareToken,
    proto::v1::{
        AccessAction, AccessEntry, AccessFilter, AccessOutcome, ListFileAccessRequest,
        ListShareAccessRequest, ResolveShareRequest,
    },
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    harness::{Caller, reason, service_test, service_test_with},
    visitors::{Terms, download, resolve, share_new, visitor},
};

const PASSWORD: &str = "correct horse";

#[test]
fn password_is_required_and_attempts_are_limited() {
    service_test(|s| async move {
        let (_, link) = share_new(&s, b"bytes", Terms { password: Some(PASSWORD), ..Terms::default() }).await;
        let error = resolve(&s, &link.token, "").await.unwrap_err();
        let required = (Code::FailedPrecondition, "SHARE_PASSWORD_REQUIRED".to_owned());
        assert_eq!((error.code(), reason(&error)), required);
        let resolved = resolve(&s, &link.token, PASSWORD).await.unwrap();
        download(&s, &resolved.grant, 0, 0).await.unwrap();

        let wrong = join_all((0..30).map(|_| resolve(&s, &link.token, "wrong password"))).await;
        let reasons: Vec<String> =
            wrong.iter().map(|outcome| reason(outcome.as_ref().unwrap_err())).collect();
        let count = |expected: &str| reasons.iter().filter(|reason| *reason == expected).count();
        assert_eq!(
            (count("SHARE_PASSWORD_WRONG"), count("SHARE_ATTEMPTS_EXHAUSTED")),
            (10, 20),
            "{reasons:?}"
        );
        let error = resolve(&s, &link.token, PASSWORD).await.unwrap_err();
        let delay = error.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(delay <= std::time::Duration::from_secs(600) && !delay.is_zero(), "{delay:?}");
        // The owner is no visitor.
        let file = s.superuser.query_texts("SELECT id::text FROM files").await.remove(0);
        s.alice().read(&file).await.unwrap();
        s.clock.advance(Duration::minutes(10));
        resolve(&s, &link.token, PASSWORD).await.unwrap();
        let denied = "SELECT count(*) FROM access_log WHERE denial_reason = 'password is wrong'";
        assert_eq!(s.superuser.query_number(denied).await, 10);
    });
}

#[test]
fn visitors_of_other_addresses_get_in_during_an_attack() {
    let trust = |config: &mut strongroom::config::Config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    };
    service_test_with(trust, |s| async move {
        let (_, link) = share_new(&s, b"bytes", Terms { password: Some(PASSWORD), ..Terms::default() }).await;
        let resolve_from = async |address: &str, password: &str| {
            let message = ResolveShareRequest { token: link.token.clone(), password: password.to_owned() };
            let mut request = tonic::Request::new(message);
            request.metadata_mut().insert("x-forwarded-for", address.parse().unwrap());
            visitor(&s).resolve_share(request).await.map(drop).map_err(|status| reason(&status))
        };
        for n in 0..11 {
            let expected = if n < 10 { "SHARE_PASSWORD_WRONG" } else { "SHARE_ATTEMPTS_EXHAUSTED" };
            assert_eq!(resolve_from("198.51.100.66", "a wrong one").await.unwrap_err(), expected, "{n}");
        }
        // An address that the client claims before that of the proxy's peer does not help.
        let claimed = resolve_from("203.0.113.5, 198.51.100.66", "a wrong one").await;
        assert_eq!(claimed.unwrap_err(), "SHARE_ATTEMPTS_EXHAUSTED");
        resolve_from("192.0.2.7", PASSWORD).await.unwrap();
        // Many addresses together make each get fewer attempts, but not none.
        s.superuser
            .execute("UPDATE visitor_attempts SET attempts = 200 WHERE scope = {attempt_scope.share}")
            .await;
        for expected in ["SHARE_PASSWORD_WRONG", "SHARE_PASSWORD_WRONG", "SHARE_ATTEMPTS_EXHAUSTED"] {
            assert_eq!(resolve_from("192.0.2.8", "a wrong one").await.unwrap_err(), expected);
        }
        resolve_from("192.0.2.9", PASSWORD).await.unwrap();
    });
}

#[test]
fn unknown_tokens_are_limited_but_never_refuse_a_live_one() {
    service_test(|s| async move {
        let (_, link) = share_new(&s, b"bytes", Terms::default()).await;
        let unknown = ShareToken::generate(link.tenant).unwrap().text().expose_secret().to_owned();
        for _ in 0..100 {
            assert_eq!(resolve(&s, &unknown, "").await.unwrap_err().code(), Code::NotFound);
        }
        let error = resolve(&s, &unknown, "").await.unwrap_err();
        assert_eq!(reason(&error), "SHARE_ATTEMPTS_EXHAUSTED");
        resolve(&s, &link.token, "").await.unwrap();
    });
}

#[test]
fn access_log_is_for_managers_of_the_share() {
    service_test(|s| async move {
        let (file, link) =
            share_new(&s, b"bytes", Terms { password: Some(PASSWORD), ..Terms::default() }).await;
        resolve(&s, &link.token, "a wrong one").await.unwrap_err();
        let resolved = resolve(&s, &link.token, PASSWORD).await.unwrap();
        download(&s, &resolved.grant, 0, 0).await.unwrap();
        let list = async |caller: Caller, filter: AccessFilter, page_size: i32, page_token: String| {
            let request = ListShareAccessRequest {
                share_id: link.id.to_string(),
                filter: Some(filter),
                page_size,
                page_token,
            };
            caller.shares.clone().list_share_access(request).await.map(tonic::Response::into_inner)
        };
        let all = list(s.alice(), AccessFilter::default(), 2, String::new()).await.unwrap();
        let actions: Vec<AccessAction> = all.entries.iter().map(AccessEntry::action).collect();
        assert_eq!(actions, [AccessAction::Download, AccessAction::Resolve]);
        assert_eq!((all.entries[0].address.as_str(), all.entries[0].actor_id.as_str()), ("127.0.0.1", ""));
        let rest = list(s.ada(), AccessFilter::default(), 2, all.next_page_token.clone()).await.unwrap();
        assert_eq!((rest.entries.len(), rest.next_page_token.as_str()), (1, ""));
        assert_eq!(rest.entries[0].denial_reason, "password is wrong");
        let denied = AccessFilter { outcome: AccessOutcome::Denied.into(), ..Default::default() };
        assert_eq!(list(s.alice(), denied, 0, String::new()).await.unwrap().entries, rest.entries);
        let resolves = AccessFilter { action: AccessAction::Resolve.into(), ..Default::default() };
        assert_eq!(list(s.alice(), resolves, 0, String::new()).await.unwrap().entries.len(), 2);
        let later = Some((std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1)).into());
        let past = AccessFilter { end_time: later, ..Default::default() };
        assert!(list(s.alice(), past, 0, String::new()).await.unwrap().entries.is_empty());
        let error = list(s.alice(), denied, 2, all.next_page_token).await.unwrap_err();
        assert_eq!(reason(&error), "PAGE_TOKEN_INVALID", "of another filter");
        for stranger in [s.bob(), s.gus()] {
            let error = list(stranger, AccessFilter::default(), 0, String::new()).await.unwrap_err();
            assert_eq!(error.code(), Code::NotFound);
        }
        let request = ListFileAccessRequest { file_id: file, ..Default::default() };
        let of_file = s.alice().shares.clone().list_file_access(request).await.unwrap().into_inner();
        assert_eq!(of_file.entries.len(), 3);
    });
}
