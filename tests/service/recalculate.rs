//! Recalculations of usage: planted drift is found, reported and repaired while uploads continue.

use futures::future::join_all;
use strongroom::{
    app::quotas::recalculate::Measurement,
    domain::ids::TenantId,
    proto::v1::{
        GetUsageRecalculationRequest, Quota, RecalculateUsageRequest, UsageRecalculation,
        UsageRecalculationState as State,
    },
    worker,
};
use tonic::{Code, Status};

use crate::harness::{Caller, Service, file_id, service_test, spec};

async fn request(caller: &Caller, tenant_id: &str, request_id: &str) -> Result<UsageRecalculation, Status> {
    let request =
        RecalculateUsageRequest { tenant_id: tenant_id.to_owned(), request_id: request_id.to_owned() };
    Ok(caller.quotas.clone().recalculate_usage(request).await?.into_inner().recalculation.unwrap())
}

async fn get(caller: &Caller) -> Option<UsageRecalculation> {
    let request = GetUsageRecalculationRequest::default();
    caller.quotas.clone().get_usage_recalculation(request).await.unwrap().into_inner().recalculation
}

/// Adds to the recorded usage of all tenants, and to one counter.
async fn plant_drift(s: &Service, bytes: i64, files: i64) {
    s.superuser
        .execute(&format!(
            "UPDATE quotas SET used_bytes = used_bytes + {bytes}, file_count = file_count + {files}
             WHERE used_bytes > 0;
             UPDATE usage_counters SET total_bytes = total_bytes + {bytes}, file_count = file_count + {files}"
        ))
        .await;
}

async fn measure(s: &Service, tenant: TenantId) -> Measurement {
    Measurement::measure(&s.app, tenant).await.unwrap().unwrap()
}

#[test]
fn planted_drift_is_found_reported_and_repaired() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        assert_eq!(get(&ada).await, None);
        alice.upload(spec("a"), &[1; 300]).await.unwrap();
        plant_drift(&s, 1234, 5).await;
        s.superuser
            .execute("UPDATE quotas SET reserved_bytes = 10, reserved_file_count = 2, pending_deletion_bytes = 7 WHERE used_bytes > 0")
            .await;
        let queued = request(&ada, "", "").await.unwrap();
        assert_eq!((queued.state(), queued.last_calculated_time), (State::Queued, None));
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        let done = get(&ada).await.unwrap();
        assert_eq!(done.state(), State::Done);
        assert!(done.last_calculated_time.is_some());
        let drift =
            (done.drift_bytes, done.drift_files, done.drift_reserved_bytes, done.drift_reserved_files);
        assert_eq!(drift, (1234, 5, 10, 2));
        assert_eq!((done.drift_pending_deletion_bytes, done.drift_counters), (7, 1));
        let row = s.quota_row(&alice).await;
        assert_eq!((row.used_bytes, row.file_count, row.reserved_bytes), (300, 1, 0));
        let repaired = "SELECT details -> 'drift' ->> 'used_bytes' FROM audit_entries
                        WHERE action = {audit_action.usage_repair}";
        assert_eq!(s.superuser.query_texts(repaired).await, ["1234"]);

        request(&ada, "", "").await.unwrap();
        worker::run_due_jobs(&s.app).await;
        let clean = get(&ada).await.unwrap();
        assert_eq!((clean.state(), clean.drift_bytes, clean.drift_counters), (State::Done, 0, 0));
        assert_eq!(s.superuser.query_texts(repaired).await.len(), 1, "nothing was repaired");
    });
}

#[test]
fn repair_keeps_changes_after_the_measurement() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let tenant: TenantId = alice.tenant_id().await.parse().unwrap();
        let first = file_id(&alice.upload(spec("a"), &[1; 300]).await.unwrap());
        alice.upload(spec("c"), &[4; 500]).await.unwrap();
        plant_drift(&s, -100, 0).await;
        request(&ada, "", "").await.unwrap();
        let measured = measure(&s, tenant).await;
        assert_eq!(get(&ada).await.unwrap().state(), State::Running);
        alice.upload(spec("b"), &[2; 50]).await.unwrap();
        alice.upload_version(&first, &[3; 7]).await.unwrap();
        alice.delete_version(&first, 1).await.unwrap();
        measured.repair(&s.app).await.unwrap();
        let row = s.quota_row(&alice).await;
        assert_eq!((row.used_bytes, row.file_count), (557, 3));
        assert_eq!(get(&ada).await.unwrap().drift_bytes, -100);
        worker::run_due_jobs(&s.app).await;
        assert_eq!(get(&ada).await.unwrap().drift_bytes, -100, "the job finds nothing to do");
    });
}

