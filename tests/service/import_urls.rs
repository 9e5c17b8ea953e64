//! Imports from URLs: incomplete responses create no file, hosts outside the source and private addresses are
//! refused, and query strings are not stored.

use strongroom::{
    config::import_source::{SourceLocation, WebSource},
    proto::v1::{
        ErrorReason, FindImportedFilesRequest, ImportItem, ImportOutcome, ImportResult, ImportSummary,
        UploadSpec,
    },
};

use crate::{
    harness::{
        LegacyHost, LegacyResponse, PART, Service, import_results, import_summary, pattern, service_test_with,
    },
    import::{file_count, key, prefix, source_config, url},
};

fn web(allow_private_addresses: bool, request_timeout_seconds: u64) -> SourceLocation {
    SourceLocation::Web(WebSource {
        hosts: vec!["127.0.0.1".to_owned(), "LocalHost".to_owned()],
        allow_private_addresses,
        connect_timeout_seconds: 60,
        request_timeout_seconds,
    })
}

/// Runs a test whose source may read from private addresses.
fn local_test<F, Fut>(test: F)
where
    F: FnOnce(Service, LegacyHost) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test_with(source_config(web(true, 60), "*"), |s| async move {
        let host = LegacyHost::start().await;
        test(s, host).await;
    });
}

/// Imports one URL, asserts that it fails, and returns the result.
async fn assert_import_fails(s: &Service, file_url: &str) -> ImportResult {
    let report = s.ada().import_files("old", false, [url(file_url)]).await.unwrap();
    let [result] = import_results(&report).try_into().unwrap();
    assert_eq!(result.outcome(), ImportOutcome::Failed, "{file_url}: {result:?}");
    assert_eq!(file_count(s).await, 0, "{file_url}");
    result
}

#[test]
fn url_without_file_name_is_refused() {
    local_test(|s, host| async move {
        host.set_response("/folder/", LegacyResponse::with_body(b"x".to_vec()));
        let result = assert_import_fails(&s, &format!("{}/folder/", host.url)).await;
        assert_eq!(result.reason(), ErrorReason::InvalidField);
        assert!(result.message.contains("item.url"), "{}", result.message);
    });
}

#[test]
fn imported_url_does_not_store_its_query() {
    local_test(|s, host| async move {
        let ada = s.ada();
        let path = "/pictures/K%C3%A4se%20brot.md?token=hunter2";
        let body = pattern(3 * PART + 5);
        host.set_response(
            path,
            LegacyResponse::with_body(body.clone())
                .with_header("content-type", "text/markdown; charset=utf-8"),
        );
        let full_url = format!("{}{path}#top", host.url);
        let report = ada.import_files("old", false, [url(&full_url)]).await.unwrap();
        let [result] = import_results(&report).try_into().unwrap();
        assert_eq!(result.outcome(), ImportOutcome::Imported, "{result:?}");
        assert_eq!((result.url.as_str(), result.object_key.as_str()), (full_url.as_str(), ""));
        let file = ada.get(&result.file_id).await.unwrap();
        assert_eq!((file.name.as_str(), file.size_bytes), ("Käse brot.md", body.len() as i64));
        assert_eq!(file.declared_mime_type, "text/markdown; charset=utf-8");
        assert_eq!(ada.read(&file.id).await.unwrap(), body);

        let audited_imports = format!(
            "SELECT count(*) FROM imports JOIN audit_entries ON details ->> 'import_source' = source
             WHERE source = 'old:{}/pictures/K%C3%A4se%20brot.md'",
            host.url
        );
        assert_eq!(s.superuser.query_number(&audited_imports).await, 1);
        for table in ["imports", "audit_entries", "events", "files", "versions"] {
            let rows = s.superuser.query_texts(&format!("SELECT to_jsonb(t)::text FROM {table} AS t")).await;
            assert!(!rows.is_empty() && rows.iter().all(|row| !row.contains("hunter2")), "{table}");
        }

        let again = ada.import_files("old", true, [url(&format!("{}{path}", host.url))]).await.unwrap();
        assert_eq!(import_results(&again)[0].file_id, file.id, "the fragment is ignored");
        let again = ada.import_files("old", false, [url(&full_url)]).await.unwrap();
        assert_eq!(import_summary(&again).already_imported_count, 1);
        assert_eq!((host.requested_paths().len(), file_count(&s).await), (1, 1));
        let lookup = FindImportedFilesRequest {
            source: "old".to_owned(),
            urls: vec![full_url.clone(), full_url.replace("hunter2", "guess")],
            ..FindImportedFilesRequest::default()
        };
        let [found] = ada.find_imported_files(lookup).await.unwrap().files.try_into().unwrap();
        assert_eq!((found.file_id, found.key), (file.id.clone(), full_url.clone()));
        let other = path.replace("hunter2", "swordfish");
        host.set_response(&other, LegacyResponse::with_body("other"));
        let spec = UploadSpec { name: "o".into(), mime_type: "text/csv".into(), ..UploadSpec::default() };
        let item = ImportItem { spec: Some(spec), ..url(&format!("{}{other}", host.url)) };
        let other = import_results(&ada.import_files("old", false, [item]).await.unwrap());
        let other = ada.get(&other[0].file_id).await.unwrap();
        assert_eq!((other.name.as_str(), other.declared_mime_type.as_str()), ("o", "text/csv"));
    });
}

