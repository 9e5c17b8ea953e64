//! Imports from a bucket. A fake S3 endpoint returns the responses that the test configures;
//! `tests/storage/import_source.rs` reads a real bucket.

use strongroom::{
    config::{
        import_source::{BucketSource, SourceLocation},
        provider::S3Config,
    },
    proto::v1::{ErrorReason, ImportOutcome, ImportResult, import_files_response::Message},
};

use crate::{
    harness::{
        LegacyHost, LegacyResponse, PART, Service, import_results, import_summary, pattern, service_test_with,
    },
    import::{file_count, key, prefix, source_config},
};

/// Runs a test with a fake bucket, from which the source may read keys that start with `users/`.
fn bucket_test<F, Fut>(test: F)
where
    F: FnOnce(Service, LegacyHost) -> Fut,
    Fut: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let host = runtime.block_on(LegacyHost::start());
    let mut s3 = S3Config::defaults().unwrap();
    s3.endpoint = Some(host.url.parse().unwrap());
    s3.allow_http = true;
    s3.bucket = "old".to_owned();
    s3.access_key_id = Some("id".to_owned());
    s3.secret_access_key = Some("secret".into());
    let location = SourceLocation::Bucket(Box::new(BucketSource { prefix: "users/".to_owned(), s3 }));
    service_test_with(
        |config| {
            config.storage.retry_attempts_max = 1;
            source_config(location, "*")(config);
        },
        |s| test(s, host),
    );
}

/// Returns the path and query of a request for a page.
fn listing_path(prefix: &str, after: Option<&str>) -> String {
    let after = after.map(|after| format!("&start-after={after}")).unwrap_or_default();
    format!("/old/?list-type=2&encoding-type=url&prefix={prefix}&max-keys=1000{after}")
}

/// Returns a page of a listing with the given keys and sizes.
fn listing_page(is_truncated: bool, keys: &[(&str, usize)]) -> LegacyResponse {
    let object = |(key, size): &(&str, usize)| {
        format!(
            "<Contents><Key>{key}</Key><Size>{size}</Size>\
             <LastModified>2020-01-02T03:04:05.000Z</LastModified></Contents>"
        )
    };
    let contents: String = keys.iter().map(object).collect();
    LegacyResponse::with_body(format!(
        "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{is_truncated}</IsTruncated>{contents}\
         </ListBucketResult>"
    ))
}

fn access_denied() -> LegacyResponse {
    let body = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    LegacyResponse::without_headers("403 Forbidden", body).with_header("content-length", body.len())
}

#[test]
fn next_run_resumes_after_failed_listing() {
    bucket_test(|s, host| async move {
        let ada = s.ada();
        host.set_response(
            &listing_path("users%2F", None),
            listing_page(true, &[("users/1%20a.txt", 1), ("users/2", 2 * PART + 1)]),
        );
        host.set_response(&listing_path("users%2F", Some("users%2F2")), access_denied());
        host.set_response(
            "/old/users/1%20a.txt",
            LegacyResponse::with_body("a").with_header("content-type", "text/csv"),
        );
        host.set_response("/old/users/2", LegacyResponse::with_body(pattern(2 * PART + 1)));
        let report = ada.import_files("old", false, [prefix("")]).await.unwrap();
        let found = import_results(&report);
        let keys: Vec<&str> = found.iter().map(|result| result.object_key.as_str()).collect();
        assert_eq!(keys, ["users/1 a.txt", "users/2"], "{report:?}");
        let Message::PrefixEnd(end) = &report[2] else { panic!("{report:?}") };
        assert_eq!((end.reason(), end.object_count), (ErrorReason::StorageUnavailable, 2));
        assert_eq!((import_summary(&report).imported_count, import_summary(&report).failed_count), (2, 1));
        let first = ada.get(&found[0].file_id).await.unwrap();
        assert_eq!((first.name.as_str(), first.declared_mime_type.as_str()), ("1 a.txt", "text/csv"));
        assert_eq!(ada.read(&found[1].file_id).await.unwrap(), pattern(2 * PART + 1));

        // An empty object whose key ends in a slash is a folder marker of S3 consoles; it is skipped.
        host.set_response(
            &listing_path("users%2F", Some("users%2F2")),
            listing_page(false, &[("users/3/", 0), ("users/3/x", 1)]),
        );
        host.set_response("/old/users/3/x", LegacyResponse::with_body("x"));
        let report = ada.import_files("old", false, [prefix("")]).await.unwrap();
        assert_eq!(
            (import_summary(&report).already_imported_count, import_summary(&report).imported_count),
            (2, 1)
        );
        assert_eq!((import_summary(&report).failed_count, file_count(&s).await), (0, 3));
    });
}

#[test]
fn malformed_listing_page_is_an_error() {
    bucket_test(|s, host| async move {
        for page in [
            listing_page(true, &[]),
            listing_page(false, &[("users/2", 1), ("users/1", 1)]),
            LegacyResponse::with_body(
                "<ListBucketResult><IsTruncated>false</IsTruncated><Contents></Contents>",
            ),
        ] {
            host.set_response(&listing_path("users%2Fx", None), page);
            let report = s.ada().import_files("old", true, [prefix("users/x")]).await.unwrap();
            let Message::PrefixEnd(end) = &report[0] else { panic!("{report:?}") };
            assert_eq!((end.reason(), end.object_count), (ErrorReason::StorageUnavailable, 0));
        }
        let outside = s.ada().import_files("old", true, [prefix("other/")]).await.unwrap();
        assert!(matches!(&outside[0], Message::PrefixEnd(end) if end.object_count == 0 && end.reason == 0));
    });
}

#[test]
fn keys_outside_source_are_not_requested() {
    bucket_test(|s, host| async move {
        let ours = "users/0193a7a0-0000-7000-8000-0000000000aa/avatar/2026/01/02/0193a7a0-0000-7000-8000-0000000000ab";
        let items = ["other/1", "users/../other/1", "users/./1", "users", "", ours].map(key);
        let report = s.ada().import_files("old", false, items).await.unwrap();
        let reasons: Vec<_> = import_results(&report).iter().map(ImportResult::reason).collect();
        assert_eq!(
            reasons,
            [
                ErrorReason::NotFound,
                ErrorReason::InvalidField,
                ErrorReason::InvalidField,
                ErrorReason::NotFound,
                ErrorReason::NotFound,
                ErrorReason::NotAllowed,
            ]
        );
        assert!(host.requested_paths().is_empty(), "{:?}", host.requested_paths());
    });
}

#[test]
fn missing_or_truncated_object_creates_no_file() {
    bucket_test(|s, host| async move {
        let half = pattern(2 * PART + 1);
        host.set_response(
            "/old/users/half",
            LegacyResponse::with_body(half).with_header("content-length", 3 * PART),
        );
        host.set_response("/old/users/closed", access_denied());
        let report =
            s.ada().import_files("old", false, ["users/half", "users/gone", "users/closed"].map(key)).await;
        let report = report.unwrap();
        let failed = import_results(&report);
        assert!(failed.iter().all(|result| result.outcome() == ImportOutcome::Failed), "{failed:?}");
        let reasons: Vec<_> = failed.iter().map(ImportResult::reason).collect();
        let unavailable = ErrorReason::StorageUnavailable;
        assert_eq!(reasons, [unavailable, ErrorReason::NotFound, unavailable]);
        assert_eq!(file_count(&s).await, 0);
    });
}
