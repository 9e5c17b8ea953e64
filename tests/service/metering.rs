//! Metering: prices, and downloads of users. `metering_visitors` has those of visitors, `metering_storage` the storage.

use std::collections::HashSet;

use chrono::Duration;
use futures::future::join_all;
use prost_types::FieldMask;
use strongroom::{
    app::{quotas::measure::measure_usage, retention::enforce_retention},
    domain::clock::Clock as _,
    proto::{
        admin::v1::{Metering, Tenant, UpdateTenantRequest, export_tenant_response::Record},
        v1::{DownloadFileRequest, UploadSpec},
    },
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    credits::{WRONG_BALANCES, while_sampling},
    harness::{Caller, PART, Service, file_id, pattern, reason, service_test, spec, violated_fields},
    tenants::erase_all_tenants,
};

impl Caller {
    pub(crate) async fn set_prices(
        &self,
        tenant: &str,
        metering: Metering,
        paths: &[&str],
    ) -> Result<Tenant, Status> {
        let request = UpdateTenantRequest {
            tenant_id: tenant.to_owned(),
            metering: Some(metering),
            update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
            ..UpdateTenantRequest::default()
        };
        Ok(self.tenants.clone().update_tenant(request).await?.into_inner().tenant.unwrap())
    }
}

/// Sets the price of a download in the tenant of alice.
pub(crate) async fn set_download_price(s: &Service, download_credits: i64) {
    let metering = Metering { download_credits, ..Metering::default() };
    let acme = s.alice().tenant_id().await;
    s.operator().set_prices(&acme, metering, &["metering.download_credits"]).await.unwrap();
}

pub(crate) async fn balance(s: &Service, user: &str) -> i64 {
    s.cashier().credits("", user).await.unwrap().balance
}

pub(crate) async fn count_rows(s: &Service, table: &str) -> i64 {
    s.superuser.query_number(&format!("SELECT count(*) FROM {table}")).await
}

async fn count_disclosures(s: &Service) -> i64 {
    let disclosures = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.file_download}";
    s.superuser.query_number(disclosures).await
}

pub(crate) fn assert_exhausted(status: &Status, balance: i64, required: i64) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::FailedPrecondition, "CREDITS_EXHAUSTED"));
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["balance_credits"], balance.to_string());
    assert_eq!(metadata["required_credits"], required.to_string());
}

#[test]
fn concurrent_downloads_never_overdraw() {
    service_test(|s| async move {
        let alice = s.alice();
        let uploads = (0..64).map(|n| {
            let alice = s.alice();
            async move { file_id(&alice.upload(spec(&format!("{n}")), b"bytes").await.unwrap()) }
        });
        let files = join_all(uploads).await;
        set_download_price(&s, 3).await;
        s.cashier().add_credits("alice", 32).await.unwrap();
        let downloads = files.iter().map(|file| alice.read(file));
        let outcomes = while_sampling(&s, join_all(downloads)).await;
        for status in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(reason(status), "CREDITS_EXHAUSTED", "{status:?}");
        }
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 10);
        assert_eq!((balance(&s, "alice").await, count_disclosures(&s).await), (2, 10));
        assert_eq!(count_rows(&s, "paid_downloads").await, 10, "a refused payment is rolled back");
        let entries = alice.credit_entries("", 100).await.unwrap();
        let paid: HashSet<String> = entries
            .iter()
            .filter(|entry| entry.reason == "download" && entry.amount == -3)
            .map(|entry| entry.reference.clone())
            .collect();
        let served = files.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
        assert_eq!(paid, served.map(|(file, _)| format!("{file}/1")).collect::<HashSet<_>>());
        assert!(s.run_fsck().await.violations.is_empty());
    });
}

#[test]
fn version_costs_once_in_24_hours() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(4 * PART);
        let id = file_id(&alice.upload(spec("film"), &data).await.unwrap());
        set_download_price(&s, 5).await;
        s.cashier().add_credits("alice", 100).await.unwrap();
        // An interrupted stream, concurrent ranges, and a retry of the whole file.
        s.faults.set_plan(Plan::new().with_fault(
            Operation::Get,
            1,
            Fault::CutStream { after_bytes: 100_000 },
        ));
        alice.read(&id).await.unwrap_err();
        s.faults.set_plan(Plan::new());
        let ranges = (0..16).map(|n| {
            alice.download(DownloadFileRequest {
                file_id: id.clone(),
                read_offset: n * 1_000,
                read_limit: 1_000,
                ..DownloadFileRequest::default()
            })
        });
        join_all(ranges).await.into_iter().for_each(|range| drop(range.unwrap()));
        assert_eq!(alice.read(&id).await.unwrap(), data);
        assert_eq!(balance(&s, "alice").await, 95);

        alice.upload_version(&id, b"second").await.unwrap();
        alice.read(&id).await.unwrap();
        assert_eq!(balance(&s, "alice").await, 90, "a new version costs again");
        alice.read_version(&id, 1).await.unwrap();
        assert_eq!(balance(&s, "alice").await, 90, "the former version is paid");
        let others = s.ada();
        assert_exhausted(&others.read(&id).await.unwrap_err(), 0, 5);

        s.clock.advance(Duration::hours(23));
        s.alice().read(&id).await.unwrap();
        assert_eq!(balance(&s, "alice").await, 90);
        s.clock.advance(Duration::hours(1));
        let alice = s.alice();
        let again = (0..8).map(|_| alice.read(&id));
        join_all(again).await.into_iter().for_each(|read| drop(read.unwrap()));
        assert_eq!(balance(&s, "alice").await, 85, "a payment is valid for 24 hours");
        assert_eq!(count_rows(&s, "paid_downloads").await, 2);
    });
}