#[test]
fn private_addresses_are_not_fetched() {
    service_test_with(source_config(web(false, 60), "*"), |s| async move {
        let host = LegacyHost::start().await;
        host.set_response("/a", LegacyResponse::with_body("secret"));
        let file_url = format!("{}/a", host.url);
        let secure = file_url.replace("http:", "https:");
        for private_url in [
            file_url.clone(),
            secure.clone(),
            file_url.replace("127.0.0.1", "localhost"),
            secure.replace("127.0.0.1", "2130706433"),
            secure.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        ] {
            let result = assert_import_fails(&s, &private_url).await;
            assert_eq!(result.reason(), ErrorReason::InvalidField, "{private_url}: {}", result.message);
            assert!(result.message.contains("item.url"), "{}", result.message);
        }
        // A host name that resolves to a private address is refused after the lookup.
        let result = assert_import_fails(&s, &secure.replace("127.0.0.1", "localhost")).await;
        assert!(result.message.contains("private network"), "{}", result.message);
        assert!(host.requested_paths().is_empty());
    });
}

#[test]
fn only_hosts_of_source_are_fetched() {
    local_test(|s, host| async move {
        host.set_response("/a", LegacyResponse::with_body("a"));
        for other in ["http://127.0.0.2:1/a", "https://files.example.org/a", "http://localhost.example.org/"]
        {
            let result = assert_import_fails(&s, other).await;
            assert_eq!(result.reason(), ErrorReason::InvalidField, "{other}");
            assert!(result.message.contains("one of the hosts"), "{}", result.message);
        }
        let with_user = host.url.replace("http://", "http://alice:secret@");
        for wrong in [with_user.as_str(), "/a", "ftp://127.0.0.1/a", ""] {
            assert_eq!(assert_import_fails(&s, wrong).await.reason(), ErrorReason::InvalidField, "{wrong}");
        }
        assert!(host.requested_paths().is_empty());
        let ada = s.ada();
        let wrong = ada.import_files("old", false, [key("a"), prefix("")]).await.unwrap();
        assert_eq!(import_summary(&wrong), ImportSummary { failed_count: 2, ..ImportSummary::default() });
        let named = url(&format!("{}/a", host.url.replace("127.0.0.1", "LOCALHOST")));
        assert_eq!(import_summary(&ada.import_files("old", false, [named]).await.unwrap()).imported_count, 1);
    });
}

#[test]
fn redirects_are_refused_and_other_statuses_reported() {
    local_test(|s, host| async move {
        let other_host = LegacyHost::start().await;
        other_host.set_response("/secret", LegacyResponse::with_body("secret"));
        let file_url = format!("{}/a", host.url);
        for (status, reason, text) in [
            ("307 Temporary Redirect", ErrorReason::ImportRefused, "redirects are not followed"),
            ("404 Not Found", ErrorReason::NotFound, "404"),
            ("410 Gone", ErrorReason::NotFound, "410"),
            ("403 Forbidden", ErrorReason::ImportRefused, "403"),
            ("500 Internal Server Error", ErrorReason::StorageUnavailable, "500"),
            ("204 No Content", ErrorReason::ImportRefused, "204"),
            ("206 Partial Content", ErrorReason::ImportRefused, "206"),
        ] {
            host.set_response(
                "/a",
                LegacyResponse::with_status(status)
                    .with_header("location", format!("{}/secret", other_host.url)),
            );
            let result = assert_import_fails(&s, &file_url).await;
            assert_eq!(result.reason(), reason, "{status}");
            assert!(result.message.contains(text), "{}", result.message);
            let dry = s.ada().import_files("old", true, [url(&file_url)]).await.unwrap();
            assert_eq!(import_results(&dry)[0].message, result.message, "a dry run reports the same error");
        }
        assert!(other_host.requested_paths().is_empty());
    });
}

