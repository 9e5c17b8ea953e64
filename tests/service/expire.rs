//! Uploads whose lease ran out are given up, and what became a file never is.

use chrono::Duration;
use strongroom::{app::uploads::expire::expire_uploads, domain::object_key::ObjectKey};

use crate::{
    harness::{PART, Service, reason, service_test},
    sweep::{Unfinished, is_there, key, put},
    upload::pattern,
};

/// What was given up in the store and waits for its row to go, and under which key.
async fn given_up(s: &Service, hours_ago: u32) -> ObjectKey {
    let key = key(s, "live", None).await;
    put(s, &key).await;
    let row =
        "INSERT INTO uploads (tenant_id, id, state, lease_expire_time, reserved_bytes, blob_id, provider,
                   storage_key, created_by, create_time)
               SELECT $1::text::uuid, $2::text::uuid, 3, now() - make_interval(hours => $4::text::integer), 1,
                   $2::text::uuid, $5, $3, 'alice', now()";
    let (tenant, id, provider) = (key.tenant().to_string(), key.blob().to_string(), s.store.provider());
    s.owner.rows(row, &[&tenant, &id, &key.to_string(), &hours_ago.to_string(), &provider]).await;
    key
}

#[test]
fn an_upload_that_was_committed_and_forgotten_after_it_was_listed_as_expired_keeps_its_object() {
    service_test(|s| async move {
        let [first, forgotten, referred] =
            [given_up(&s, 3).await, given_up(&s, 2).await, given_up(&s, 1).await];
        // The round has its list when it waits for the first one.
        s.owner.run("BEGIN; LOCK TABLE blobs IN ACCESS EXCLUSIVE MODE").await;
        let app = s.app.clone();
        let round = tokio::spawn(async move { expire_uploads(&app).await.unwrap() });
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                       WHERE d.datname = current_database() AND NOT l.granted";
        s.until("the round waits", || async { s.owner.number(waiting).await > 0 }).await;
        s.owner.run(&format!("DELETE FROM uploads WHERE id = '{}'", forgotten.blob())).await;
        let blob = "INSERT INTO blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
                    VALUES ($1::text::uuid, $2::text::uuid, $4, $3, 10, sha256(''), '12345678', now())";
        let (tenant, id) = (referred.tenant().to_string(), referred.blob().to_string());
        s.owner.rows(blob, &[&tenant, &id, &referred.to_string(), &s.store.provider()]).await;
        s.owner.run("COMMIT").await;
        assert_eq!(round.await.unwrap().done, 1);
        assert!(!is_there(&s, &first).await);
        assert!(is_there(&s, &forgotten).await && is_there(&s, &referred).await);
        s.owner.run("DELETE FROM uploads").await;
        s.store.delete(&forgotten).await.unwrap();
    });
}

#[test]
fn an_upload_whose_lease_ran_out_is_not_committed_though_nobody_gave_it_up() {
    service_test(|s| async move {
        let running = Unfinished::begin(&s, &pattern(4 * PART)).await;
        s.clock.advance(Duration::hours(24));
        let status = running.finish().await.unwrap_err();
        assert_eq!(reason(&status), "UPLOAD_FENCED");
        s.until("it is given back", || async { s.owner.number("SELECT count(*) FROM uploads").await == 0 })
            .await;
    });
}
