//! Files that delete themselves: at their expire time, or when their retention says so. Time moves when the test says so.

use chrono::Duration;
use strongroom::{
    domain::{clock::Clock as _, file::ContentState},
    proto::v1::{FileState, UploadSpec},
    worker,
};
use tonic::Code;

use crate::harness::{Caller, Service, file_id, service_test, spec};

/// What expires in an hour.
async fn expiring(s: &Service, caller: &Caller, name: &str) -> String {
    let seconds = (s.clock.now() + Duration::hours(1)).timestamp();
    let expire_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
    let told = UploadSpec { expire_time, ..spec(name) };
    file_id(&caller.upload(told, b"0123456789").await.unwrap())
}

/// From now on the trash of a caller's tenant keeps nothing.
async fn without_trash(s: &Service, caller: &Caller) {
    let sql = "UPDATE tenants SET policy = jsonb_set(policy, '{trash,days}', '0') WHERE id = $1::text::uuid";
    s.owner.rows(sql, &[&caller.tenant_id().await]).await;
}

async fn keep_for(s: &Service, days: u32) {
    s.owner.run(&format!("UPDATE files SET retain_until_time = now() + interval '{days} days'")).await;
}

#[test]
fn a_file_goes_to_the_trash_at_its_expire_time_and_not_before() {
    service_test(|s| async move {
        let id = expiring(&s, &s.alice(), "a").await;
        let kept = file_id(&s.alice().upload(spec("kept"), b"x").await.unwrap());
        s.clock.advance(Duration::minutes(59));
        assert_eq!(worker::run_round(&s.app).await, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);

        s.clock.advance(Duration::minutes(1));
        assert_eq!(worker::run_round(&s.app).await, 1, "one job is done");
        let deleted = s.alice().get(&id).await.unwrap();
        assert_eq!(deleted.state(), FileState::Deleted);
        let (at, until) = (deleted.delete_time.unwrap(), deleted.purge_time.unwrap());
        assert_eq!(until.seconds - at.seconds, 30 * 24 * 3600, "by the rule of the policy");
        assert_eq!(deleted.updated_by, "strongroom");
        assert_eq!(s.alice().get(&kept).await.unwrap().state(), FileState::Available);
        let said = "SELECT format('%s %s %s', actor_kind, actor_id, details ->> 'reason') FROM audit_entries
                    WHERE action = 4";
        assert_eq!(s.owner.texts(said).await, ["4 strongroom expire_time"]);
        assert_eq!(s.owner.number("SELECT count(*) FROM events WHERE kind = 2").await, 1);

        assert_eq!(worker::run_round(&s.app).await, 0, "what is in the trash is not deleted again");
        assert_eq!(s.owner.number("SELECT count(*) FROM events WHERE kind = 2").await, 1);
    });
}

#[test]
fn a_file_is_deleted_when_its_retention_says_so_at_the_latest() {
    service_test(|s| async move {
        let told = UploadSpec { retention_days: 7, ..spec("a") };
        let id = file_id(&s.alice().upload(told, b"x").await.unwrap());
        s.clock.advance(Duration::days(7) - Duration::seconds(1));
        assert_eq!(worker::run_round(&s.app).await, 0);
        s.clock.advance(Duration::seconds(1));
        assert_eq!(worker::run_round(&s.app).await, 1);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        let said = "SELECT details ->> 'reason' FROM audit_entries WHERE action = 4";
        assert_eq!(s.owner.texts(said).await, ["retention_days"]);
    });
}

#[test]
fn where_there_is_no_trash_an_expired_file_is_purged() {
    service_test(|s| async move {
        let id = expiring(&s, &s.alice(), "a").await;
        without_trash(&s, &s.alice()).await;
        s.clock.advance(Duration::hours(1));
        assert_eq!(worker::run_round(&s.app).await, 1);
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(s.owner.texts("SELECT purged_by FROM tombstones").await, ["strongroom"]);
        assert_eq!(s.book(&s.alice()).await.used_bytes, 0);
    });
}

