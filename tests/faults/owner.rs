//! The owner of a store after a failover of the database.

use chrono::Duration;
use strongroom::{app::owner::OwnerState, worker};

use crate::{
    harness::{Service, Setup, file_id, spec},
    private_postgres::{PrivatePostgres, private_server_test, wait_until_serving},
};

fn check_owner_always(setup: &mut Setup) {
    setup.config.storage.owner_check_seconds = 0;
}

async fn count_objects(s: &Service) -> usize {
    s.store.list("", None, 10).await.unwrap().objects.len()
}

#[test]
fn failover_delays_deletions_and_stops_nothing_else() {
    private_server_test(check_owner_always, |s, postgres| async move {
        let kept = file_id(&s.alice().upload(spec("kept"), b"kept").await.unwrap());
        let purged = file_id(&s.alice().upload(spec("purged"), b"purged").await.unwrap());
        s.alice().purge(&purged).await.unwrap();
        s.clock.advance(Duration::hours(73));
        let incarnation = "SELECT app.event_incarnation()";
        let before = s.superuser.query_texts(incarnation).await;
        postgres.operate(PrivatePostgres::fail_over).await;
        wait_until_serving(&s).await;
        assert_ne!(s.superuser.query_texts(incarnation).await, before, "a new timeline");

        // Everything continues at once, except deletions.
        let new = file_id(&s.alice().upload(spec("new"), b"new").await.unwrap());
        assert_eq!(s.alice().read(&kept).await.unwrap(), b"kept"[..]);
        worker::run_round(&s.app).await;
        assert!(matches!(s.app.owners().known_state("memory"), OwnerState::Unconfirmed { .. }));
        assert_eq!(count_objects(&s).await, 3);

        // No other database wrote a marker in the meantime.
        s.clock.advance(Duration::seconds(180));
        worker::run_round(&s.app).await;
        assert_eq!(s.app.owners().known_state("memory"), OwnerState::Owned);
        assert_eq!(count_objects(&s).await, 2);
        assert_eq!(s.alice().read(&new).await.unwrap(), b"new"[..]);
    });
}

#[test]
fn restart_delays_deletions() {
    private_server_test(check_owner_always, |s, postgres| async move {
        let purged = file_id(&s.alice().upload(spec("purged"), b"purged").await.unwrap());
        s.alice().purge(&purged).await.unwrap();
        s.clock.advance(Duration::hours(73));
        postgres.operate(|postgres| postgres.restart("fast")).await;
        wait_until_serving(&s).await;
        // A physical copy that was started now would look the same.
        worker::run_round(&s.app).await;
        assert!(matches!(s.app.owners().known_state("memory"), OwnerState::Unconfirmed { .. }));
        assert_eq!(count_objects(&s).await, 1);
        s.clock.advance(Duration::seconds(180));
        worker::run_round(&s.app).await;
        assert_eq!((s.app.owners().known_state("memory"), count_objects(&s).await), (OwnerState::Owned, 0));
    });
}
