//! Claims of blobs: a worker that was paused until another one claimed its blob neither renews nor finishes that claim,
//! and records no result.

use chrono::Duration;
use strongroom::{
    db::{
        Database,
        blob_claims::{self, BlobClaim, BlobWork, ClaimPause},
        blob_replicas,
    },
    domain::{
        file::ContentState,
        ids::{BlobId, ClaimId, TenantId},
    },
    proto::v1::FileState,
    worker::{schedule::run_ticks_now, tick::Tick},
};
use uuid::Uuid;

use crate::{
    harness::{PART, Service, pattern, service_test, service_test_with},
    replica::{CLAIM, COPIES, configure_copies, list_keys, repair, replicate},
    scrub::{flip_bit, object_key, scrub, upload_file},
};

const CLAIMED: &str = "SELECT count(*) FROM blob_claims";

/// The lock that the change of the row of a blob waits for, but not its claim.
const LOCK_BLOBS: &str = "SELECT FROM blobs FOR NO KEY UPDATE";

const LOCK_FILES: &str = "SELECT FROM files FOR UPDATE";

async fn claim(db: &Database, tenant: TenantId, blob: BlobId, id: u128) -> Option<BlobClaim> {
    let mut tx = db.system_tx().await.unwrap();
    let id = ClaimId::from_uuid(Uuid::from_u128(id));
    let claims = blob_claims::claim(&mut tx, BlobWork::Scrub, &[(tenant, blob)], id, 60).await.unwrap();
    tx.commit().await.unwrap();
    claims.into_iter().next()
}

/// Returns the tenant and the id of the only blob.
async fn find_blob(s: &Service) -> (TenantId, BlobId) {
    let ids = s.superuser.query_texts("SELECT unnest(ARRAY[tenant_id, id])::text FROM blobs").await;
    let [tenant, blob] = [0, 1].map(|index| Uuid::parse_str(&ids[index]).unwrap());
    (TenantId::from_uuid(tenant), BlobId::from_uuid(blob))
}

#[test]
fn claim_of_one_kind_of_work_leaves_the_others() {
    service_test_with(configure_copies, |s| async move {
        upload_file(&s, 10).await;
        let (tenant, blob) = find_blob(&s).await;
        claim(&s.db, tenant, blob, 1).await.unwrap();
        assert_eq!(scrub(&s).await, 0, "another process reads it");
        assert_eq!(replicate(&s).await, 1);
    });
}

#[test]
fn pause_doubles_up_to_its_maximum() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        let (tenant, blob) = find_blob(&s).await;
        let expires = async || {
            s.superuser.query_number("SELECT extract(epoch FROM expire_time) FROM blob_claims").await
        };
        for (number, seconds) in [(1, 10), (2, 20), (3, 40), (4, 50), (5, 50)] {
            let failed = claim(&s.db, tenant, blob, number).await.unwrap();
            let claimed_for_a_minute = expires().await;
            let mut tx = s.db.system_tx().await.unwrap();
            let pause = ClaimPause { base_seconds: 10, max_seconds: 50 };
            blob_claims::fail(&mut tx, failed, pause).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(expires().await - claimed_for_a_minute + 60, seconds, "{number}");
            s.clock.advance(Duration::minutes(2));
        }
    });
}

/// Lists of blobs are read before they are claimed.
#[test]
fn blob_that_changed_before_its_claim_is_left() {
    service_test_with(configure_copies, |s| async move {
        upload_file(&s, 10).await;
        let (tenant, blob) = find_blob(&s).await;
        let is_pending = async || {
            let mut tx = s.db.system_tx().await.unwrap();
            let found = blob_replicas::find_pending(&mut tx, tenant, blob, "main").await;
            tx.commit().await.unwrap();
            found.unwrap().is_some()
        };
        assert!(is_pending().await);
        s.superuser.set_content_state(ContentState::Error).await;
        assert!(!is_pending().await, "it is lost");
        s.superuser.set_content_state(ContentState::Available).await;

        // It has moved to the provider of the copy.
        s.superuser.execute(&format!("UPDATE blobs SET provider = '{COPIES}'")).await;
        let mut tx = s.db.system_tx().await.unwrap();
        let copy = object_key(&s).await;
        assert!(!blob_replicas::record(&mut tx, tenant, blob, COPIES, &copy).await.unwrap());
        tx.commit().await.unwrap();
        s.superuser.execute("UPDATE blobs SET provider = 'main'").await;

        assert_eq!(replicate(&s).await, 1);
        let mut tx = s.db.system_tx().await.unwrap();
        let repairable = blob_replicas::find_repairable(&mut tx, tenant, blob, "main").await.unwrap();
        tx.commit().await.unwrap();
        assert!(repairable.is_none(), "it is intact again");
    });
}

