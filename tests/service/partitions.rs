//! Tables that are partitioned by time: no row depends on the partition that stores it, and retention drops what is
//! old, although no worker ran for weeks or a clock was wrong.

use chrono::{Duration, Months};
use strongroom::{
    app::retention::create_upcoming_partitions, domain::clock::Clock as _, proto::v1::FileEventKind as Kind,
};

use crate::{
    harness::{Service, service_test, service_test_with, spec},
    watch::upload_file,
};

/// The rows of `events` in the default partition.
const DEFAULT_EVENTS: &str = "SELECT count(*) FROM events_default";

/// Partitions of a period that do not begin where the former one ends, or not at midnight UTC. The bounds are
/// printed in the time zone of the session, which is UTC here.
const WRONG_BOUNDS: &str = "
    WITH bounds AS (
        SELECT i.inhparent::regclass::text AS parent, c.relname,
            substring(pg_get_expr(c.relpartbound, c.oid) FROM $$FROM \\('([^']*)'\\)$$)::timestamptz AS start_time,
            substring(pg_get_expr(c.relpartbound, c.oid) FROM $$TO \\('([^']*)'\\)$$)::timestamptz AS end_time
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE c.relname ~ '_[0-9]+$')
    SELECT count(*) FROM bounds
    WHERE start_time <> to_timestamp(right(relname, 8) || '+00', 'YYYYMMDDTZH')
       OR end_time <> (start_time AT TIME ZONE 'UTC'
            + CASE WHEN parent IN ('access_log', 'events', 'audit_entries') THEN interval '1 month' ELSE interval '1 day' END)
            AT TIME ZONE 'UTC'";

async fn run_worker(s: &Service) {
    strongroom::worker::run_round(&s.app).await;
}

/// Checks that a watch from `cursor` reports the creation of these files, in this order. Events from before the cursor
/// may be repeated, while transactions of other tests are running.
async fn assert_created_after(s: &Service, cursor: &str, files: &[String]) {
    let mut watcher = s.bob().watch_files_after(cursor).await.expect("the cursor is valid");
    let mut expected = files.iter().peekable();
    while let Some(file) = expected.peek() {
        let event = watcher.next_event().await;
        if event.kind() == Kind::Created && event.file_id == **file {
            expected.next();
        }
    }
}

#[test]
fn events_survive_weeks_without_a_worker() {
    service_test(|s| async move {
        // Past the ends of the current and the next month, for which partitions exist.
        s.clock.advance(Duration::days(75));
        let cursor = s.bob().watch_files().await.cursor;
        let mut files = vec![upload_file(&s.alice(), spec("a")).await];
        s.clock.advance(Duration::days(20));
        files.push(upload_file(&s.alice(), spec("b")).await);
        assert!(s.superuser.query_number(DEFAULT_EVENTS).await >= 2, "no partition exists");

        // Drops all partitions of the past, and creates the current and the next one.
        run_worker(&s).await;
        assert_created_after(&s, &cursor, &files).await;

        files.push(upload_file(&s.alice(), spec("c")).await);
        assert_created_after(&s, &cursor, &files).await;
        // Both uploads are older than the retention of 30 days now.
        s.clock.advance(Duration::days(70));
        run_worker(&s).await;
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM events").await, 0);
        assert!(s.bob().watch_files_after(&cursor).await.is_err(), "the events are dropped");
    });
}

#[test]
fn rows_move_from_default_into_new_partition() {
    service_test(|s| async move {
        s.clock.advance(Duration::days(75));
        let file = upload_file(&s.alice(), spec("a")).await;
        let stored = s.superuser.query_number(DEFAULT_EVENTS).await;
        assert!(stored > 0);
        // Otherwise the cursor is before the upload, while transactions of other tests are running.
        s.wait_until_events_are_readable().await;
        let cursor = s.bob().watch_files().await.cursor;
        create_upcoming_partitions(&s.app).await.unwrap();
        assert_eq!(s.superuser.query_number(DEFAULT_EVENTS).await, 0);
        let partition = s.clock.now().format("events_%Y%m01").to_string();
        assert_eq!(s.superuser.query_number(&format!("SELECT count(*) FROM {partition}")).await, stored);
        let attached = format!(
            "SELECT count(*) FROM pg_index AS i JOIN pg_inherits AS h ON h.inhrelid = i.indexrelid
             WHERE i.indrelid = '{partition}'::regclass"
        );
        assert_eq!(s.superuser.query_number(&attached).await, 2, "both indexes belong to those of the table");
        s.alice().purge(&file).await.unwrap();
        let mut watcher = s.bob().watch_files_after(&cursor).await.unwrap();
        assert_eq!(watcher.next_kind_and_file().await, (Kind::Purged, file));
    });
}

#[test]
fn events_survive_a_clock_that_jumps_a_month_and_back() {
    service_test_with(
        // Otherwise the events are older than the retention while the clock is wrong.
        |config| config.retention.event_days = 3_000,
        |s| async move {
            let cursor = s.bob().watch_files().await.cursor;
            let mut files = vec![upload_file(&s.alice(), spec("a")).await];
            s.clock.advance(Duration::days(40));
            run_worker(&s).await;
            files.push(upload_file(&s.alice(), spec("b")).await);
            s.clock.advance(Duration::days(-40));
            run_worker(&s).await;
            files.push(upload_file(&s.alice(), spec("c")).await);
            assert_created_after(&s, &cursor, &files).await;
        },
    );
}