#[test]
fn concurrent_first_ranges_pay_once() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("film"), &pattern(PART)).await.unwrap());
        set_download_price(&s, 5).await;
        s.cashier().add_credits("alice", 5).await.unwrap();
        let reads = (0..32).map(|_| alice.read(&id));
        join_all(reads).await.into_iter().for_each(|read| drop(read.unwrap()));
        assert_eq!((balance(&s, "alice").await, count_disclosures(&s).await), (0, 32));
    });
}

#[test]
fn refused_download_is_no_disclosure() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"bytes").await.unwrap());
        set_download_price(&s, 5).await;
        assert_exhausted(&alice.read(&id).await.unwrap_err(), 0, 5);
        s.cashier().add_credits("alice", 4).await.unwrap();
        assert_exhausted(&alice.read(&id).await.unwrap_err(), 4, 5);
        assert_eq!((count_disclosures(&s).await, count_rows(&s, "paid_downloads").await), (0, 0));
        assert_eq!(balance(&s, "alice").await, 4);
        s.cashier().add_credits("alice", 1).await.unwrap();
        alice.read(&id).await.unwrap();
        assert_eq!((count_disclosures(&s).await, balance(&s, "alice").await), (1, 0));
    });
}

#[test]
fn unreadable_object_costs_nothing() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"bytes").await.unwrap());
        set_download_price(&s, 5).await;
        s.cashier().add_credits("alice", 5).await.unwrap();
        let unavailable = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, unavailable));
        assert_eq!(alice.read(&id).await.unwrap_err().code(), Code::Unavailable);
        s.faults.set_plan(Plan::new());
        assert_eq!((balance(&s, "alice").await, count_rows(&s, "paid_downloads").await), (5, 0));
        alice.read(&id).await.unwrap();
        assert_eq!(balance(&s, "alice").await, 0);
    });
}

#[test]
fn payment_is_valid_after_a_failed_disclosure() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"bytes").await.unwrap());
        set_download_price(&s, 5).await;
        s.cashier().add_credits("alice", 5).await.unwrap();
        s.superuser.execute("REVOKE INSERT ON audit_entries FROM strongroom_app").await;
        alice.read(&id).await.unwrap_err();
        s.superuser.execute("GRANT INSERT ON audit_entries TO strongroom_app").await;
        assert_eq!((balance(&s, "alice").await, count_disclosures(&s).await), (0, 0));
        alice.read(&id).await.unwrap();
        assert_eq!((balance(&s, "alice").await, count_disclosures(&s).await), (0, 1));
    });
}

#[test]
fn free_tenants_and_services_pay_nothing() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap());
        s.alice().read(&id).await.unwrap();
        s.clock.advance(Duration::days(1));
        assert_eq!(measure_usage(&s.app).await.unwrap().failed, 0);
        set_download_price(&s, 5).await;
        s.billing().read(&id).await.unwrap();
        let theirs = file_id(&s.mallory().upload(spec("b"), b"theirs").await.unwrap());
        s.mallory().read(&theirs).await.unwrap();
        for table in ["credit_entries", "paid_downloads", "storage_charges"] {
            assert_eq!(count_rows(&s, table).await, 0, "{table}");
        }
    });
}

#[test]
fn price_change_reaches_other_servers() {
    service_test(|s| async move {
        let replica = s.start_replica(|_| {}).await;
        let ids = join_all(["a", "b", "c"].map(|name| {
            let alice = s.alice();
            async move { file_id(&alice.upload(spec(name), b"bytes").await.unwrap()) }
        }))
        .await;
        // The replica caches the tenant as free.
        replica.alice().read(&ids[0]).await.unwrap();
        s.cashier().add_credits("alice", 9).await.unwrap();
        set_download_price(&s, 5).await;
        s.alice().read(&ids[1]).await.unwrap();
        assert_eq!(balance(&s, "alice").await, 4, "this server applies the price at once");
        s.clock.advance(Duration::seconds(11));
        assert_exhausted(&replica.alice().read(&ids[0]).await.unwrap_err(), 4, 5);
        set_download_price(&s, 2).await;
        s.clock.advance(Duration::seconds(11));
        replica.alice().read(&ids[2]).await.unwrap();
        replica.alice().read(&ids[1]).await.unwrap();
        assert_eq!(balance(&s, "alice").await, 2, "an earlier payment stays valid");
        replica.stop().await;
    });
}

