//! Limits of resources that uploads hold outside the quota: open uploads, versions, leases and staged bytes.

use chrono::Duration;
use futures::future::join_all;
use strongroom::{
    app::uploads::expire::expire_uploads,
    config::Config,
    proto::v1::{CompletedPart, CreateUploadRequest, UploadSpec},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    Caller, PART, direct_test, file_id, pattern, reason, service_test, service_test_in, service_test_with,
    spec,
};

fn sized(name: &str, size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec(name) }
}

/// Asserts that a limit refused the request, that QuotaFailure names `subject`, and that a retry does not help.
fn assert_limit(error: &Status, expected: &str, subject: &str) {
    assert_eq!((error.code(), reason(error).as_str()), (Code::ResourceExhausted, expected));
    let details = error.get_error_details();
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, subject);
    assert!(details.retry_info().is_none(), "{error:?}");
}

/// Creates uploads concurrently, every second one direct. Returns the number of created ones and the errors.
async fn create_concurrently(caller: &Caller, count: usize) -> (usize, Vec<Status>) {
    let created = (0..count).map(|n| async move {
        let request = CreateUploadRequest { spec: Some(sized("a", 0)), direct: n % 2 == 0 };
        caller.uploads.clone().create_upload(request).await
    });
    let (created, refused): (Vec<_>, Vec<_>) = join_all(created).await.into_iter().partition(Result::is_ok);
    (created.len(), refused.into_iter().map(Result::unwrap_err).collect())
}

#[test]
fn open_uploads_are_limited_per_caller_and_tenant() {
    let arrange = |setup: &mut crate::harness::Setup| {
        setup.has_urls = true;
        setup.config.uploads.open_per_caller_max = 4;
        setup.config.uploads.open_per_tenant_max = 6;
    };
    service_test_in(None, arrange, |s| async move {
        let (created, refused) = create_concurrently(&s.alice(), 12).await;
        assert_eq!((created, refused.len()), (4, 8));
        for error in &refused {
            assert_limit(error, "OPEN_UPLOADS_EXCEEDED", "caller");
        }
        let (created, refused) = create_concurrently(&s.bob(), 12).await;
        assert_eq!((created, refused.len()), (2, 10));
        for error in &refused {
            assert_limit(error, "OPEN_UPLOADS_EXCEEDED", "tenant");
        }
        let open = s.alice().list_upload_ids(10).await;
        assert_eq!(open.len(), 4);
        s.alice().cancel_upload(&open[0]).await.unwrap();
        s.bob().create_upload(sized("b", 0)).await.unwrap();
        s.gus().create_upload(sized("c", 0)).await.unwrap();
        for caller in [s.ada(), s.gus()] {
            for id in caller.list_upload_ids(10).await {
                caller.cancel_upload(&id).await.unwrap();
            }
        }
    });
}

#[test]
fn versions_of_a_file_are_limited_also_empty_ones() {
    let configure = |config: &mut Config| config.uploads.versions_per_file_max = 5;
    service_test_with(configure, |s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"").await.unwrap());
        alice.upload_version(&id, b"").await.unwrap();
        let versions = (0..12).map(|_| alice.upload_version(&id, b""));
        let (stored, refused): (Vec<_>, Vec<_>) =
            join_all(versions).await.into_iter().partition(Result::is_ok);
        assert_eq!((stored.len(), refused.len()), (3, 9));
        for error in refused {
            assert_limit(&error.unwrap_err(), "FILE_VERSIONS_EXCEEDED", "file");
        }
        let created = UploadSpec { file_id: id.clone(), ..UploadSpec::default() };
        assert_limit(&alice.create_upload(created).await.unwrap_err(), "FILE_VERSIONS_EXCEEDED", "file");
        assert_limit(&alice.restore_version(&id, 1).await.unwrap_err(), "FILE_VERSIONS_EXCEEDED", "file");
        assert_eq!(alice.list_versions(&id, 10).await.unwrap().len(), 5);
        alice.delete_version(&id, 1).await.unwrap();
        alice.restore_version(&id, 2).await.unwrap();
    });
}