#[test]
fn retention_shorter_than_a_month_drops_only_older_events() {
    service_test_with(
        |config| config.retention.event_days = 2,
        |s| async move {
            for _ in 0..40 {
                s.clock.advance(Duration::days(2));
                let cursor = s.bob().watch_files().await.cursor;
                let file = upload_file(&s.alice(), spec("a")).await;
                run_worker(&s).await;
                assert_created_after(&s, &cursor, std::slice::from_ref(&file)).await;
                s.alice().purge(&file).await.unwrap();
            }
        },
    );
}

#[test]
fn periods_are_in_utc_in_any_session() {
    service_test(|s| async move {
        // Both zones change to or from daylight saving time within a year.
        for zone in ["Pacific/Auckland", "America/New_York"] {
            let create = format!(
                "SET timezone = '{zone}';
                 SELECT app.create_partitions('idempotency_keys', '1 day', now(), 400);
                 SELECT app.create_partitions('events', '1 month', now(), 14);
                 SET timezone = 'UTC';"
            );
            s.superuser.execute(&create).await;
            assert_eq!(s.superuser.query_number(WRONG_BOUNDS).await, 0);
        }
        // East of UTC, days end earlier: the day of the time would be dropped. West of UTC, the day before it would stay.
        for (zone, time, first_day) in
            [("Pacific/Auckland", "10 days 18 hours", 10), ("America/New_York", "20 days", 20)]
        {
            let drop = format!(
                "SET timezone = '{zone}';
                 SELECT app.drop_partitions('idempotency_keys', '1 day', date_trunc('day', now(), 'UTC') + interval '{time}');
                 SET timezone = 'UTC';"
            );
            s.superuser.execute(&drop).await;
            let first = "SELECT extract(day FROM min(to_timestamp(right(relname, 8) || '+00', 'YYYYMMDDTZH'))
                    - date_trunc('day', now(), 'UTC'))::bigint
                FROM pg_class WHERE relname ~ '^idempotency_keys_[0-9]+$'";
            let dropped = "exactly the days that ended before it are dropped";
            assert_eq!(s.superuser.query_number(first).await, first_day, "{dropped} in {zone}");
        }
    });
}

#[test]
fn deleted_rows_of_default_partition_end_older_watches() {
    service_test(|s| async move {
        s.clock.advance(Duration::days(75));
        let cursor = s.bob().watch_files().await.cursor;
        upload_file(&s.alice(), spec("a")).await;
        assert!(s.superuser.query_number(DEFAULT_EVENTS).await > 0, "no partition exists");
        // Longer than the retention of 30 days, so the only events of this month are deleted, and no partition.
        s.clock.advance(Duration::days(40));
        run_worker(&s).await;
        assert_eq!(s.superuser.query_number(DEFAULT_EVENTS).await, 0);
        assert!(s.bob().watch_files_after(&cursor).await.is_err(), "the events are deleted");
    });
}

#[test]
fn partition_of_moved_rows_is_protected() {
    service_test(|s| async move {
        s.clock.advance(Duration::days(75));
        upload_file(&s.alice(), spec("a")).await;
        create_upcoming_partitions(&s.app).await.unwrap();
        for month in [s.clock.now(), s.clock.now() + Months::new(1)] {
            let is_protected = format!(
                "SELECT count(*) FROM pg_class WHERE relname = '{}' AND relrowsecurity AND relforcerowsecurity",
                month.format("events_%Y%m01")
            );
            assert_eq!(s.superuser.query_number(&is_protected).await, 1, "{is_protected}");
        }
    });
}

#[test]
fn period_with_too_many_rows_gets_no_partition() {
    service_test(|s| async move {
        // One more than a move may take.
        let insert = "INSERT INTO finished_jobs
                (tenant_id, id, create_time, kind, payload, outcome, attempts, last_error, enqueue_time)
            SELECT gen_random_uuid(), gen_random_uuid(), '2099-05-05 12:00Z', 'test', to_jsonb(1), {job_outcome.done},
                1, '', '2099-05-05 12:00Z'
            FROM generate_series(1, 50001)";
        s.superuser.execute(insert).await;
        let create = "SELECT app.create_partitions('finished_jobs', '1 day', '2099-05-05 00:00Z', 1)";
        let exists = "SELECT count(*) FROM pg_class WHERE relname = 'finished_jobs_20990505'";
        let stored = "SELECT count(*) FROM finished_jobs_default";
        s.superuser.execute(create).await;
        let after = (s.superuser.query_number(exists).await, s.superuser.query_number(stored).await);
        assert_eq!(after, (0, 50_001), "commits would wait for the move");
        let delete = "DELETE FROM finished_jobs WHERE id = (SELECT id FROM finished_jobs_default LIMIT 1)";
        s.superuser.execute(delete).await;
        s.superuser.execute(create).await;
        let after = (s.superuser.query_number(exists).await, s.superuser.query_number(stored).await);
        assert_eq!(after, (1, 0));
    });
}
