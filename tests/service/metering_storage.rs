//! The price of storage: one charge for each owner and day, and no uploads without credits.

use chrono::{Duration, NaiveDate};
use strongroom::{
    app::quotas::measure::measure_usage,
    config::import_source::SourceLocation,
    domain::clock::Clock as _,
    proto::{admin::v1::Metering, v1::CopyFileRequest},
};
use tonic::Status;

use crate::{
    harness::{PART, Service, file_id, import_results, pattern, service_test, service_test_with, spec},
    import::{key, source_config},
    metering::{assert_exhausted, balance, count_rows},
};

/// The highest price: 1,074 bytes cost one credit a day.
const PRICE: i64 = 1_000_000;

/// Sets the price of storage in the tenant of alice.
async fn set_storage_price(s: &Service, gib_day_credits: i64) {
    let metering = Metering { gib_day_credits, ..Metering::default() };
    let acme = s.alice().tenant_id().await;
    s.operator().set_prices(&acme, metering, &["metering.gib_day_credits"]).await.unwrap();
}

fn today(s: &Service) -> NaiveDate {
    s.clock.now().date_naive()
}

/// Measures the tenants an hour later.
async fn measure(s: &Service) {
    s.clock.advance(Duration::hours(1));
    assert_eq!(measure_usage(&s.app).await.unwrap().failed, 0);
}

/// Moves the clock to 01:00 UTC of the next day.
fn begin_day(s: &Service) {
    let tomorrow = today(s) + Duration::days(1);
    s.clock.advance(tomorrow.and_hms_opt(1, 0, 0).unwrap().and_utc() - s.clock.now());
}

async fn charges(s: &Service) -> Vec<String> {
    let sql = "SELECT format('%s %s/%s', user_id, paid_credits, due_credits) FROM storage_charges
        ORDER BY day, user_id COLLATE \"C\"";
    s.superuser.query_texts(sql).await
}

#[test]
fn owners_are_charged_once_a_day() {
    service_test(|s| async move {
        let replica = s.start_replica(|_| {}).await;
        for (owner, sizes) in [("alice", &[20_000, 10_000][..]), ("bob", &[50_000])] {
            let caller = s.member(owner, "acme", "member", &[]);
            for size in sizes {
                caller.upload(spec("a"), &vec![0; *size]).await.unwrap();
            }
            s.cashier().add_credits(owner, 1_000).await.unwrap();
        }
        s.mallory().upload(spec("a"), &[0; 10_000]).await.unwrap();
        set_storage_price(&s, PRICE).await;
        begin_day(&s);
        let first_day = today(&s).to_string();
        // Two workers at the same time.
        let (one, other) = tokio::join!(measure_usage(&s.app), measure_usage(&replica.app));
        assert_eq!((one.unwrap().failed, other.unwrap().failed), (0, 0));
        // 30,000 and 50,000 bytes at 1,000,000 credits for a GiB, rounded up.
        let charged = ["alice 28/28", "bob 47/47"];
        assert_eq!(charges(&s).await, charged);
        let entry = s.alice().credit_entries("", 10).await.unwrap().remove(0);
        assert_eq!((entry.reason.as_str(), entry.amount, entry.reference), ("storage", -28, first_day));
        assert_eq!(entry.created_by, "strongroom");

        measure(&s).await;
        measure(&replica).await;
        assert_eq!(charges(&s).await, charged);
        assert_eq!((balance(&s, "alice").await, balance(&s, "bob").await), (972, 953));
        s.clock.advance(Duration::days(1));
        measure(&s).await;
        assert_eq!(charges(&s).await, [charged, charged].concat());
        assert_eq!((balance(&s, "alice").await, balance(&s, "bob").await), (944, 906));
        assert!(s.run_fsck().await.violations.is_empty());
        replica.stop().await;
    });
}

#[test]
fn interrupted_charges_are_completed() {
    service_test(|s| async move {
        for owner in ["alice", "bob"] {
            let caller = s.member(owner, "acme", "member", &[]);
            caller.upload(spec("a"), &[0; 10_000]).await.unwrap();
            s.cashier().add_credits(owner, 100).await.unwrap();
        }
        set_storage_price(&s, PRICE).await;
        begin_day(&s);
        // The worker before was killed after it had charged alice.
        let (acme, day) = (s.alice().tenant_id().await, today(&s));
        let charge = format!("INSERT INTO storage_charges VALUES ('{acme}', 'alice', '{day}', 10, 10)");
        s.superuser.execute(&charge).await;
        assert_eq!(measure_usage(&s.app).await.unwrap().failed, 0);
        assert_eq!(charges(&s).await, ["alice 10/10", "bob 10/10"]);
        assert_eq!((balance(&s, "alice").await, balance(&s, "bob").await), (100, 90));
    });
}

