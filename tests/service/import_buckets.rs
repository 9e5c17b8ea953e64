//! Objects in a bucket: a store that answers what the test says. `tests/storage/import_source.rs` reads a real one.

use strongroom::{
    config::{
        import_source::{BucketSource, SourceLocation},
        provider::S3Config,
    },
    proto::v1::{ErrorReason, ImportOutcome, ImportResult, import_files_response::Message as Answer},
};

use crate::{
    harness::{OldAnswer, OldHost, PART, Service, pattern, results, service_test_with, summary},
    import::{file_count, key, prefix, source},
};

/// A test with a store of its own, of which the source may read what begins with "users/".
fn bucket_test<F, Fut>(test: F)
where
    F: FnOnce(Service, OldHost) -> Fut,
    Fut: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let host = runtime.block_on(OldHost::start());
    let mut s3 = S3Config::defaults().unwrap();
    s3.endpoint = Some(host.url.parse().unwrap());
    s3.allow_http = true;
    s3.bucket = "old".to_owned();
    s3.access_key_id = Some("id".to_owned());
    s3.secret_access_key = Some("secret".into());
    let place = SourceLocation::Bucket(Box::new(BucketSource { prefix: "users/".to_owned(), s3 }));
    service_test_with(
        |config| {
            config.storage.retry_attempts_max = 1;
            source(place, "*")(config);
        },
        |s| test(s, host),
    );
}

/// Where a page is asked for.
fn page_at(prefix: &str, after: Option<&str>) -> String {
    let after = after.map(|after| format!("&start-after={after}")).unwrap_or_default();
    format!("/old/?list-type=2&encoding-type=url&prefix={prefix}&max-keys=1000{after}")
}

/// A page of these keys, each with its size.
fn page(is_truncated: bool, keys: &[(&str, usize)]) -> OldAnswer {
    let object = |(key, size): &(&str, usize)| {
        format!(
            "<Contents><Key>{key}</Key><Size>{size}</Size>\
             <LastModified>2020-01-02T03:04:05.000Z</LastModified></Contents>"
        )
    };
    let contents: String = keys.iter().map(object).collect();
    OldAnswer::of(format!(
        "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{is_truncated}</IsTruncated>{contents}\
         </ListBucketResult>"
    ))
}

fn denied() -> OldAnswer {
    let body = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    OldAnswer::raw("403 Forbidden", body).with("content-length", body.len())
}

#[test]
fn a_listing_that_breaks_off_is_told_and_gone_on_with_by_the_next_run() {
    bucket_test(|s, host| async move {
        let ada = s.ada();
        host.has(
            &page_at("users%2F", None),
            page(true, &[("users/1%20a.txt", 1), ("users/2", 2 * PART + 1)]),
        );
        host.has(&page_at("users%2F", Some("users%2F2")), denied());
        host.has("/old/users/1%20a.txt", OldAnswer::of("a").with("content-type", "text/csv"));
        host.has("/old/users/2", OldAnswer::of(pattern(2 * PART + 1)));
        let report = ada.import("old", false, [prefix("")]).await.unwrap();
        let found = results(&report);
        let keys: Vec<&str> = found.iter().map(|result| result.object_key.as_str()).collect();
        assert_eq!(keys, ["users/1 a.txt", "users/2"], "{report:?}");
        let Answer::PrefixEnd(end) = &report[2] else { panic!("{report:?}") };
        assert_eq!((end.reason(), end.object_count), (ErrorReason::StorageUnavailable, 2));
        assert_eq!((summary(&report).imported_count, summary(&report).failed_count), (2, 1));
        let first = ada.get(&found[0].file_id).await.unwrap();
        assert_eq!((first.name.as_str(), first.declared_mime_type.as_str()), ("1 a.txt", "text/csv"));
        assert_eq!(ada.read(&found[1].file_id).await.unwrap(), pattern(2 * PART + 1));

        // A folder, as consoles show it, is passed over.
        host.has(&page_at("users%2F", Some("users%2F2")), page(false, &[("users/3/", 0), ("users/3/x", 1)]));
        host.has("/old/users/3/x", OldAnswer::of("x"));
        let report = ada.import("old", false, [prefix("")]).await.unwrap();
        assert_eq!((summary(&report).already_imported_count, summary(&report).imported_count), (2, 1));
        assert_eq!((summary(&report).failed_count, file_count(&s).await), (0, 3));
    });
}

#[test]
fn a_page_that_leads_nowhere_is_no_end() {
    bucket_test(|s, host| async move {
        for page in [
            page(true, &[]),
            page(false, &[("users/2", 1), ("users/1", 1)]),
            OldAnswer::of("<ListBucketResult><IsTruncated>false</IsTruncated><Contents></Contents>"),
        ] {
            host.has(&page_at("users%2Fx", None), page);
            let report = s.ada().import("old", true, [prefix("users/x")]).await.unwrap();
            let Answer::PrefixEnd(end) = &report[0] else { panic!("{report:?}") };
            assert_eq!((end.reason(), end.object_count), (ErrorReason::StorageUnavailable, 0));
        }
        let outside = s.ada().import("old", true, [prefix("other/")]).await.unwrap();
        assert!(matches!(&outside[0], Answer::PrefixEnd(end) if end.object_count == 0 && end.reason == 0));
    });
}

#[test]
fn what_is_none_of_the_source_is_not_even_asked_for() {
    bucket_test(|s, host| async move {
        let ours = "users/0193a7a0-0000-7000-8000-0000000000aa/avatar/2026/01/02/0193a7a0-0000-7000-8000-0000000000ab";
        let items = ["other/1", "users/../other/1", "users/./1", "users", "", ours].map(key);
        let report = s.ada().import("old", false, items).await.unwrap();
        let reasons: Vec<_> = results(&report).iter().map(ImportResult::reason).collect();
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
        assert!(host.asked().is_empty(), "{:?}", host.asked());
    });
}

#[test]
fn an_object_that_is_not_there_or_breaks_off_makes_no_file() {
    bucket_test(|s, host| async move {
        let half = pattern(2 * PART + 1);
        host.has("/old/users/half", OldAnswer::of(half).with("content-length", 3 * PART));
        host.has("/old/users/closed", denied());
        let report =
            s.ada().import("old", false, ["users/half", "users/gone", "users/closed"].map(key)).await;
        let report = report.unwrap();
        let told = results(&report);
        assert!(told.iter().all(|result| result.outcome() == ImportOutcome::Failed), "{told:?}");
        let reasons: Vec<_> = told.iter().map(ImportResult::reason).collect();
        let away = ErrorReason::StorageUnavailable;
        assert_eq!(reasons, [away, ErrorReason::NotFound, away]);
        assert_eq!(file_count(&s).await, 0);
    });
}