#[test]
fn lost_claim_is_neither_renewed_nor_finished() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        let (tenant, blob) = find_blob(&s).await;
        let lost = claim(&s.db, tenant, blob, 1).await.unwrap();
        assert_eq!(claim(&s.db, tenant, blob, 2).await, None);
        s.clock.advance(Duration::minutes(2));
        let mut tx = s.db.system_tx().await.unwrap();
        assert!(blob_claims::renew(&mut tx, lost, 60).await.unwrap(), "it has expired, but nobody took it");
        tx.commit().await.unwrap();
        s.clock.advance(Duration::minutes(2));
        let newer = claim(&s.db, tenant, blob, 2).await.unwrap();

        let mut tx = s.db.system_tx().await.unwrap();
        assert!(!blob_claims::renew(&mut tx, lost, 60).await.unwrap());
        let pause = ClaimPause { base_seconds: 600, max_seconds: 600 };
        blob_claims::fail(&mut tx, lost, pause).await.unwrap();
        assert!(!blob_claims::finish(&mut tx, lost).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(s.superuser.query_number("SELECT sum(failure_count) FROM blob_claims").await, 0);
        let mut tx = s.db.system_tx().await.unwrap();
        assert!(blob_claims::finish(&mut tx, newer).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(s.superuser.query_number(CLAIMED).await, 0);
    });
}

/// Runs a tick whose result waits for a lock, and lets another process claim the blob meanwhile. Returns the number of
/// finished blobs.
async fn run_and_lose_claim(s: &Service, tick: Tick, lock: &str) -> usize {
    let locker = s.database.connect_as_superuser().await;
    locker.execute(&format!("BEGIN; {lock}")).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let lose = async {
        s.wait_until("the result waits for the lock", || async {
            s.superuser.query_number(waiting).await > 0
        })
        .await;
        s.superuser.execute("UPDATE blob_claims SET claim_id = gen_random_uuid()").await;
        locker.execute("ROLLBACK").await;
    };
    let ticks = [tick];
    let (report, ()) = tokio::join!(run_ticks_now(&s.app, &ticks), lose);
    assert_eq!(s.superuser.query_number(CLAIMED).await, 1, "the claim of the other process remains");
    report.done
}

#[test]
fn worker_without_claim_records_no_verification() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        assert_eq!(run_and_lose_claim(&s, Tick::Scrub, LOCK_BLOBS).await, 0);
        let verified = "SELECT count(*) FROM blobs WHERE last_verified_time IS NOT NULL";
        assert_eq!(s.superuser.query_number(verified).await, 0);
        s.clock.advance(CLAIM);
        assert_eq!(scrub(&s).await, 1);
        assert_eq!(s.superuser.query_number(verified).await, 1);
    });
}

#[test]
fn worker_without_claim_records_no_damage() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 10).await;
        flip_bit(&s, &object_key(&s).await, 10).await;
        assert_eq!(run_and_lose_claim(&s, Tick::Scrub, LOCK_FILES).await, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);
        s.clock.advance(CLAIM);
        assert_eq!(scrub(&s).await, 1);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Error);
    });
}

#[test]
fn worker_without_claim_records_no_copy() {
    service_test_with(configure_copies, |s| async move {
        upload_file(&s, 10).await;
        assert_eq!(run_and_lose_claim(&s, Tick::ReplicateBlobs, LOCK_BLOBS).await, 0);
        let copied = "SELECT count(*) FROM blobs WHERE replica_key IS NOT NULL";
        assert_eq!(s.superuser.query_number(copied).await, 0);
        s.clock.advance(CLAIM);
        assert_eq!(replicate(&s).await, 1);
        run_ticks_now(&s.app, &[Tick::DeleteStrayObjects]).await;
        assert_eq!(list_keys(&s, "copies").await.len(), 1, "the first copy is deleted");
    });
}

#[test]
fn worker_without_claim_records_no_repair() {
    service_test_with(configure_copies, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, PART).await;
        replicate(&s).await;
        s.clock.advance(Duration::seconds(1));
        flip_bit(&s, &object_key(&s).await, PART).await;
        scrub(&s).await;
        assert_eq!(run_and_lose_claim(&s, Tick::RepairBlobs, LOCK_FILES).await, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Error);
        s.clock.advance(CLAIM);
        assert_eq!(repair(&s).await, 1);
        assert_eq!(s.alice().read(&id).await.unwrap(), pattern(PART));
    });
}
