//! The queries of background work read few rows, independent of the number of jobs and files. PostgreSQL
//! counts the rows.

use std::future::Future;

use strongroom::{
    config::Config,
    db::{
        Database, Viewer, blob_turns, event_stream, expiring_files,
        jobs::{self, ClaimLimits, JobState},
        replications, scrub_counts, scrubs,
    },
    domain::{event_position::EventPosition, ids::TenantId},
};

use crate::{
    harness::{Service, database_options, service_test},
    jobs::tenant_of,
};

const ROWS_READ_MAX: i64 = 60;
const SERVICE_CONNECTIONS: &str = "FROM pg_stat_activity WHERE datname = current_database()
    AND usename IN ('strongroom_test_app', 'strongroom_test_system')";
const LIMITS: ClaimLimits = ClaimLimits { lease_seconds: 60, tenant_jobs_max: 2 };

async fn wait_until_connections_are_closed(s: &Service) {
    let count = format!("SELECT count(*) {SERVICE_CONNECTIONS}");
    s.wait_until("the connections are closed", || async { s.superuser.query_number(&count).await == 0 })
        .await;
}

/// Ends the connections of the service and publishes the statistics of the superuser. PostgreSQL otherwise
/// publishes rows that an idle session has read up to ten seconds later, so a measurement could count them.
pub(crate) async fn publish_rows_read(s: &Service) {
    let terminate = format!("SELECT count(pg_terminate_backend(pid)) {SERVICE_CONNECTIONS}");
    s.superuser.query_number(&terminate).await;
    wait_until_connections_are_closed(s).await;
    s.superuser.execute("SELECT pg_stat_force_next_flush()").await;
}

/// Runs queries on new connections. Returns their result and the number of rows that PostgreSQL read.
pub(crate) async fn count_rows_read<T, F: Future<Output = T>>(
    s: &Service,
    run: impl FnOnce(Database) -> F,
) -> (T, i64) {
    const ROWS_READ: &str = "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)";
    publish_rows_read(s).await;
    let before = s.superuser.query_number(ROWS_READ).await;
    let db = Database::open(&database_options(&Config::defaults().unwrap(), &s.database)).unwrap();
    let result = run(db).await;
    // PostgreSQL publishes the statistics of a connection when it closes.
    wait_until_connections_are_closed(s).await;
    (result, s.superuser.query_number(ROWS_READ).await - before)
}

#[test]
fn claim_reads_few_rows_of_long_queue() {
    service_test(|s| async move {
        let job = "'{\"kind\": \"delete_expired_files\"}'";
        // One tenant with many due jobs, one with many parked jobs, and two due jobs of other tenants at the
        // end.
        let many = |tenant: u32, state: JobState, count: u32| {
            let state = state.number();
            format!(
                "INSERT INTO jobs (tenant_id, id, payload, state, run_time, enqueue_time)
                 SELECT '00000000-0000-7000-8000-00000000000{tenant}', gen_random_uuid(), {job}, {state},
                        now() - interval '1 day', now() FROM generate_series(1, {count});"
            )
        };
        s.superuser
            .execute(
                &(many(1, JobState::Ready, 50_000)
                    + &many(2, JobState::Parked, 50_000)
                    + &many(2, JobState::Ready, 1)
                    + &many(3, JobState::Ready, 1)),
            )
            .await;
        s.superuser.execute("ANALYZE jobs").await;
        let (claimed, rows_read) = count_rows_read(&s, |db| async move {
            let mut tx = db.system_tx().await.unwrap();
            let found = jobs::list_candidates(&mut tx, None, 200, LIMITS).await.unwrap();
            let tenants: Vec<TenantId> =
                found.iter().filter(|found| found.is_due).map(|found| found.tenant).collect();
            assert_eq!((found.len(), tenants.len()), (3, 3));
            let claimed = jobs::claim(&mut tx, &tenants, LIMITS).await.unwrap().len();
            assert!(jobs::recover_lost(&mut tx, 10, 100).await.unwrap().is_empty());
            tx.commit().await.unwrap();
            claimed
        })
        .await;
        assert_eq!(claimed, 3);
        assert!((1..=ROWS_READ_MAX).contains(&rows_read), "read {rows_read} rows");
        s.superuser.execute("TRUNCATE jobs").await;
    });
}

#[test]
fn due_files_are_found_without_reading_other_files() {
    service_test(|s| async move {
        let (acme, globex) = (tenant_of(&s.alice()).await, tenant_of(&s.mallory()).await);
        let many = |tenant: TenantId, expire_time: &str, count: u32| {
            format!(
                "INSERT INTO files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
                    description, metadata, visibility, version, content_state, scan_status, mime_type,
                    declared_mime_type, media_kind, size_bytes, sha256, create_time, update_time, expire_time)
                 SELECT '{tenant}', gen_random_uuid(), 'owner', 'owner', 'owner', md5(n::text), 'n', 'media_resource',
                    '', '', '{{}}', {{visibility.organization}}, 1, {{content_state.available}},
                    {{scan_status.not_scanned}}, 'text/plain', 'text/plain', {{media_kind.other}}, n,
                        sha256(n::text::bytea), now(), now(),
                    {expire_time} FROM generate_series(1, {count}) AS n;"
            )
        };
        let rows = many(acme, "NULL", 20_000)
            + &many(globex, "now() + interval '1 day'", 20_000)
            + &many(globex, "NULL", 20_000)
            + &many(acme, "now() - interval '1 day'", 5);
        s.superuser.execute(&rows).await;
        s.superuser.execute("ANALYZE files").await;
        let (due, rows_read) = count_rows_read(&s, |db| async move {
            let mut tx = db.system_tx().await.unwrap();
            let found = expiring_files::list_tenants(&mut tx, None, 1_000).await.unwrap();
            tx.commit().await.unwrap();
            let mut tx = db.tenant_tx(acme, &Viewer::system()).await.unwrap();
            let files = expiring_files::list_due(&mut tx, true, None, 100).await.unwrap();
            tx.commit().await.unwrap();
            (
                found.iter().filter(|found| found.is_due).map(|found| found.tenant).collect::<Vec<_>>(),
                files.len(),
            )
        })
        .await;
        assert_eq!(due, (vec![acme], 5));
        assert!((1..=ROWS_READ_MAX).contains(&rows_read), "read {rows_read} rows");
        s.superuser
            .execute("TRUNCATE file_readers, file_tags, file_grants, share_grants, attachments, download_counts, versions, shares, files")
            .await;
    });
}

