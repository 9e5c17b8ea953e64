//! Uploads with an expired lease are abandoned; committed uploads never are.

use chrono::Duration;
use strongroom::{app::uploads::expire::expire_uploads, domain::object_key::ObjectKey};

use crate::{
    harness::{PART, Service, reason, service_test},
    sweep::{UnfinishedUpload, new_key, object_exists, put_object},
    upload::pattern,
};

/// Inserts an abandoned upload with its object and returns the key of the object.
async fn insert_abandoned_upload(s: &Service, hours_ago: u32) -> ObjectKey {
    let key = new_key(s, "live", None).await;
    put_object(s, &key).await;
    let row =
        "INSERT INTO uploads (tenant_id, id, state, lease_expire_time, reserved_bytes, blob_id, provider,
                   storage_key, created_by, create_time)
               SELECT $1::text::uuid, $2::text::uuid, {upload_state.abandoned},
                   now() - make_interval(hours => $4::text::integer), 1,
                   $2::text::uuid, $5, $3, 'alice', now()";
    let (tenant, id, provider) = (key.tenant().to_string(), key.blob().to_string(), s.store.provider());
    s.superuser.query_rows(row, &[&tenant, &id, &key.to_string(), &hours_ago.to_string(), &provider]).await;
    key
}

#[test]
fn upload_committed_after_listing_keeps_its_object() {
    service_test(|s| async move {
        let [first, deleted, committed] = [
            insert_abandoned_upload(&s, 3).await,
            insert_abandoned_upload(&s, 2).await,
            insert_abandoned_upload(&s, 1).await,
        ];
        // The round has listed all three uploads when it waits for the lock of the first.
        s.superuser.execute("BEGIN; LOCK TABLE blobs IN ACCESS EXCLUSIVE MODE").await;
        let app = s.app.clone();
        let round = tokio::spawn(async move { expire_uploads(&app).await.unwrap() });
        let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                       WHERE d.datname = current_database() AND NOT l.granted";
        s.wait_until("the round waits for the lock", || async {
            s.superuser.query_number(waiting).await > 0
        })
        .await;
        s.superuser.execute(&format!("DELETE FROM uploads WHERE id = '{}'", deleted.blob())).await;
        let blob = "INSERT INTO blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
                    VALUES ($1::text::uuid, $2::text::uuid, $4, $3, 10, sha256(''), '12345678', now())";
        let (tenant, id) = (committed.tenant().to_string(), committed.blob().to_string());
        s.superuser.query_rows(blob, &[&tenant, &id, &committed.to_string(), &s.store.provider()]).await;
        s.superuser.execute("COMMIT").await;
        assert_eq!(round.await.unwrap().done, 1);
        assert!(!object_exists(&s, &first).await);
        assert!(object_exists(&s, &deleted).await && object_exists(&s, &committed).await);
        s.superuser.execute("DELETE FROM uploads").await;
        s.store.delete(&deleted).await.unwrap();
    });
}

#[test]
fn upload_with_expired_lease_cannot_be_committed() {
    service_test(|s| async move {
        let running = UnfinishedUpload::start(&s, &pattern(4 * PART)).await;
        s.clock.advance(Duration::hours(24));
        let status = running.finish().await.unwrap_err();
        assert_eq!(reason(&status), "UPLOAD_FENCED");
        s.wait_until("the upload is deleted", || async {
            s.superuser.query_number("SELECT count(*) FROM uploads").await == 0
        })
        .await;
    });
}
