//! Files that are deleted at their expire time or after their retention days, on the test clock.

use chrono::Duration;
use strongroom::{
    domain::{clock::Clock as _, file::ContentState},
    proto::v1::{FileState, UploadSpec},
    worker,
};
use tonic::Code;

use crate::harness::{Caller, Service, file_id, service_test, spec};

/// Uploads a file that expires in an hour.
pub(crate) async fn upload_expiring(s: &Service, caller: &Caller, name: &str) -> String {
    let seconds = (s.clock.now() + Duration::hours(1)).timestamp();
    let expire_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
    let expiring = UploadSpec { expire_time, ..spec(name) };
    file_id(&caller.upload(expiring, b"0123456789").await.unwrap())
}

/// Sets the trash of a caller's tenant to zero days.
async fn disable_trash(s: &Service, caller: &Caller) {
    let sql = "UPDATE tenants SET policy = jsonb_set(policy, '{trash,days}', '0') WHERE id = $1::text::uuid";
    s.superuser.query_rows(sql, &[&caller.tenant_id().await]).await;
}

async fn retain_all_files(s: &Service, days: u32) {
    s.superuser
        .execute(&format!("UPDATE files SET retain_until_time = now() + interval '{days} days'"))
        .await;
}

#[test]
fn file_is_deleted_at_expire_time_and_not_before() {
    service_test(|s| async move {
        let id = upload_expiring(&s, &s.alice(), "a").await;
        let other = file_id(&s.alice().upload(spec("other"), b"x").await.unwrap());
        s.clock.advance(Duration::minutes(59));
        assert_eq!(worker::run_round(&s.app).await.done, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);

        s.clock.advance(Duration::minutes(1));
        assert_eq!(worker::run_round(&s.app).await.done, 1, "one job ran");
        let deleted = s.alice().get(&id).await.unwrap();
        assert_eq!(deleted.state(), FileState::Deleted);
        let (at, until) = (deleted.delete_time.unwrap(), deleted.purge_time.unwrap());
        assert_eq!(
            until.seconds - at.seconds,
            30 * 24 * 3600,
            "the policy keeps files in the trash for 30 days"
        );
        assert_eq!(deleted.updated_by, "strongroom");
        assert_eq!(s.alice().get(&other).await.unwrap().state(), FileState::Available);
        let entries =
            "SELECT format('%s %s %s', actor_kind, actor_id, details ->> 'reason') FROM audit_entries
                    WHERE action = {audit_action.file_delete}";
        assert_eq!(s.superuser.query_texts(entries).await, ["4 strongroom expire_time"]);
        assert_eq!(
            s.superuser
                .query_number("SELECT count(*) FROM events WHERE kind = {event_kind.file_deleted}")
                .await,
            1
        );

        assert_eq!(worker::run_round(&s.app).await.done, 0, "a file in the trash is not deleted again");
        assert_eq!(
            s.superuser
                .query_number("SELECT count(*) FROM events WHERE kind = {event_kind.file_deleted}")
                .await,
            1
        );
    });
}

#[test]
fn file_is_deleted_after_retention_days() {
    service_test(|s| async move {
        let retained = UploadSpec { retention_days: 7, ..spec("a") };
        let id = file_id(&s.alice().upload(retained, b"x").await.unwrap());
        s.clock.advance(Duration::days(7) - Duration::seconds(1));
        assert_eq!(worker::run_round(&s.app).await.done, 0);
        s.clock.advance(Duration::seconds(1));
        assert_eq!(worker::run_round(&s.app).await.done, 1);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        let reasons =
            "SELECT details ->> 'reason' FROM audit_entries WHERE action = {audit_action.file_delete}";
        assert_eq!(s.superuser.query_texts(reasons).await, ["retention_days"]);
    });
}

#[test]
fn expired_file_is_purged_without_trash() {
    service_test(|s| async move {
        let id = upload_expiring(&s, &s.alice(), "a").await;
        disable_trash(&s, &s.alice()).await;
        s.clock.advance(Duration::hours(1));
        assert_eq!(worker::run_round(&s.app).await.done, 1);
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(s.superuser.query_texts("SELECT purged_by FROM tombstones").await, ["strongroom"]);
        assert_eq!(s.quota_row(&s.alice()).await.used_bytes, 0);
    });
}

