//! Files behind URLs: whole or not at all, from nowhere that they should not be, and without their secrets.

use strongroom::{
    config::import_source::{SourceLocation, WebSource},
    proto::v1::{
        ErrorReason, FindImportedFilesRequest, ImportItem, ImportOutcome, ImportResult, ImportSummary,
        UploadSpec,
    },
};

use crate::{
    harness::{OldAnswer, OldHost, PART, Service, pattern, results, service_test_with, summary},
    import::{file_count, key, prefix, source, url},
};

fn web(allow_private_addresses: bool, request_timeout_seconds: u64) -> SourceLocation {
    SourceLocation::Web(WebSource {
        hosts: vec!["127.0.0.1".to_owned(), "LocalHost".to_owned()],
        allow_private_addresses,
        connect_timeout_seconds: 60,
        request_timeout_seconds,
    })
}

/// A test whose source is on this machine.
fn local_test<F, Fut>(test: F)
where
    F: FnOnce(Service, OldHost) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test_with(source(web(true, 60), "*"), |s| async move {
        let host = OldHost::start().await;
        test(s, host).await;
    });
}

/// Imports one URL, which fails; answers why.
async fn refused(s: &Service, at: &str) -> ImportResult {
    let report = s.ada().import("old", false, [url(at)]).await.unwrap();
    let [result] = results(&report).try_into().unwrap();
    assert_eq!(result.outcome(), ImportOutcome::Failed, "{at}: {result:?}");
    assert_eq!(file_count(s).await, 0, "{at}");
    result
}

#[test]
fn a_url_becomes_one_file_that_keeps_no_secret_of_it() {
    local_test(|s, host| async move {
        let ada = s.ada();
        let path = "/pictures/K%C3%A4se%20brot.md?token=hunter2";
        let body = pattern(3 * PART + 5);
        host.has(path, OldAnswer::of(body.clone()).with("content-type", "text/markdown; charset=utf-8"));
        let whole = format!("{}{path}#top", host.url);
        let report = ada.import("old", false, [url(&whole)]).await.unwrap();
        let [result] = results(&report).try_into().unwrap();
        assert_eq!(result.outcome(), ImportOutcome::Imported, "{result:?}");
        assert_eq!((result.url.as_str(), result.object_key.as_str()), (whole.as_str(), ""));
        let file = ada.get(&result.file_id).await.unwrap();
        assert_eq!((file.name.as_str(), file.size_bytes), ("Käse brot.md", body.len() as i64));
        assert_eq!(file.declared_mime_type, "text/markdown; charset=utf-8");
        assert_eq!(ada.read(&file.id).await.unwrap(), body);

        let told = format!(
            "SELECT count(*) FROM imports JOIN audit_entries ON details ->> 'import_source' = source
             WHERE source = 'old:{}/pictures/K%C3%A4se%20brot.md'",
            host.url
        );
        assert_eq!(s.owner.number(&told).await, 1);
        for table in ["imports", "audit_entries", "events", "files", "versions"] {
            let rows = s.owner.texts(&format!("SELECT to_jsonb(t)::text FROM {table} AS t")).await;
            assert!(!rows.is_empty() && rows.iter().all(|row| !row.contains("hunter2")), "{table}");
        }

        let again = ada.import("old", true, [url(&format!("{}{path}", host.url))]).await.unwrap();
        assert_eq!(results(&again)[0].file_id, file.id, "a fragment leads nowhere else");
        let again = ada.import("old", false, [url(&whole)]).await.unwrap();
        assert_eq!(summary(&again).already_imported_count, 1);
        assert_eq!((host.asked().len(), file_count(&s).await), (1, 1));
        let lookup = FindImportedFilesRequest {
            source: "old".to_owned(),
            urls: vec![whole.clone(), whole.replace("hunter2", "guess")],
            ..FindImportedFilesRequest::default()
        };
        let [found] = ada.find_imported(lookup).await.unwrap().files.try_into().unwrap();
        assert_eq!((found.file_id, found.key), (file.id.clone(), whole.clone()));
        let other = path.replace("hunter2", "swordfish");
        host.has(&other, OldAnswer::of("other"));
        let spec = UploadSpec { name: "o".into(), mime_type: "text/csv".into(), ..UploadSpec::default() };
        let item = ImportItem { spec: Some(spec), ..url(&format!("{}{other}", host.url)) };
        let other = results(&ada.import("old", false, [item]).await.unwrap());
        let other = ada.get(&other[0].file_id).await.unwrap();
        assert_eq!((other.name.as_str(), other.declared_mime_type.as_str()), ("o", "text/csv"));
    });
}

