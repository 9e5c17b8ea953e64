//! Downloads of visitors that cost credits of the sharer.

use futures::future::join_all;
use strongroom::{
    domain::permission::Permission,
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    credits::while_sampling,
    harness::{Service, service_test},
    metering::{balance, set_download_price},
    visitors::{Terms, count_downloads, download, grant, resolve, share_new},
};

/// Returns what a visitor sees of an error, without the id of its call.
fn shown(status: &Status) -> (Code, String, String) {
    let call_id = status.get_details_error_info().unwrap().metadata["call_id"].clone();
    let details = String::from_utf8_lossy(status.details()).replace(&call_id, "");
    (status.code(), status.message().to_owned(), details)
}

async fn count_denials(s: &Service, denial: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM access_log WHERE NOT is_granted AND denial_reason = '{denial}'");
    s.superuser.query_number(&sql).await
}

#[test]
fn counted_download_is_paid_by_the_sharer() {
    service_test(|s| async move {
        let (file, link) = share_new(&s, b"bytes", Terms::default()).await;
        set_download_price(&s, 5).await;
        s.cashier().add_credits("alice", 20).await.unwrap();
        let first = grant(&s, &link).await;
        assert_eq!(balance(&s, "alice").await, 20, "a grant that is not used costs nothing");
        download(&s, &first, 0, 2).await.unwrap();
        download(&s, &first, 2, 0).await.unwrap();
        assert_eq!((balance(&s, "alice").await, count_downloads(&s, &link).await), (15, 1));
        download(&s, &grant(&s, &link).await, 0, 0).await.unwrap();
        assert_eq!((balance(&s, "alice").await, count_downloads(&s, &link).await), (10, 2));
        let entry = s.alice().credit_entries("", 10).await.unwrap().remove(0);
        assert_eq!((entry.reason.as_str(), entry.amount), ("download", -5));
        assert_eq!((entry.reference, entry.created_by.as_str()), (format!("{file}/1"), "strongroom"));

        let terms = Terms { permission: Permission::View, ..Terms::default() };
        let (_, viewed) = share_new(&s, b"bytes", terms).await;
        download(&s, &resolve(&s, &viewed.token, "").await.unwrap().grant, 0, 0).await.unwrap();
        assert_eq!(balance(&s, "alice").await, 5, "a view sends the same bytes");
        assert!(s.run_fsck().await.violations.is_empty());
    });
}

#[test]
fn sharer_without_credits_looks_like_an_exhausted_share() {
    service_test(|s| async move {
        let (_, exhausted) =
            share_new(&s, b"bytes", Terms { max_downloads: Some(1), ..Terms::default() }).await;
        let [counted, late] = [grant(&s, &exhausted).await, grant(&s, &exhausted).await];
        download(&s, &counted, 0, 0).await.unwrap();
        let expected = download(&s, &late, 0, 0).await.unwrap_err();

        let (_, link) = share_new(&s, b"bytes", Terms::default()).await;
        set_download_price(&s, 5).await;
        s.cashier().add_credits("alice", 4).await.unwrap();
        let unpaid = grant(&s, &link).await;
        let refused = download(&s, &unpaid, 0, 0).await.unwrap_err();
        assert_eq!(shown(&refused), shown(&expected));
        assert_eq!((balance(&s, "alice").await, count_downloads(&s, &link).await), (4, 0));
        assert_eq!(count_denials(&s, "sharer has too few credits").await, 1);
        assert_eq!(count_denials(&s, "share is exhausted").await, 1);
        s.cashier().add_credits("alice", 1).await.unwrap();
        download(&s, &unpaid, 0, 0).await.unwrap();
        assert_eq!((balance(&s, "alice").await, count_downloads(&s, &link).await), (0, 1));
        download(&s, &unpaid, 0, 0).await.unwrap();
    });
}

#[test]
fn concurrent_visitors_never_overdraw_the_sharer() {
    service_test(|s| async move {
        let (_, link) = share_new(&s, b"bytes", Terms::default()).await;
        set_download_price(&s, 5).await;
        s.cashier().add_credits("alice", 37).await.unwrap();
        let mut grants = Vec::new();
        for _ in 0..32 {
            grants.push(grant(&s, &link).await);
        }
        let downloads = grants.iter().map(|grant| download(&s, grant, 0, 0));
        let outcomes = while_sampling(&s, join_all(downloads)).await;
        for status in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
        }
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 7);
        assert_eq!((balance(&s, "alice").await, count_downloads(&s, &link).await), (2, 7));
    });
}

#[test]
fn visit_without_a_byte_is_refunded() {
    service_test(|s| async move {
        let (_, link) = share_new(&s, b"bytes", Terms::default()).await;
        set_download_price(&s, 5).await;
        s.cashier().add_credits("alice", 5).await.unwrap();
        let used = grant(&s, &link).await;
        let unavailable = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, unavailable));
        let error = download(&s, &used, 0, 0).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        s.faults.set_plan(Plan::new());
        s.wait_until("the download is uncounted", || async { count_downloads(&s, &link).await == 0 }).await;
        assert_eq!(balance(&s, "alice").await, 5);
        let entries = s.alice().credit_entries("", 10).await.unwrap();
        let reasons: Vec<(&str, i64)> =
            entries.iter().map(|entry| (entry.reason.as_str(), entry.amount)).collect();
        assert_eq!(reasons, [("download refund", 5), ("download", -5), ("invoice paid", 5)]);
        // The price of the payment is refunded, not the current one.
        set_download_price(&s, 3).await;
        download(&s, &used, 0, 0).await.unwrap();
        assert_eq!((balance(&s, "alice").await, count_downloads(&s, &link).await), (2, 1));
    });
}
