//! The counts of the objects that scrubbing must read, and of the blobs without a copy: a count continues after an
//! interruption, and its failure stops neither scrubbing nor copying.

use chrono::Duration;
use strongroom::db::{SystemTx, replications, scrub_counts, scrubs};

use crate::{
    harness::{Service, service_test, service_test_with},
    replica::{COPIES, configure_copies, replicate},
    scrub::{scrub, upload_file},
};

/// SQL that makes each change of a table fail.
fn fail_changes(when: &str) -> String {
    format!(
        "CREATE FUNCTION fail_count() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE EXCEPTION 'planned failure'; END $$;
         CREATE TRIGGER fail_count BEFORE {when} FOR EACH ROW EXECUTE FUNCTION fail_count();"
    )
}

async fn tx(s: &Service) -> SystemTx {
    s.db.system_tx().await.unwrap()
}

#[test]
fn scrubbing_goes_on_if_its_count_fails() {
    service_test(|s| async move {
        upload_file(&s, 10).await;
        s.superuser.execute(&fail_changes("UPDATE OF measure_time ON scrubs")).await;
        assert_eq!(scrub(&s).await, 1);
        s.superuser.execute("DROP FUNCTION fail_count CASCADE").await;
        assert_eq!(scrub(&s).await, 0);
        let counted = "SELECT count(*) FROM scrubs WHERE measure_time IS NOT NULL";
        assert_eq!(s.superuser.query_number(counted).await, 1, "it is counted again");
    });
}

#[test]
fn copying_goes_on_if_its_count_fails() {
    service_test_with(configure_copies, |s| async move {
        upload_file(&s, 10).await;
        s.superuser.execute(&fail_changes("INSERT OR UPDATE ON replications")).await;
        assert_eq!(replicate(&s).await, 1);
        s.superuser.execute("DROP FUNCTION fail_count CASCADE").await;
    });
}

#[test]
fn count_to_scrub_continues_part_by_part() {
    service_test_with(configure_copies, |s| async move {
        for _ in 0..5 {
            upload_file(&s, 10).await;
        }
        // Blobs of one time are counted together.
        let same = "UPDATE blobs SET create_time = (SELECT min(create_time) FROM blobs)
            WHERE id IN (SELECT id FROM blobs ORDER BY create_time LIMIT 3)";
        s.superuser.execute(same).await;
        let mut lock = tx(&s).await;
        scrubs::lock_pass(&mut lock, "main").await.unwrap();
        lock.commit().await.unwrap();
        let counted = "SELECT left_bytes / 65536 FROM scrubs WHERE provider = 'main'";
        let mut parts = 1;
        loop {
            let mut part = tx(&s).await;
            let is_complete = scrub_counts::count_next_part(&mut part, "main", 2).await.unwrap();
            part.commit().await.unwrap();
            if is_complete {
                break;
            }
            assert_eq!(s.superuser.query_number(counted).await, 0, "the count goes on");
            parts += 1;
        }
        assert_eq!((parts, s.superuser.query_number(counted).await), (3, 5));

        // A new pass begins a new count.
        let mut next = tx(&s).await;
        assert!(scrub_counts::count_next_part(&mut next, "main", 2).await.unwrap(), "the count is recent");
        scrubs::start_pass(&mut next, "main").await.unwrap();
        assert!(!scrub_counts::count_next_part(&mut next, "main", 2).await.unwrap());
        assert!(scrub_counts::count_next_part(&mut next, "main", 100).await.unwrap());
        next.commit().await.unwrap();
        assert_eq!(s.superuser.query_number(counted).await, 5);
    });
}

#[test]
fn count_of_pending_blobs_continues_part_by_part() {
    service_test_with(configure_copies, |s| async move {
        for provider in ["a", "z", "main"] {
            for _ in 0..2 {
                upload_file(&s, 10).await;
            }
            let moved = format!("UPDATE blobs SET provider = '{provider}' WHERE provider = 'main'");
            s.superuser.execute(&moved).await;
        }
        // The last part of each provider is empty.
        let mut parts = 1;
        loop {
            let mut part = tx(&s).await;
            let is_complete = replications::count_next_part(&mut part, COPIES, 2).await.unwrap();
            part.commit().await.unwrap();
            if is_complete {
                break;
            }
            parts += 1;
        }
        let mut found = tx(&s).await;
        let (lag, now) = replications::find_lag(&mut found, COPIES).await.unwrap().unwrap();
        found.commit().await.unwrap();
        assert_eq!((lag.pending_blob_count, lag.pending_bytes), (6, 60));
        assert_eq!(now - lag.oldest_pending_time.unwrap(), Duration::seconds(6));
        assert!(parts > 1);
        s.superuser.execute("UPDATE blobs SET provider = 'main'").await;
    });
}