#[test]
fn nothing_is_fetched_from_the_network_behind_the_service() {
    service_test_with(source(web(false, 60), "*"), |s| async move {
        let host = OldHost::start().await;
        host.has("/a", OldAnswer::of("secret"));
        let at = format!("{}/a", host.url);
        let secure = at.replace("http:", "https:");
        for inside in [
            at.clone(),
            secure.clone(),
            at.replace("127.0.0.1", "localhost"),
            secure.replace("127.0.0.1", "2130706433"),
            secure.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        ] {
            let result = refused(&s, &inside).await;
            assert_eq!(result.reason(), ErrorReason::InvalidField, "{inside}: {}", result.message);
            assert!(result.message.contains("item.url"), "{}", result.message);
        }
        // A name that leads inside is found out when it is looked up.
        let result = refused(&s, &secure.replace("127.0.0.1", "localhost")).await;
        assert!(result.message.contains("private network"), "{}", result.message);
        assert!(host.asked().is_empty());
    });
}

#[test]
fn only_the_hosts_that_the_source_names_are_asked() {
    local_test(|s, host| async move {
        host.has("/a", OldAnswer::of("a"));
        for other in ["http://127.0.0.2:1/a", "https://files.example.org/a", "http://localhost.example.org/"]
        {
            let result = refused(&s, other).await;
            assert_eq!(result.reason(), ErrorReason::InvalidField, "{other}");
            assert!(result.message.contains("one of the hosts"), "{}", result.message);
        }
        let with_user = host.url.replace("http://", "http://alice:secret@");
        for wrong in [with_user.as_str(), "/a", "ftp://127.0.0.1/a", ""] {
            assert_eq!(refused(&s, wrong).await.reason(), ErrorReason::InvalidField, "{wrong}");
        }
        assert!(host.asked().is_empty());
        let ada = s.ada();
        let wrong = ada.import("old", false, [key("a"), prefix("")]).await.unwrap();
        assert_eq!(summary(&wrong), ImportSummary { failed_count: 2, ..ImportSummary::default() });
        let named = url(&format!("{}/a", host.url.replace("127.0.0.1", "LOCALHOST")));
        assert_eq!(summary(&ada.import("old", false, [named]).await.unwrap()).imported_count, 1);
    });
}

#[test]
fn a_redirect_is_not_followed_and_every_other_status_is_told() {
    local_test(|s, host| async move {
        let inside = OldHost::start().await;
        inside.has("/secret", OldAnswer::of("secret"));
        let at = format!("{}/a", host.url);
        for (status, reason, words) in [
            ("307 Temporary Redirect", ErrorReason::ImportRefused, "redirects are not followed"),
            ("404 Not Found", ErrorReason::NotFound, "404"),
            ("410 Gone", ErrorReason::NotFound, "410"),
            ("403 Forbidden", ErrorReason::ImportRefused, "403"),
            ("500 Internal Server Error", ErrorReason::StorageUnavailable, "500"),
            ("204 No Content", ErrorReason::ImportRefused, "204"),
            ("206 Partial Content", ErrorReason::ImportRefused, "206"),
        ] {
            host.has("/a", OldAnswer::status(status).with("location", format!("{}/secret", inside.url)));
            let result = refused(&s, &at).await;
            assert_eq!(result.reason(), reason, "{status}");
            assert!(result.message.contains(words), "{}", result.message);
            let dry = s.ada().import("old", true, [url(&at)]).await.unwrap();
            assert_eq!(results(&dry)[0].message, result.message, "a dry run tells the same");
        }
        assert!(inside.asked().is_empty());
    });
}