#[test]
fn owner_with_too_few_credits_pays_all_of_them() {
    service_test(|s| async move {
        for owner in ["alice", "bob"] {
            let caller = s.member(owner, "acme", "member", &[]);
            caller.upload(spec("a"), &[0; 10_000]).await.unwrap();
        }
        s.cashier().add_credits("alice", 4).await.unwrap();
        set_storage_price(&s, PRICE).await;
        begin_day(&s);
        assert_eq!(measure_usage(&s.app).await.unwrap().failed, 0);
        assert_eq!(charges(&s).await, ["alice 4/10", "bob 0/10"]);
        assert_eq!((balance(&s, "alice").await, count_rows(&s, "credit_entries").await), (0, 2));
        // Credits that are added later pay for later days only.
        s.cashier().add_credits("bob", 50).await.unwrap();
        measure(&s).await;
        assert_eq!(balance(&s, "bob").await, 50);
        s.clock.advance(Duration::days(1));
        measure(&s).await;
        assert_eq!((balance(&s, "alice").await, balance(&s, "bob").await), (0, 40));
    });
}

#[test]
fn storage_is_charged_from_the_day_of_its_price() {
    service_test(|s| async move {
        s.alice().upload(spec("a"), &[0; 10_000]).await.unwrap();
        s.cashier().add_credits("alice", 100).await.unwrap();
        begin_day(&s);
        assert_eq!(measure_usage(&s.app).await.unwrap().failed, 0);
        set_storage_price(&s, PRICE).await;
        measure(&s).await;
        assert_eq!(
            charges(&s).await,
            ["alice 10/10"],
            "the day has a price, although it was measured before"
        );
        set_storage_price(&s, 0).await;
        s.clock.advance(Duration::days(1));
        measure(&s).await;
        assert_eq!(balance(&s, "alice").await, 90);
    });
}

#[test]
fn users_without_credits_cannot_upload() {
    let old = tempfile::tempdir().unwrap();
    std::fs::write(old.path().join("notes.txt"), b"notes").unwrap();
    let source = source_config(SourceLocation::Directory(old.path().to_owned()), "*");
    service_test_with(source, |s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = file_id(&alice.upload(spec("a"), b"bytes").await.unwrap());
        let data = pattern(2 * PART);
        let admitted = alice.create_upload(spec("admitted")).await.unwrap().id;
        set_storage_price(&s, 1).await;
        let copy = || CopyFileRequest { file_id: id.clone(), ..CopyFileRequest::default() };
        let refused: [Status; 4] = [
            alice.upload(spec("b"), b"bytes").await.unwrap_err(),
            alice.upload_version(&id, b"second").await.unwrap_err(),
            alice.create_upload(spec("c")).await.unwrap_err(),
            alice.copy(copy()).await.unwrap_err(),
        ];
        refused.iter().for_each(|status| assert_exhausted(status, 0, 1));
        assert_exhausted(&ada.import_files("old", false, [key("notes.txt")]).await.unwrap_err(), 0, 1);
        assert_eq!(count_rows(&s, "files").await, 1);
        // The bytes of an admitted upload were promised.
        alice.resume_upload(&admitted, &data, 0, true).await.unwrap();
        s.billing().upload(spec("d"), b"bytes").await.unwrap();
        s.mallory().upload(spec("e"), b"bytes").await.unwrap();

        s.cashier().add_credits("alice", 1).await.unwrap();
        s.cashier().add_credits("ada", 1).await.unwrap();
        alice.upload(spec("b"), b"bytes").await.unwrap();
        alice.upload_version(&id, b"second").await.unwrap();
        let open = alice.create_upload(spec("c")).await.unwrap().id;
        alice.cancel_upload(&open).await.unwrap();
        alice.copy(copy()).await.unwrap();
        let report = ada.import_files("old", false, [key("notes.txt")]).await.unwrap();
        assert_eq!(import_results(&report).len(), 1);
        assert_eq!(count_rows(&s, "files").await, 7);
    });
}