#[test]
fn failing_completion_does_not_renew_the_lease() {
    direct_test(|s| async move {
        let single = s.alice().create_direct_upload(sized("a", 1_000)).await.unwrap();
        let parts = s.alice().create_direct_upload(sized("b", 2 * PART + 7)).await.unwrap();
        let etag = s.put_part(&parts.parts[0], &pattern(PART)).await.unwrap();
        let sent = [CompletedPart { number: 1, etag }];
        let expire_time =
            async |id: &str| s.alice().get_upload(id).await.unwrap().expire_time.unwrap().seconds;
        let (single_end, parts_end) = (expire_time(&single.id).await, expire_time(&parts.id).await);
        s.clock.advance(Duration::hours(20));
        s.put_part(&single.parts[0], b"short").await.unwrap();
        for _ in 0..2 {
            s.alice().complete_direct_upload(&single.id, &[]).await.unwrap_err();
            s.alice().complete_direct_upload(&parts.id, &sent).await.unwrap_err();
        }
        assert_eq!(expire_time(&single.id).await, single_end);
        let renewed_end = expire_time(&parts.id).await;
        assert_eq!(renewed_end, parts_end + 20 * 3600, "a new part is progress");
        s.clock.advance(Duration::hours(20));
        s.alice().complete_direct_upload(&parts.id, &sent).await.unwrap_err();
        assert_eq!(expire_time(&parts.id).await, renewed_end, "the same part is no progress");
        s.clock.advance(Duration::hours(5));
        expire_uploads(&s.app).await.unwrap();
        assert_eq!(s.alice().get_upload(&parts.id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 0);
    });
}

#[test]
fn resent_bytes_do_not_renew_the_lease() {
    service_test(|s| async move {
        let data = pattern(2 * PART);
        let upload = s.alice().create_upload(sized("a", data.len())).await.unwrap();
        s.alice().resume_upload(&upload.id, &data[..PART], 0, false).await.unwrap_err();
        let end = s.alice().get_upload(&upload.id).await.unwrap().expire_time;
        s.clock.advance(Duration::hours(20));
        s.alice().resume_upload(&upload.id, &data[..PART + 5], 0, false).await.unwrap_err();
        s.alice().upload_part(&upload.id, 0, &data[..PART]).await.unwrap();
        s.alice().complete_upload(&upload.id, data.len()).await.unwrap_err();
        assert_eq!(s.alice().get_upload(&upload.id).await.unwrap().expire_time, end);
        s.alice().upload_part(&upload.id, PART, &data[PART..]).await.unwrap();
        let renewed = s.alice().get_upload(&upload.id).await.unwrap().expire_time.unwrap();
        assert_eq!(renewed.seconds, end.unwrap().seconds + 20 * 3600);
        s.alice().complete_upload(&upload.id, data.len()).await.unwrap();
    });
}

#[test]
fn upload_with_an_oversized_part_is_abandoned() {
    direct_test(|s| async move {
        let direct = s.alice().create_direct_upload(sized("a", PART + 7)).await.unwrap();
        let mut sent = s.put_parts(&direct, &pattern(PART + 7)).await;
        sent[1].etag = s.put_part(&direct.parts[1], &pattern(100)).await.unwrap();
        let error = s.alice().complete_direct_upload(&direct.id, &sent).await.unwrap_err();
        assert_eq!(reason(&error), "SIZE_MISMATCH");
        assert!(error.message().contains("create a new one"), "{error:?}");
        assert_eq!(s.store.list_multiparts("", None, 10).await.unwrap().multiparts.len(), 0);
        assert_eq!(s.alice().get_upload(&direct.id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(s.alice().quota().await.unwrap().reserved_bytes, 0);
    });
}