/// Each watch and webhook reads the stream again and again.
#[test]
fn events_are_found_without_reading_those_of_former_epochs() {
    service_test(|s| async move {
        s.upload_files(&["a"]).await;
        s.wait_until_events_are_readable().await;
        let acme = tenant_of(&s.alice()).await;
        // The former server had used many more transaction ids than this one.
        let former = format!(
            "INSERT INTO events (tenant_id, epoch, xid, create_time, kind, file_id, version, actor_id, owner_id, audience,
                readers)
             SELECT '{acme}', 0, (1000000000000 + n)::text::xid8, now(), {{event_kind.file_updated}}, gen_random_uuid(),
                1, 'a', 'a', {{visibility.organization}}, '{{}}' FROM generate_series(1, 20000) AS n"
        );
        s.superuser.execute(&former).await;
        s.superuser.execute("ANALYZE events").await;
        let (found, rows_read) = count_rows_read(&s, |db| async move {
            let mut tx = db.tenant_tx(acme, &Viewer::system()).await.unwrap();
            let start = EventPosition::start_of_epoch(1);
            let read = event_stream::read(&mut tx, start, &event_stream::EventFilter::default(), 100).await;
            let (_, newest) = event_stream::get_newest(&mut tx).await.unwrap();
            tx.commit().await.unwrap();
            (read.unwrap().events.len(), newest.unwrap().position.epoch)
        })
        .await;
        assert_eq!(found, (1, 1));
        assert!((1..=ROWS_READ_MAX).contains(&rows_read), "read {rows_read} rows");
        s.superuser.execute("DELETE FROM events WHERE epoch = 0").await;
    });
}

/// SQL that inserts pending blobs of a tenant, each with an available version.
fn insert_pending_blobs_sql(tenant: u32, count: u32) -> String {
    let tenant = format!("00000000-0000-7000-8000-00000000000{tenant}");
    format!(
        "INSERT INTO blobs (tenant_id, id, provider, storage_key, size_bytes, sha256, crc64nvme, create_time)
         SELECT '{tenant}', id, 'main', '{tenant}/report/2026/11/30/' || id, n, sha256(n::text::bytea),
            substr(sha256(n::text::bytea), 1, 8), now() - n * interval '1 second'
         FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, {count}) AS n) AS numbered;
         INSERT INTO versions (tenant_id, file_id, version, blob_id, content_state, scan_status, mime_type,
            declared_mime_type, media_kind, size_bytes, created_by, create_time)
         SELECT tenant_id, id, 1, id, {{content_state.available}}, {{scan_status.not_scanned}}, 'text/plain',
            'text/plain', {{media_kind.other}}, size_bytes, 'owner', create_time
         FROM blobs WHERE tenant_id = '{tenant}';"
    )
}

#[test]
fn blobs_to_copy_are_found_among_many_of_one_tenant() {
    const PART_ROWS: i64 = 50;
    service_test(|s| async move {
        // Without the triggers and the files.
        let rows = insert_pending_blobs_sql(1, 100_000)
            + &insert_pending_blobs_sql(2, 1)
            + &insert_pending_blobs_sql(3, 1);
        let rows = format!("SET session_replication_role = replica; {rows} RESET session_replication_role;");
        s.superuser.execute(&rows).await;
        s.superuser.execute("ANALYZE blobs, versions, blob_claims").await;
        let (tenants, rows_read) = count_rows_read(&s, |db| async move {
            let mut tx = db.system_tx().await.unwrap();
            let found = blob_turns::list_pending(&mut tx, &["main"], None, 20).await.unwrap();
            assert!(blob_turns::list_repairable(&mut tx, "main", &[], None, 20).await.unwrap().is_empty());
            tx.commit().await.unwrap();
            let mut tenants: Vec<TenantId> = found.iter().map(|found| found.tenant).collect();
            assert!(tenants[..3].is_sorted(), "each tenant has a turn");
            tenants.dedup();
            tenants.len()
        })
        .await;
        assert_eq!(tenants, 4, "the first one has another turn");
        assert!((1..=ROWS_READ_MAX).contains(&rows_read), "read {rows_read} rows");

        let ((), rows_read) = count_rows_read(&s, |db| async move {
            let mut tx = db.system_tx().await.unwrap();
            scrubs::lock_pass(&mut tx, "main").await.unwrap();
            assert!(!scrub_counts::count_next_part(&mut tx, "main", PART_ROWS).await.unwrap());
            assert!(!replications::count_next_part(&mut tx, "copies", PART_ROWS).await.unwrap());
            tx.commit().await.unwrap();
        })
        .await;
        assert!((1..=8 * PART_ROWS).contains(&rows_read), "read {rows_read} rows for parts of {PART_ROWS}");
        s.superuser.execute("TRUNCATE blobs CASCADE; DELETE FROM scrubs; DELETE FROM replications").await;
    });
}