#[test]
fn retained_file_expires_to_trash_and_is_purged_later() {
    service_test(|s| async move {
        let id = upload_expiring(&s, &s.alice(), "a").await;
        retain_all_files(&s, 60).await;
        s.clock.advance(Duration::hours(1));
        assert_eq!(worker::run_round(&s.app).await.done, 1);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await.done, 0, "the file is retained after its purge time");
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await.done, 1);
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn retained_file_without_trash_causes_no_jobs() {
    service_test(|s| async move {
        let id = upload_expiring(&s, &s.alice(), "a").await;
        disable_trash(&s, &s.alice()).await;
        retain_all_files(&s, 60).await;
        s.clock.advance(Duration::days(59));
        assert_eq!(worker::run_round(&s.app).await.done, 0, "a retained file causes no job");
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM finished_jobs").await, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);
        s.clock.advance(Duration::days(2));
        assert_eq!(worker::run_round(&s.app).await.done, 1);
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn archived_and_quarantined_files_expire() {
    service_test(|s| async move {
        let archived = upload_expiring(&s, &s.alice(), "archived").await;
        s.alice().archive(&archived).await.unwrap();
        let infected = upload_expiring(&s, &s.mallory(), "infected").await;
        let tenant = s.mallory().tenant_id().await;
        for table in ["versions", "files"] {
            let (state, sql) = (
                ContentState::Quarantined.number(),
                format!("UPDATE {table} SET content_state = {{}} WHERE tenant_id = '{tenant}'"),
            );
            s.superuser.execute_without_triggers(table, &sql.replace("{}", &state.to_string())).await;
        }
        s.clock.advance(Duration::hours(1));
        assert_eq!(worker::run_round(&s.app).await.done, 2);
        assert_eq!(s.alice().get(&archived).await.unwrap().state(), FileState::Deleted);
        assert_eq!(s.mallory().get(&infected).await.unwrap().state(), FileState::Deleted);
        s.superuser.execute("UPDATE files SET expire_time = NULL").await;
        assert_eq!(s.alice().undelete(&archived).await.unwrap().state(), FileState::Archived);
        assert_eq!(
            s.mallory().undelete(&infected).await.unwrap().state(),
            FileState::Quarantined,
            "delete and undelete do not release a quarantined file"
        );
    });
}

#[test]
fn undeleted_file_expires_again_without_later_expire_time() {
    service_test(|s| async move {
        let (again, longer) =
            (upload_expiring(&s, &s.alice(), "again").await, upload_expiring(&s, &s.alice(), "longer").await);
        s.clock.advance(Duration::hours(1));
        worker::run_round(&s.app).await;
        for id in [&again, &longer] {
            s.alice().undelete(id).await.unwrap();
        }
        let seconds = (s.clock.now() + Duration::hours(1)).timestamp();
        let file = strongroom::proto::v1::File {
            id: longer.clone(),
            expire_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        };
        s.alice().update(file, &["expire_time"]).await.unwrap();
        worker::run_round(&s.app).await;
        assert_eq!(s.alice().get(&again).await.unwrap().state(), FileState::Deleted);
        assert_eq!(s.alice().get(&longer).await.unwrap().state(), FileState::Available);
    });
}

/// Inserts `count` copies of the only file with their versions, audit entries and events, and charges them.
async fn copy_file_rows(s: &Service, count: u32) {
    let sql = format!(
        "CREATE TEMPORARY TABLE copies AS SELECT gen_random_uuid() AS copy FROM generate_series(1, {count});
         CREATE TEMPORARY TABLE one AS SELECT * FROM files;
         ALTER TABLE one DROP COLUMN audience;
         CREATE TEMPORARY TABLE many AS SELECT one.*, copy FROM one, copies;
         UPDATE many SET id = copy;
         ALTER TABLE many DROP COLUMN copy;
         INSERT INTO files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
             description, metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type,
             media_kind, size_bytes, sha256, revision, create_time, update_time, expire_time)
         SELECT tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
             description, metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type,
             media_kind, size_bytes, sha256, revision, create_time, update_time, expire_time FROM many;
         CREATE TEMPORARY TABLE version AS SELECT * FROM versions;
         INSERT INTO versions (tenant_id, file_id, version, blob_id, content_state, scan_status, mime_type,
             declared_mime_type, media_kind, size_bytes, sha256, created_by, create_time)
         SELECT tenant_id, copy, version, blob_id, content_state, scan_status, mime_type, declared_mime_type,
             media_kind, size_bytes, sha256, created_by, create_time FROM version, copies;
         INSERT INTO audit_entries (tenant_id, create_time, actor_kind, actor_id, action, is_allowed, file_id, version,
             call_id, address, details)
         SELECT tenant_id, create_time, {{actor_kind.user}}, 'alice',
             {{audit_action.file_upload}}, true, copy, 1, '',
             '', '{{}}' FROM version, copies;
         INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id, owner_id, audience, readers)
         SELECT tenant_id, create_time, {{event_kind.file_created}}, copy, 1, 'alice', 'alice',
             {{visibility.organization}}, '{{}}' FROM version, copies;
         UPDATE usage_counters SET file_count = file_count + {count}, total_bytes = total_bytes + 10 * {count};
         UPDATE quotas SET file_count = file_count + {count}, used_bytes = used_bytes + 10 * {count}"
    );
    s.superuser.execute(&sql).await;
}

#[test]
fn second_run_of_job_deletes_remaining_expired_files() {
    service_test(|s| async move {
        upload_expiring(&s, &s.alice(), "a").await;
        copy_file_rows(&s, 1_050).await;
        s.clock.advance(Duration::hours(1));
        assert_eq!(worker::run_round(&s.app).await.done, 2, "the same job runs twice");
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM files WHERE delete_time IS NULL").await, 0);
        assert_eq!(
            s.superuser
                .query_number("SELECT count(*) FROM audit_entries WHERE action = {audit_action.file_delete}")
                .await,
            1_051
        );
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM jobs").await, 0);
    });
}
