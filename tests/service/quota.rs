//! Room: it is never overshot, refused without a hint to retry, limited by the operator, and reported as it is.

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

/// Uploads many files at once, while another connection watches the books; answers how many were stored.
async fn race(s: &Service, uploads: usize, size: usize, room_for: usize) -> usize {
    s.ada().limit_bytes((room_for * size) as i64).await;
    let (is_over, samples) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sampler = tokio::spawn({
        let (owner, is_over, samples) = (s.database.owner().await, is_over.clone(), samples.clone());
        async move {
            while !is_over.load(Ordering::Relaxed) {
                let overshot = "SELECT count(*) FROM quotas WHERE used_bytes + reserved_bytes > limit_bytes
                    OR (file_count_max > 0 AND file_count + reserved_file_count > file_count_max)";
                assert_eq!(owner.number(overshot).await, 0, "overshot");
                samples.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let alice = s.alice();
    let data = pattern(size);
    let attempts = (0..uploads).map(|n| {
        // Half of them say how large they are.
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
    is_over.store(true, Ordering::Relaxed);
    sampler.await.unwrap();
    assert!(samples.load(Ordering::Relaxed) > 0);
    stored
}

#[test]
fn two_hundred_uploads_at_once_into_room_for_fifty_store_exactly_fifty() {
    service_test(|s| async move {
        assert_eq!(race(&s, 200, 1000, 50).await, 50);
        let book = s.book(&s.alice()).await;
        assert_eq!((book.used_bytes, book.reserved_bytes, book.file_count), (50_000, 0, 50));
        let refused = s.alice().upload(spec("one more"), b"x").await.unwrap_err();
        assert_eq!(reason(&refused), "QUOTA_BYTES_EXCEEDED");
    });
}

#[test]
fn large_uploads_at_once_never_overshoot_and_never_leave_a_reservation() {
    service_test(|s| async move {
        let size = 2 * PART + 1;
        // Those of unknown size may be refused although in the end there would have been room, because others held it
        // then: but never more than fit, and what is left fits afterwards.
        let stored = race(&s, 60, size, 15).await;
        assert!((1..=15).contains(&stored), "{stored}");
        s.until("release", || async { s.book(&s.alice()).await.reserved_bytes == 0 }).await;
        for n in stored..15 {
            s.alice().upload(spec(&format!("later {n}")), &pattern(size)).await.unwrap();
        }
        assert_eq!(s.book(&s.alice()).await.used_bytes, 15 * size as i64);
    });
}

#[test]
fn the_number_of_files_is_limited_too() {
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
            let got = (status.code(), reason(status));
            assert_eq!(got, (Code::ResourceExhausted, "QUOTA_FILES_EXCEEDED".to_owned()));
            let details = status.get_error_details();
            assert!(details.quota_failure().is_some() && details.retry_info().is_none());
        }
        let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!((1..=3).contains(&stored), "{stored}");
        s.until("release", || async { s.book(&alice).await.reserved_file_count == 0 }).await;
        assert_eq!(s.book(&alice).await.file_count, stored as i64);
    });
}

#[test]
fn an_admin_stays_below_the_ceiling_that_only_the_operator_moves() {
    service_test(|s| async move {
        let (ada, operator) = (s.ada(), s.operator());
        let tenant = ada.tenant_id().await;
        let ceiling = ada.quota().await.unwrap().ceiling_bytes;

        let above = Quota { limit_bytes: ceiling + 1, ..Quota::default() };
        let refused = ada.update_quota("", above, &["limit_bytes"]).await.unwrap_err();
        assert_eq!(
            (refused.code(), violated_fields(&refused)),
            (Code::InvalidArgument, vec!["quota.limit_bytes".into()])
        );
        let moved = Quota { ceiling_bytes: ceiling + 1, ..Quota::default() };
        let refused = ada.update_quota("", moved.clone(), &["ceiling_bytes"]).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));

        let raised = operator.update_quota(&tenant, moved, &["ceiling_bytes"]).await.unwrap();
        assert_eq!((raised.ceiling_bytes, raised.limit_bytes), (ceiling + 1, ceiling));
        ada.limit_bytes(ceiling + 1).await;
        let lowered = Quota { ceiling_bytes: 1000, ..Quota::default() };
        let lowered = operator.update_quota(&tenant, lowered, &["ceiling_bytes"]).await.unwrap();
        assert_eq!((lowered.ceiling_bytes, lowered.limit_bytes), (1000, 1000));
    });
}

#[test]
fn only_admins_change_limits_and_a_denial_is_written_down() {
    service_test(|s| async move {
        for caller in [s.alice(), s.maria(), s.billing()] {
            let quota = Quota { limit_bytes: 5, ..Quota::default() };
            let refused = caller.update_quota("", quota, &["limit_bytes"]).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        }
        let denials = "SELECT DISTINCT details->>'method' FROM audit_entries WHERE NOT is_allowed";
        assert_eq!(s.owner.texts(denials).await, ["/strongroom.v1.QuotaService/UpdateQuota"]);
        s.alice().quota().await.unwrap();
    });
}

#[test]
fn every_answer_that_writes_says_how_full_the_tenant_is() {
    service_test(|s| async move {
        let ada = s.ada();
        ada.limit_bytes(100).await;
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
fn limits_below_what_is_stored_are_refused() {
    service_test(|s| async move {
        let ada = s.ada();
        ada.upload(spec("a"), &[1; 100]).await.unwrap();
        ada.upload(spec("b"), b"").await.unwrap();
        for (quota, path) in [
            (Quota { limit_bytes: 99, ..Quota::default() }, "limit_bytes"),
            (Quota { file_count_max: 1, ..Quota::default() }, "file_count_max"),
        ] {
            let refused = ada.update_quota("", quota, &[path]).await.unwrap_err();
            let got = (refused.code(), reason(&refused));
            assert_eq!(got, (Code::FailedPrecondition, "QUOTA_BELOW_USAGE".to_owned()), "{path}");
        }
        ada.limit_bytes(100).await;
    });
}

#[test]
fn an_update_that_read_an_older_quota_is_refused() {
    service_test(|s| async move {
        let ada = s.ada();
        let read = ada.quota().await.unwrap();
        let change = |limit_bytes| Quota { limit_bytes, etag: read.etag.clone(), ..Quota::default() };
        let first = ada.update_quota("", change(1_000_000), &["limit_bytes"]).await.unwrap();
        assert_ne!(first.etag, read.etag);
        let refused = ada.update_quota("", change(2_000_000), &["limit_bytes"]).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
        assert_eq!(ada.quota().await.unwrap().limit_bytes, 1_000_000);
    });
}

#[test]
fn a_retried_update_has_one_effect() {
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
        ada.limit_bytes(6000).await;
        let again = ada.quotas.clone().update_quota(request(5000)).await.unwrap().into_inner();
        assert_eq!((first, ada.quota().await.unwrap().limit_bytes), (again, 6000));
        let reused = ada.quotas.clone().update_quota(request(7000)).await.unwrap_err();
        assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    });
}

#[test]
fn a_mask_that_names_nothing_or_nonsense_is_refused() {
    service_test(|s| async move {
        let ada = s.ada();
        for paths in [&[][..], &["nonsense"], &["used_bytes"], &["limit_bytes", "etag.x"], &["*"]] {
            let refused = ada.update_quota("", Quota::default(), paths).await.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::InvalidArgument, "INVALID_FIELD"),
                "{paths:?}"
            );
        }
        let wrong = Quota { warning_percent: 0, critical_percent: 101, limit_bytes: -1, ..Quota::default() };
        let paths = ["warning_percent", "critical_percent", "limit_bytes"];
        let refused = ada.update_quota("", wrong, &paths).await.unwrap_err();
        let mut fields = violated_fields(&refused);
        fields.sort();
        assert_eq!(fields, ["quota.critical_percent", "quota.limit_bytes", "quota.warning_percent"]);
    });
}

