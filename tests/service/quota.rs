//! Quotas: limits under concurrency, their errors, ceilings set by operators, and the usage report.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures::future::join_all;
use strongroom::proto::v1::{
    DeleteFileRequest, GetQuotaRequest, MediaKind, PurgeFileRequest, Quota, QuotaLevel, QuotaState,
    UndeleteFileRequest, UpdateQuotaRequest, UploadSpec, WarningCode,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{PART, Service, file_id, reason, service_test, spec, violated_fields},
    upload::pattern,
};

/// Uploads files concurrently while another connection asserts that the quota is never exceeded. Returns the
/// number of stored files.
async fn upload_concurrently(s: &Service, uploads: usize, size: usize, file_count_max: usize) -> usize {
    s.ada().set_limit_bytes((file_count_max * size) as i64).await;
    let (is_done, samples) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sampler = tokio::spawn({
        let (superuser, is_done, samples) =
            (s.database.connect_as_superuser().await, is_done.clone(), samples.clone());
        async move {
            while !is_done.load(Ordering::Relaxed) {
                let exceeded = "SELECT count(*) FROM quotas WHERE used_bytes + reserved_bytes > limit_bytes
                    OR (file_count_max > 0 AND file_count + reserved_file_count > file_count_max)";
                assert_eq!(superuser.query_number(exceeded).await, 0, "quota exceeded");
                samples.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let alice = s.alice();
    let data = pattern(size);
    let attempts = (0..uploads).map(|n| {
        // Half of the uploads declare their size.
        let size_bytes = (n % 2 == 0).then_some(size as i64);
        let (alice, data) = (alice.clone(), &data);
        async move { alice.upload(UploadSpec { size_bytes, ..spec(&format!("{n}")) }, data).await }
    });
    let mut stored = 0;
    for outcome in join_all(attempts).await {
        match outcome {
            Ok(_) => stored += 1,
            Err(status) => assert_eq!(reason(&status), "QUOTA_BYTES_EXCEEDED"),
        }
    }
    is_done.store(true, Ordering::Relaxed);
    sampler.await.unwrap();
    assert!(samples.load(Ordering::Relaxed) > 0);
    stored
}

#[test]
fn concurrent_small_uploads_fill_quota_exactly() {
    service_test(|s| async move {
        assert_eq!(upload_concurrently(&s, 200, 1000, 50).await, 50);
        let row = s.quota_row(&s.alice()).await;
        assert_eq!((row.used_bytes, row.reserved_bytes, row.file_count), (50_000, 0, 50));
        let error = s.alice().upload(spec("too much"), b"x").await.unwrap_err();
        assert_eq!(reason(&error), "QUOTA_BYTES_EXCEEDED");
    });
}

#[test]
fn concurrent_large_uploads_release_reservations() {
    service_test(|s| async move {
        let size = 2 * PART + 1;
        // An upload of unknown size can be rejected because of reservations that are released later. So fewer
        // than 15 may succeed now, and the rest fit afterwards.
        let stored = upload_concurrently(&s, 60, size, 15).await;
        assert!((1..=15).contains(&stored), "{stored}");
        s.wait_until("reservations are released", || async {
            s.quota_row(&s.alice()).await.reserved_bytes == 0
        })
        .await;
        for n in stored..15 {
            s.alice().upload(spec(&format!("later {n}")), &pattern(size)).await.unwrap();
        }
        assert_eq!(s.quota_row(&s.alice()).await.used_bytes, 15 * size as i64);
    });
}

#[test]
fn file_count_is_limited() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let quota = Quota { file_count_max: 3, ..Quota::default() };
        ada.update_quota("", quota, &["file_count_max"]).await.unwrap();
        let attempts = (0..20).map(|n| {
            let alice = alice.clone();
            async move {
                alice.upload(spec(&format!("{n}")), &pattern(if n % 2 == 0 { 5 } else { 2 * PART })).await
            }
        });
        let outcomes = join_all(attempts).await;
        for status in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            let actual = (status.code(), reason(status));
            assert_eq!(actual, (Code::ResourceExhausted, "QUOTA_FILES_EXCEEDED".to_owned()));
            let details = status.get_error_details();
            assert!(details.quota_failure().is_some() && details.retry_info().is_none());
        }
        let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!((1..=3).contains(&stored), "{stored}");
        s.wait_until("reservations are released", || async {
            s.quota_row(&alice).await.reserved_file_count == 0
        })
        .await;
        assert_eq!(s.quota_row(&alice).await.file_count, stored as i64);
    });
}