#[test]
fn an_answer_that_is_not_the_whole_file_makes_none() {
    local_test(|s, host| async move {
        let at = format!("{}/a", host.url);
        let half = pattern(2 * PART + 1);
        let chunk = [format!("{:x}\r\n", half.len()).as_bytes(), &half, b"\r\n"].concat();
        for (what, answer) in [
            ("a length", OldAnswer::of(half.clone()).with("content-length", 3 * PART)),
            ("of a small file", OldAnswer::of("half").with("content-length", 8)),
            ("chunks", OldAnswer::raw("200 OK", chunk.clone()).with("transfer-encoding", "chunked")),
            ("neither", OldAnswer::raw("200 OK", half.clone())),
            ("the connection", OldAnswer::raw("200 OK", half.clone()).with("transfer-encoding", "identity")),
            ("another encoding", OldAnswer::of(half.clone()).with("content-encoding", "gzip")),
        ] {
            host.has("/a", answer);
            let result = refused(&s, &at).await;
            let refused = [ErrorReason::StorageUnavailable, ErrorReason::ImportRefused];
            assert!(refused.contains(&result.reason()), "{what}: {result:?}");
            assert!(!result.message.contains("object store"), "{what}: {}", result.message);
        }
        let whole = [&chunk[..], b"0\r\n\r\n"].concat();
        host.has("/a", OldAnswer::raw("200 OK", whole).with("transfer-encoding", "chunked"));
        let report = s.ada().import("old", false, [url(&at)]).await.unwrap();
        let imported = results(&report);
        assert_eq!(imported[0].outcome(), ImportOutcome::Imported, "what failed can be run again");
        assert_eq!(s.ada().read(&imported[0].file_id).await.unwrap(), half);
    });
}

#[test]
fn what_is_too_large_is_refused_by_its_length_or_as_it_comes() {
    local_test(|s, host| async move {
        s.ada().limit_bytes(PART as i64).await;
        let large = pattern(3 * PART);
        let chunk = [format!("{:x}\r\n", large.len()).as_bytes(), &large, b"\r\n0\r\n\r\n"].concat();
        host.has("/told", OldAnswer::of(large.clone()));
        host.has("/untold", OldAnswer::raw("200 OK", chunk).with("transfer-encoding", "chunked"));
        for path in ["/told", "/untold"] {
            let result = refused(&s, &format!("{}{path}", host.url)).await;
            assert_eq!(result.reason(), ErrorReason::QuotaBytesExceeded, "{path}: {}", result.message);
        }
        let size = UploadSpec { size_bytes: Some(4), ..UploadSpec::default() };
        host.has("/small", OldAnswer::of("small"));
        let item = ImportItem { spec: Some(size), ..url(&format!("{}/small", host.url)) };
        let report = s.ada().import("old", true, [item.clone()]).await.unwrap();
        assert_eq!(results(&report)[0].reason(), ErrorReason::SizeMismatch);
        let report = s.ada().import("old", false, [item]).await.unwrap();
        assert_eq!(results(&report)[0].reason(), ErrorReason::SizeMismatch);
        assert_eq!(file_count(&s).await, 0);
    });
}

#[test]
fn a_host_that_falls_silent_is_given_up() {
    service_test_with(source(web(true, 1), "*"), |s| async move {
        let host = OldHost::start().await;
        host.has("/never", OldAnswer::silence());
        let half = OldAnswer::of(pattern(2 * PART + 1)).with("content-length", 3 * PART);
        host.has("/half", half.and_silence());
        for path in ["/never", "/half"] {
            let result = refused(&s, &format!("{}{path}", host.url)).await;
            assert_eq!(result.reason(), ErrorReason::StorageUnavailable, "{path}: {}", result.message);
        }
    });
}