#[test]
fn an_operator_names_the_tenant_and_everyone_else_has_their_own() {
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
fn the_level_rises_with_every_answer_that_writes() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.limit_bytes(100).await;
        let mut seen = Vec::new();
        for size in [79, 1, 15, 5] {
            let answer = alice.upload(spec("a"), &vec![b'a'; size]).await.unwrap();
            let codes: Vec<WarningCode> = answer.warnings.iter().map(|warning| warning.code()).collect();
            seen.push((answer.quota_state.unwrap().level(), codes));
        }
        let expected = [
            (QuotaLevel::Ok, vec![]),
            (QuotaLevel::Warning, vec![WarningCode::QuotaWarning]),
            (QuotaLevel::Critical, vec![WarningCode::QuotaCritical]),
            (QuotaLevel::Full, vec![WarningCode::QuotaCritical]),
        ];
        assert_eq!(seen, expected);
    });
}

#[test]
fn the_usage_report_adds_up_by_category_and_kind() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        ada.limit_bytes(1000).await;
        let of = |category: &str| UploadSpec { category: category.into(), ..spec("a") };
        alice.upload(of("report"), &[b'a'; 100]).await.unwrap();
        let second = file_id(&alice.upload(of("report"), &[b'a'; 51]).await.unwrap());
        alice.upload(of("avatar"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01").await.unwrap();
        alice.upload(of("avatar"), b"").await.unwrap();
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
        assert_eq!((usage.limit_bytes, usage.used_bytes, usage.available_bytes), (1000, 171, 829));
        assert!((usage.used_percent - 17.1).abs() < 0.01);
        assert_eq!((usage.file_count, usage.level()), (4, QuotaLevel::Ok));
        assert_eq!((usage.warning_percent, usage.critical_percent), (80, 95));
        assert!(usage.last_calculated_time.is_some());

        alice.purge(&second).await.unwrap();
        let usage = alice.usage().await.unwrap();
        assert_eq!((usage.used_bytes, usage.file_count), (120, 3));
    });
}