#[test]
fn admin_cannot_exceed_ceiling_set_by_operator() {
    service_test(|s| async move {
        let (ada, operator) = (s.ada(), s.operator());
        let tenant = ada.tenant_id().await;
        let ceiling = ada.quota().await.unwrap().ceiling_bytes;

        let above = Quota { limit_bytes: ceiling + 1, ..Quota::default() };
        let error = ada.update_quota("", above, &["limit_bytes"]).await.unwrap_err();
        assert_eq!(
            (error.code(), violated_fields(&error)),
            (Code::InvalidArgument, vec!["quota.limit_bytes".into()])
        );
        let moved = Quota { ceiling_bytes: ceiling + 1, ..Quota::default() };
        let error = ada.update_quota("", moved.clone(), &["ceiling_bytes"]).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));

        let raised = operator.update_quota(&tenant, moved, &["ceiling_bytes"]).await.unwrap();
        assert_eq!((raised.ceiling_bytes, raised.limit_bytes), (ceiling + 1, ceiling));
        ada.set_limit_bytes(ceiling + 1).await;
        let lowered = Quota { ceiling_bytes: 1000, ..Quota::default() };
        let lowered = operator.update_quota(&tenant, lowered, &["ceiling_bytes"]).await.unwrap();
        assert_eq!((lowered.ceiling_bytes, lowered.limit_bytes), (1000, 1000));
    });
}

#[test]
fn only_admins_change_limits_and_denials_are_audited() {
    service_test(|s| async move {
        // A denied call creates no tenant, and so no audit log.
        s.alice().quota().await.unwrap();
        for caller in [s.alice(), s.maria(), s.billing()] {
            let quota = Quota { limit_bytes: 5, ..Quota::default() };
            let error = caller.update_quota("", quota, &["limit_bytes"]).await.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        }
        let denials = "SELECT DISTINCT details->>'method' FROM audit_entries WHERE NOT is_allowed";
        assert_eq!(s.superuser.query_texts(denials).await, ["/strongroom.v1.QuotaService/UpdateQuota"]);
        s.alice().quota().await.unwrap();
    });
}

#[test]
fn write_responses_contain_quota_state() {
    service_test(|s| async move {
        let ada = s.ada();
        ada.set_limit_bytes(100).await;
        let id = file_id(&ada.upload(spec("a"), &[b'a'; 96]).await.unwrap());
        let request_id = String::new();
        let delete = DeleteFileRequest {
            file_id: id.clone(),
            request_id: request_id.clone(),
            ..DeleteFileRequest::default()
        };
        let undelete = UndeleteFileRequest { file_id: id.clone(), request_id: request_id.clone() };
        let purge = PurgeFileRequest { file_id: id, request_id, ..PurgeFileRequest::default() };
        let mut files = ada.files.clone();
        let full = QuotaState { limit_bytes: 100, used_bytes: 96, level: QuotaLevel::Critical.into() };
        assert_eq!(files.delete_file(delete).await.unwrap().into_inner().quota_state, Some(full));
        assert_eq!(files.undelete_file(undelete).await.unwrap().into_inner().quota_state, Some(full));
        let empty = QuotaState { used_bytes: 0, level: QuotaLevel::Ok.into(), ..full };
        assert_eq!(files.purge_file(purge).await.unwrap().into_inner().quota_state, Some(empty));
    });
}

#[test]
fn rejects_limit_below_usage() {
    service_test(|s| async move {
        let ada = s.ada();
        ada.upload(spec("a"), &[1; 100]).await.unwrap();
        ada.upload(spec("b"), b"").await.unwrap();
        for (quota, path) in [
            (Quota { limit_bytes: 99, ..Quota::default() }, "limit_bytes"),
            (Quota { file_count_max: 1, ..Quota::default() }, "file_count_max"),
        ] {
            let error = ada.update_quota("", quota, &[path]).await.unwrap_err();
            let actual = (error.code(), reason(&error));
            assert_eq!(actual, (Code::FailedPrecondition, "QUOTA_BELOW_USAGE".to_owned()), "{path}");
        }
        ada.set_limit_bytes(100).await;
    });
}

#[test]
fn stale_etag_rejects_quota_update() {
    service_test(|s| async move {
        let ada = s.ada();
        let read = ada.quota().await.unwrap();
        let change = |limit_bytes| Quota { limit_bytes, etag: read.etag.clone(), ..Quota::default() };
        let first = ada.update_quota("", change(1_000_000), &["limit_bytes"]).await.unwrap();
        assert_ne!(first.etag, read.etag);
        let error = ada.update_quota("", change(2_000_000), &["limit_bytes"]).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
        assert_eq!(ada.quota().await.unwrap().limit_bytes, 1_000_000);
    });
}

#[test]
fn retried_quota_update_has_one_effect() {
    service_test(|s| async move {
        let ada = s.ada();
        let request = |limit_bytes| UpdateQuotaRequest {
            quota: Some(Quota { limit_bytes, ..Quota::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["limit_bytes".to_owned()] }),
            request_id: "0198c0de-2222-7000-8000-000000000001".to_owned(),
            tenant_id: String::new(),
            ..UpdateQuotaRequest::default()
        };
        let first = ada.quotas.clone().update_quota(request(5000)).await.unwrap().into_inner();
        ada.set_limit_bytes(6000).await;
        let again = ada.quotas.clone().update_quota(request(5000)).await.unwrap().into_inner();
        assert_eq!((first, ada.quota().await.unwrap().limit_bytes), (again, 6000));
        let reused = ada.quotas.clone().update_quota(request(7000)).await.unwrap_err();
        assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    });
}