#[test]
fn incomplete_response_creates_no_file() {
    local_test(|s, host| async move {
        let file_url = format!("{}/a", host.url);
        let half = pattern(2 * PART + 1);
        let chunk = [format!("{:x}\r\n", half.len()).as_bytes(), &half, b"\r\n"].concat();
        for (case, response) in [
            (
                "short of its content length",
                LegacyResponse::with_body(half.clone()).with_header("content-length", 3 * PART),
            ),
            (
                "short of its content length, small",
                LegacyResponse::with_body("half").with_header("content-length", 8),
            ),
            (
                "chunked, without the last chunk",
                LegacyResponse::without_headers("200 OK", chunk.clone())
                    .with_header("transfer-encoding", "chunked"),
            ),
            ("without any length", LegacyResponse::without_headers("200 OK", half.clone())),
            (
                "identity encoding, without any length",
                LegacyResponse::without_headers("200 OK", half.clone())
                    .with_header("transfer-encoding", "identity"),
            ),
            ("compressed", LegacyResponse::with_body(half.clone()).with_header("content-encoding", "gzip")),
        ] {
            host.set_response("/a", response);
            let result = assert_import_fails(&s, &file_url).await;
            let expected = [ErrorReason::StorageUnavailable, ErrorReason::ImportRefused];
            assert!(expected.contains(&result.reason()), "{case}: {result:?}");
            assert!(!result.message.contains("object store"), "{case}: {}", result.message);
        }
        let whole = [&chunk[..], b"0\r\n\r\n"].concat();
        host.set_response(
            "/a",
            LegacyResponse::without_headers("200 OK", whole).with_header("transfer-encoding", "chunked"),
        );
        let report = s.ada().import_files("old", false, [url(&file_url)]).await.unwrap();
        let imported = import_results(&report);
        assert_eq!(imported[0].outcome(), ImportOutcome::Imported, "a failed import can be retried");
        assert_eq!(s.ada().read(&imported[0].file_id).await.unwrap(), half);
    });
}

#[test]
fn rejects_too_large_body_by_length_or_while_reading() {
    local_test(|s, host| async move {
        s.ada().set_limit_bytes(PART as i64).await;
        let large = pattern(3 * PART);
        let chunk = [format!("{:x}\r\n", large.len()).as_bytes(), &large, b"\r\n0\r\n\r\n"].concat();
        host.set_response("/with-length", LegacyResponse::with_body(large.clone()));
        host.set_response(
            "/without-length",
            LegacyResponse::without_headers("200 OK", chunk).with_header("transfer-encoding", "chunked"),
        );
        for path in ["/with-length", "/without-length"] {
            let result = assert_import_fails(&s, &format!("{}{path}", host.url)).await;
            assert_eq!(result.reason(), ErrorReason::QuotaBytesExceeded, "{path}: {}", result.message);
        }
        let size = UploadSpec { size_bytes: Some(4), ..UploadSpec::default() };
        host.set_response("/small", LegacyResponse::with_body("small"));
        let item = ImportItem { spec: Some(size), ..url(&format!("{}/small", host.url)) };
        let report = s.ada().import_files("old", true, [item.clone()]).await.unwrap();
        assert_eq!(import_results(&report)[0].reason(), ErrorReason::SizeMismatch);
        let report = s.ada().import_files("old", false, [item]).await.unwrap();
        assert_eq!(import_results(&report)[0].reason(), ErrorReason::SizeMismatch);
        assert_eq!(file_count(&s).await, 0);
    });
}

#[test]
fn silent_host_times_out() {
    service_test_with(source_config(web(true, 1), "*"), |s| async move {
        let host = LegacyHost::start().await;
        host.set_response("/never", LegacyResponse::stalled());
        let half = LegacyResponse::with_body(pattern(2 * PART + 1)).with_header("content-length", 3 * PART);
        host.set_response("/half", half.then_stall());
        for path in ["/never", "/half"] {
            let result = assert_import_fails(&s, &format!("{}{path}", host.url)).await;
            assert_eq!(result.reason(), ErrorReason::StorageUnavailable, "{path}: {}", result.message);
        }
    });
}
