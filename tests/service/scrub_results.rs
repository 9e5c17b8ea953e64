//! What a scrub records about objects and passes, and the pace after a pause.

use chrono::Duration;
use strongroom::{
    config::Config,
    db::{Viewer, content_states, scrub_counts, scrubs},
    domain::{clock::Clock as _, file::StateReason},
    proto::v1::FileState,
};

use crate::{
    harness::{Service, service_test, service_test_with},
    replica::{configure_copies, repair, replicate},
    scrub::{configure_one_blob_per_second, flip_bit, object_key, scrub, upload_file},
};

#[test]
fn result_of_a_former_object_is_not_recorded() {
    service_test(|s| async move {
        let id = upload_file(&s, 10).await;
        let mut tx = s.db.system_tx().await.unwrap();
        let due = scrubs::list_due(&mut tx, "memory", s.clock.now(), 10).await.unwrap().remove(0);
        tx.commit().await.unwrap();
        // While the object is read, the blob moves to another one.
        s.superuser.execute("UPDATE blobs SET storage_key = storage_key || '0'").await;
        let mut tx = s.db.system_tx().await.unwrap();
        scrubs::record_verified(&mut tx, &due).await.unwrap();
        tx.commit().await.unwrap();
        let verified = "SELECT count(*) FROM blobs WHERE last_verified_time IS NOT NULL";
        assert_eq!(s.superuser.query_number(verified).await, 0);
        let mut tx = s.db.tenant_tx(due.tenant, &Viewer::system()).await.unwrap();
        let marked = content_states::mark_damaged(&mut tx, &due.object, StateReason::ObjectDamaged).await;
        tx.commit().await.unwrap();
        assert_eq!((marked.unwrap(), s.alice().get(&id).await.unwrap().state()), (0, FileState::Available));
        s.superuser.execute("UPDATE blobs SET storage_key = left(storage_key, -1)").await;
    });
}

#[test]
fn oldest_verification_is_recorded_at_the_end_of_a_pass() {
    service_test(|s| async move {
        let oldest_is = async |s: &Service, time: &str| {
            s.superuser
                .query_number(&format!("SELECT (oldest_verified_time = ({time}))::int FROM scrubs"))
                .await
        };
        for size in [10, 20] {
            upload_file(&s, size).await;
        }
        assert_eq!(scrub(&s).await, 2);
        s.clock.advance(Duration::seconds(1));
        assert_eq!(scrub(&s).await, 0);
        assert_eq!(oldest_is(&s, "SELECT min(last_verified_time) FROM blobs").await, 1);

        // Objects of the store are originals and copies.
        let is_copy =
            "UPDATE blobs SET provider = 'other', replica_provider = 'memory', replica_key = storage_key,
            replica_verified_time = last_verified_time WHERE size_bytes = 20";
        s.superuser.execute_without_triggers("blobs", is_copy).await;
        for (column, size) in [("last_verified_time", 10), ("replica_verified_time", 20)] {
            let earlier = format!(
                "UPDATE blobs SET {column} = {column} - {size} * interval '1 day' WHERE size_bytes = {size}"
            );
            s.superuser.execute_without_triggers("blobs", &earlier).await;
            let mut tx = s.db.system_tx().await.unwrap();
            scrubs::record_oldest(&mut tx, "memory").await.unwrap();
            tx.commit().await.unwrap();
            let time = format!("SELECT {column} FROM blobs WHERE size_bytes = {size}");
            assert_eq!(oldest_is(&s, &time).await, 1, "{column}");
        }
        let is_original = "UPDATE blobs SET provider = 'memory', replica_provider = NULL, replica_key = NULL,
            replica_verified_time = NULL";
        s.superuser.execute_without_triggers("blobs", is_original).await;
    });
}

#[test]
fn status_shows_the_share_of_verified_objects() {
    service_test(|s| async move {
        for size in [10, 20, 30, 40] {
            upload_file(&s, size).await;
        }
        let old =
            "UPDATE blobs SET last_verified_time = create_time - interval '40 days' WHERE size_bytes = 10";
        s.superuser.execute(old).await;
        let (period, now) = (Duration::days(30), s.clock.now());
        let mut tx = s.db.system_tx().await.unwrap();
        let percent = scrub_counts::get_verified_percent(&mut tx, "memory", period, now).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(percent.to_string(), "75");
    });
}

#[test]
fn objects_are_read_at_the_rate_after_a_long_pause() {
    service_test_with(configure_one_blob_per_second, |s| async move {
        for size in [10, 20, 30, 40, 50] {
            upload_file(&s, size).await;
        }
        assert_eq!(scrub(&s).await, 1);
        s.clock.advance(Duration::hours(1));
        assert_eq!(scrub(&s).await, 2, "those of the last second and of the next one");
        s.clock.advance(Duration::seconds(1));
        assert_eq!(scrub(&s).await, 1);
    });
}

#[test]
fn damage_is_found_and_repaired_while_deletions_are_disabled() {
    let configure = |config: &mut Config| {
        configure_copies(config);
        config.storage.deletes_enabled = false;
    };
    service_test_with(configure, |s| async move {
        s.allow_logged_errors();
        let id = upload_file(&s, 10).await;
        assert_eq!(replicate(&s).await, 1);
        flip_bit(&s, &object_key(&s).await, 10).await;
        scrub(&s).await;
        let state = async || s.alice().get(&id).await.unwrap().state();
        assert_eq!(state().await, FileState::Error);
        assert_eq!((repair(&s).await, state().await), (1, FileState::Available));
    });
}