#[test]
fn a_file_that_must_be_kept_may_go_to_the_trash_and_is_not_purged_before_its_time() {
    service_test(|s| async move {
        let id = expiring(&s, &s.alice(), "a").await;
        keep_for(&s, 60).await;
        s.clock.advance(Duration::hours(1));
        assert_eq!(worker::run_round(&s.app).await, 1);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await, 0, "its time in the trash is over, and it must be kept");
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await, 1);
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn a_file_that_must_be_kept_where_there_is_no_trash_stays_until_it_may_go_and_keeps_nobody_busy() {
    service_test(|s| async move {
        let id = expiring(&s, &s.alice(), "a").await;
        without_trash(&s, &s.alice()).await;
        keep_for(&s, 60).await;
        s.clock.advance(Duration::days(59));
        assert_eq!(worker::run_round(&s.app).await, 0, "no job comes of it");
        assert_eq!(s.owner.number("SELECT count(*) FROM finished_jobs").await, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);
        s.clock.advance(Duration::days(2));
        assert_eq!(worker::run_round(&s.app).await, 1);
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn an_archived_file_and_a_quarantined_one_expire_like_any_other() {
    service_test(|s| async move {
        let archived = expiring(&s, &s.alice(), "archived").await;
        s.alice().archive(&archived).await.unwrap();
        let infected = expiring(&s, &s.mallory(), "infected").await;
        let tenant = s.mallory().tenant_id().await;
        for table in ["versions", "files"] {
            let (state, sql) = (
                ContentState::Quarantined.number(),
                format!("UPDATE {table} SET content_state = {{}} WHERE tenant_id = '{tenant}'"),
            );
            s.owner.past_guards(table, &sql.replace("{}", &state.to_string())).await;
        }
        s.clock.advance(Duration::hours(1));
        assert_eq!(worker::run_round(&s.app).await, 2);
        assert_eq!(s.alice().get(&archived).await.unwrap().state(), FileState::Deleted);
        assert_eq!(s.mallory().get(&infected).await.unwrap().state(), FileState::Deleted);
        s.owner.run("UPDATE files SET expire_time = NULL").await;
        assert_eq!(s.alice().undelete(&archived).await.unwrap().state(), FileState::Archived);
        assert_eq!(
            s.mallory().undelete(&infected).await.unwrap().state(),
            FileState::Quarantined,
            "deleting frees nothing"
        );
    });
}

#[test]
fn what_is_restored_after_its_time_goes_again_unless_it_is_given_a_later_one() {
    service_test(|s| async move {
        let (again, longer) =
            (expiring(&s, &s.alice(), "again").await, expiring(&s, &s.alice(), "longer").await);
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

/// As many more of a file as are said, past the service: the same row, version and books.
async fn multiply(s: &Service, count: u32) {
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
             request_id, address, details)
         SELECT tenant_id, create_time, 1, 'alice', 2, true, copy, 1, '', '', '{{}}' FROM version, copies;
         INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id, owner_id, audience, readers)
         SELECT tenant_id, create_time, 1, copy, 1, 'alice', 'alice', 3, '{{}}' FROM version, copies;
         UPDATE usage_counters SET file_count = file_count + {count}, total_bytes = total_bytes + 10 * {count};
         UPDATE quotas SET file_count = file_count + {count}, used_bytes = used_bytes + 10 * {count}"
    );
    s.owner.run(&sql).await;
}

#[test]
fn a_tenant_with_more_expired_files_than_a_job_deletes_has_the_rest_deleted_after_others_had_their_turn() {
    service_test(|s| async move {
        expiring(&s, &s.alice(), "a").await;
        multiply(&s, 1_050).await;
        s.clock.advance(Duration::hours(1));
        assert_eq!(worker::run_round(&s.app).await, 2, "one job, twice");
        assert_eq!(s.owner.number("SELECT count(*) FROM files WHERE delete_time IS NULL").await, 0);
        assert_eq!(s.owner.number("SELECT count(*) FROM audit_entries WHERE action = 4").await, 1_051);
        assert_eq!(s.owner.number("SELECT count(*) FROM jobs").await, 0);
    });
}