#[test]
fn rejects_empty_or_unknown_update_mask() {
    service_test(|s| async move {
        let ada = s.ada();
        for paths in [&[][..], &["nonsense"], &["used_bytes"], &["limit_bytes", "etag.x"], &["*"]] {
            let error = ada.update_quota("", Quota::default(), paths).await.unwrap_err();
            assert_eq!(
                (error.code(), reason(&error).as_str()),
                (Code::InvalidArgument, "INVALID_FIELD"),
                "{paths:?}"
            );
        }
        let wrong = Quota { warning_percent: 0, critical_percent: 101, limit_bytes: -1, ..Quota::default() };
        let paths = ["warning_percent", "critical_percent", "limit_bytes"];
        let error = ada.update_quota("", wrong, &paths).await.unwrap_err();
        let mut fields = violated_fields(&error);
        fields.sort();
        assert_eq!(fields, ["quota.critical_percent", "quota.limit_bytes", "quota.warning_percent"]);
    });
}

#[test]
fn operator_must_name_tenant_and_others_see_their_own() {
    service_test(|s| async move {
        let (alice, operator) = (s.alice(), s.operator());
        let (acme, globex) = (alice.tenant_id().await, s.mallory().tenant_id().await);
        let get = |tenant_id: &str| GetQuotaRequest { tenant_id: tenant_id.to_owned() };
        for tenant in [&acme, &globex] {
            let quota =
                operator.quotas.clone().get_quota(get(tenant)).await.unwrap().into_inner().quota.unwrap();
            assert_eq!(&quota.tenant_id, tenant);
        }
        let nameless = operator.quota().await.unwrap_err();
        assert_eq!(violated_fields(&nameless), ["tenant_id"]);
        alice.quotas.clone().get_quota(get(&acme)).await.unwrap();
        let foreign = alice.quotas.clone().get_quota(get(&globex)).await.unwrap_err();
        assert_eq!(foreign.code(), Code::NotFound);
        let random = operator.quotas.clone().get_quota(get("0198c0de-0000-7000-8000-000000000000")).await;
        assert_eq!(random.unwrap_err().code(), Code::NotFound);
        let garbled = operator.quotas.clone().get_quota(get("acme")).await.unwrap_err();
        assert_eq!(violated_fields(&garbled), ["tenant_id"]);
    });
}

#[test]
fn quota_level_rises_with_usage() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.set_limit_bytes(100).await;
        let mut levels = Vec::new();
        for size in [79, 1, 15, 5] {
            let response = alice.upload(spec("a"), &vec![b'a'; size]).await.unwrap();
            let codes: Vec<WarningCode> = response.warnings.iter().map(|warning| warning.code()).collect();
            levels.push((response.quota_state.unwrap().level(), codes));
        }
        let expected = [
            (QuotaLevel::Ok, vec![]),
            (QuotaLevel::Warning, vec![WarningCode::QuotaWarning]),
            (QuotaLevel::Critical, vec![WarningCode::QuotaCritical]),
            (QuotaLevel::Full, vec![WarningCode::QuotaCritical]),
        ];
        assert_eq!(levels, expected);
    });
}

#[test]
fn usage_report_adds_up_by_category_and_media_kind() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.set_limit_bytes(1000).await;
        let in_category = |category: &str| UploadSpec { category: category.into(), ..spec("a") };
        alice.upload(in_category("report"), &[b'a'; 100]).await.unwrap();
        let second = file_id(&alice.upload(in_category("report"), &[b'a'; 51]).await.unwrap());
        alice.upload(in_category("avatar"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01").await.unwrap();
        alice.upload(in_category("avatar"), b"").await.unwrap();
        let usage = alice.usage().await.unwrap();
        let entries: Vec<_> = usage
            .entries
            .iter()
            .map(|entry| {
                (
                    entry.category.as_str(),
                    entry.media_kind(),
                    entry.file_count,
                    entry.total_bytes,
                    entry.average_bytes,
                )
            })
            .collect();
        let expected = [
            ("avatar", MediaKind::Image, 1, 20, 20),
            ("avatar", MediaKind::Document, 1, 0, 0),
            ("report", MediaKind::Other, 2, 151, 75),
        ];
        assert_eq!(entries, expected);
        assert!((usage.entries.iter().map(|entry| entry.percent_of_total).sum::<f64>() - 100.0).abs() < 0.01);
        // A member gets the usage of the tenant in whole percents, an admin exactly.
        assert_eq!((usage.limit_bytes, usage.used_bytes, usage.available_bytes), (1000, 171, 820));
        assert!((usage.used_percent - 18.0).abs() < 0.01);
        let exact = ada.usage().await.unwrap();
        assert_eq!((exact.used_bytes, exact.available_bytes), (171, 829));
        assert!((exact.used_percent - 17.1).abs() < 0.01);
        assert_eq!((usage.file_count, usage.level()), (4, QuotaLevel::Ok));
        assert_eq!((usage.warning_percent, usage.critical_percent), (80, 95));
        assert!(usage.last_calculated_time.is_some());

        alice.purge(&second).await.unwrap();
        let usage = alice.usage().await.unwrap();
        assert_eq!((usage.used_bytes, usage.file_count), (120, 3));
    });
}