#[test]
fn drift_is_repaired_once_by_two_workers() {
    service_test(|s| async move {
        let alice = s.alice();
        let tenant: TenantId = alice.tenant_id().await.parse().unwrap();
        alice.upload(spec("a"), &[1; 300]).await.unwrap();
        plant_drift(&s, 100, 0).await;
        request(&s.ada(), "", "").await.unwrap();
        let lost = measure(&s, tenant).await;
        let newest = measure(&s, tenant).await;
        lost.repair(&s.app).await.unwrap();
        assert_eq!(s.quota_row(&alice).await.used_bytes, 400, "a worker that lost its lease repairs nothing");
        newest.repair(&s.app).await.unwrap();
        assert_eq!(s.quota_row(&alice).await.used_bytes, 300);
        worker::run_due_jobs(&s.app).await;
    });
}

#[test]
fn recalculation_is_exact_while_uploads_continue() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        alice.upload(spec("first"), &[1; 10]).await.unwrap();
        plant_drift(&s, 5000, 3).await;
        let changes = async {
            for round in 0..8 {
                let uploads = (0..16).map(|n| {
                    let alice = alice.clone();
                    async move {
                        let size = 100 + round * 16 + n;
                        let id = file_id(
                            &alice.upload(spec(&format!("{round} {n}")), &vec![9; size]).await.unwrap(),
                        );
                        if n % 4 == 0 {
                            alice.delete(&id).await.unwrap();
                            alice.purge(&id).await.unwrap();
                        }
                    }
                });
                join_all(uploads).await;
            }
        };
        let recalculations = async {
            for _ in 0..8 {
                request(&ada, "", "").await.unwrap();
                worker::run_due_jobs(&s.app).await;
            }
        };
        futures::join!(changes, recalculations);
        // All of the drift was repaired, and no upload was lost: fsck compares the quota at the end of the test.
        assert_eq!(s.quota_row(&alice).await.file_count, 1 + 8 * 12);
        let drifts = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.usage_repair}";
        assert_eq!(s.superuser.query_number(drifts).await, 1, "uploads in progress are no drift");
    });
}

#[test]
fn usage_above_the_limit_is_reported_and_not_repaired() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        alice.upload(spec("a"), &[1; 300]).await.unwrap();
        plant_drift(&s, -200, 0).await;
        ada.set_limit_bytes(250).await;
        request(&ada, "", "").await.unwrap();
        worker::run_due_jobs(&s.app).await;
        let exceeded = get(&ada).await.unwrap();
        assert_eq!((exceeded.state(), exceeded.drift_bytes), (State::LimitExceeded, -200));
        assert_eq!(s.quota_row(&alice).await.used_bytes, 100);
        let counted = s.superuser.query_number("SELECT sum(total_bytes) FROM usage_counters").await;
        assert_eq!(counted, 100, "counters and quota are repaired together");
        ada.update_quota("", Quota { limit_bytes: 300, ..Quota::default() }, &["limit_bytes"]).await.unwrap();
        request(&ada, "", "").await.unwrap();
        worker::run_due_jobs(&s.app).await;
        assert_eq!(get(&ada).await.unwrap().state(), State::Done);
    });
}

#[test]
fn recalculation_is_requested_by_admins_and_operators() {
    service_test(|s| async move {
        let (alice, ada, operator) = (s.alice(), s.ada(), s.operator());
        let tenant = alice.tenant_id().await;
        assert_eq!(request(&alice, "", "").await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(request(&s.gus(), &tenant, "").await.unwrap_err().code(), Code::NotFound);
        assert_eq!(request(&operator, "", "").await.unwrap_err().code(), Code::InvalidArgument);
        let id = "0193a7a0-0000-7000-8000-000000000105";
        let first = request(&ada, "", id).await.unwrap();
        worker::run_due_jobs(&s.app).await;
        assert_eq!(request(&ada, "", id).await.unwrap(), first, "a retry returns the stored response");
        assert_eq!(get(&ada).await.unwrap().state(), State::Done);
        let again = request(&operator, &tenant, "").await.unwrap();
        assert_eq!(request(&ada, "", "").await.unwrap(), again, "one is queued already");
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
    });
}