#[test]
fn operator_sets_prices_within_limits() {
    service_test(|s| async move {
        let (acme, operator) = (s.ada().tenant_id().await, s.operator());
        let both = ["metering.download_credits", "metering.gib_day_credits"];
        let prices = |download_credits, gib_day_credits| Metering { download_credits, gib_day_credits };
        let tenant = operator.set_prices(&acme, prices(1_000_000, 0), &both).await.unwrap();
        assert_eq!(tenant.metering, Some(prices(1_000_000, 0)));
        let tenant = operator.set_prices(&acme, prices(7, 3), &both[1..]).await.unwrap();
        assert_eq!(tenant.metering, Some(prices(1_000_000, 3)), "a path that is not named is unchanged");
        let error = operator.set_prices(&acme, prices(-1, 1_000_001), &both).await.unwrap_err();
        assert_eq!(violated_fields(&error), both);
        let details = error.get_details_bad_request().unwrap();
        assert!(details.field_violations[0].description.ends_with("is -1"), "{details:?}");
        assert!(details.field_violations[1].description.ends_with("1000000, is 1000001"), "{details:?}");
        assert_eq!(
            s.ada().set_prices(&acme, prices(0, 0), &both).await.unwrap_err().code(),
            Code::PermissionDenied
        );
        operator.set_prices(&acme, prices(1_000_000, 3), &both).await.unwrap();
        let changes = format!(
            "SELECT count(*) FROM audit_entries WHERE tenant_id = '{acme}'
             AND action = {{audit_action.policy_update}} AND details ? 'metering'"
        );
        assert_eq!(s.superuser.query_number(&changes).await, 2, "an update without a change is not recorded");
    });
}

#[test]
fn payments_are_exported_erased_and_expire() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"bytes").await.unwrap());
        let (acme, operator) = (alice.tenant_id().await, s.operator());
        set_download_price(&s, 5).await;
        s.cashier().add_credits("alice", 50).await.unwrap();
        alice.read(&id).await.unwrap();
        s.superuser
            .execute(&format!(
                "INSERT INTO storage_charges (tenant_id, user_id, day, due_credits, paid_credits)
                 SELECT '{acme}', 'user' || n, date '2000-01-01' + n, 7, 4 FROM generate_series(1, 201) AS n"
            ))
            .await;
        let today = s.clock.now().date_naive();
        s.superuser
            .execute(&format!(
                "INSERT INTO storage_charges (tenant_id, user_id, day, due_credits, paid_credits)
                 VALUES ('{acme}', 'alice', date '{today}' - 399, 7, 4)"
            ))
            .await;
        let records = operator.export_tenant(&acme).await.unwrap();
        let charges: Vec<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::StorageCharge(charge) => Some((charge.user_id.as_str(), charge.day.as_str())),
                _ => None,
            })
            .collect();
        assert_eq!(charges.len(), 202);
        assert!(charges.contains(&("user1", "2000-01-02")), "{charges:?}");

        enforce_retention(&s.app).await.unwrap();
        assert_eq!((count_rows(&s, "paid_downloads").await, count_rows(&s, "storage_charges").await), (1, 1));
        s.clock.advance(Duration::hours(24));
        enforce_retention(&s.app).await.unwrap();
        assert_eq!((count_rows(&s, "paid_downloads").await, count_rows(&s, "storage_charges").await), (0, 0));
        s.alice().read(&id).await.unwrap();
        let operator = s.operator();
        operator.delete_tenant(&acme, false).await.unwrap();
        s.clock.advance(Duration::seconds(15));
        erase_all_tenants(&s).await;
        for table in ["credit_entries", "paid_downloads", "storage_charges"] {
            assert_eq!(count_rows(&s, table).await, 0, "{table}");
        }
        assert_eq!(s.superuser.query_number(WRONG_BALANCES).await, 0);
    });
}

#[test]
fn earlier_request_is_replayed_without_credits() {
    service_test(|s| async move {
        let alice = s.alice();
        s.cashier().add_credits("alice", 1).await.unwrap();
        let request_id = uuid::Uuid::from_u128(9).to_string();
        let upload = || UploadSpec { request_id: request_id.clone(), ..spec("a") };
        let first = alice.upload(upload(), b"bytes").await.unwrap();
        let acme = alice.tenant_id().await;
        let price = Metering { gib_day_credits: 1, ..Metering::default() };
        s.operator().set_prices(&acme, price, &["metering.gib_day_credits"]).await.unwrap();
        s.cashier().deduct_credits("alice", 1).await.unwrap();
        let again = alice.upload(upload(), b"bytes").await.unwrap();
        assert_eq!(file_id(&again), file_id(&first));
        assert_exhausted(&alice.upload(spec("b"), b"bytes").await.unwrap_err(), 0, 1);
    });
}
