//! Ticks: periodic background work that one of all replicas runs.

use chrono::Duration;
use futures::future::join_all;
use strongroom::{
    app::RoundReport,
    db::schedules,
    worker::{schedule::run_due_ticks, tick::Tick},
};

use crate::harness::{Service, file_id, service_test, spec};

#[test]
fn one_replica_claims_each_tick() {
    service_test(|s| async move {
        let other = s.start_replica(|_| {}).await;
        let ticks = ["a", "b", "c"];
        for round in 0..3 {
            let claims = (0..16).map(|n| {
                let db = if n % 2 == 0 { s.db.clone() } else { other.db.clone() };
                async move {
                    let mut tx = db.system_tx().await.unwrap();
                    let claimed = schedules::claim_due(&mut tx, &ticks, 60).await.unwrap();
                    tx.commit().await.unwrap();
                    claimed
                }
            });
            let mut claimed: Vec<_> = join_all(claims).await.into_iter().flatten().collect();
            claimed.sort_by(|left, right| left.name.cmp(&right.name));
            assert_eq!(
                claimed.iter().map(|tick| tick.name.as_str()).collect::<Vec<_>>(),
                ticks,
                "round {round}"
            );
            s.clock.advance(Duration::seconds(60));
        }
        other.stop().await;
    });
}

#[test]
fn tick_is_due_after_interval_or_when_work_remains() {
    service_test(|s| async move {
        let claim = || async {
            let mut tx = s.db.system_tx().await.unwrap();
            let tick = schedules::claim_due(&mut tx, &["a"], 60).await.unwrap().pop();
            tx.commit().await.unwrap();
            tick
        };
        let first = claim().await.unwrap();
        s.clock.advance(Duration::seconds(59));
        assert_eq!(claim().await, None);
        make_due(&s, &first).await;
        assert!(claim().await.is_some(), "a tick with more work is due at once");
        make_due(&s, &first).await;
        assert_eq!(claim().await, None, "another claim was made since");
    });
}

#[test]
fn age_of_tick_is_the_time_since_it_last_ended() {
    service_test(|s| async move {
        let age_seconds = || async {
            let mut tx = s.db.system_tx().await.unwrap();
            let ages = schedules::list_ages(&mut tx, &["a", "never claimed"]).await.unwrap();
            tx.commit().await.unwrap();
            ages.into_iter().map(|tick| (tick.name, tick.age_seconds)).collect::<Vec<_>>()
        };
        let claim = || async {
            let mut tx = s.db.system_tx().await.unwrap();
            assert_eq!(schedules::claim_due(&mut tx, &["a"], 60).await.unwrap().len(), 1);
            tx.commit().await.unwrap();
        };
        assert_eq!(age_seconds().await, []);
        for expected in [0.0, 60.0, 120.0] {
            // A tick that starts again and again without an end grows old.
            claim().await;
            assert_eq!(age_seconds().await, [("a".to_owned(), expected)]);
            s.clock.advance(Duration::seconds(60));
        }
        let mut tx = s.db.system_tx().await.unwrap();
        schedules::record_done(&mut tx, "a").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(age_seconds().await, [("a".to_owned(), 0.0)]);
    });
}

async fn make_due(s: &Service, tick: &schedules::ClaimedTick) {
    let mut tx = s.db.system_tx().await.unwrap();
    schedules::make_due(&mut tx, tick).await.unwrap();
    tx.commit().await.unwrap();
}

#[test]
fn trash_is_purged_by_next_tick() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
        s.alice().delete(&id).await.unwrap();
        s.clock.advance(Duration::days(30));
        let purged = || async { s.superuser.query_number("SELECT count(*) FROM tombstones").await };
        let report = run_due_ticks(&s.app, Tick::SHORT).await;
        assert_eq!((report.done, report.has_more, purged().await), (1, true, 1), "the tick ran");
        assert_eq!(run_due_ticks(&s.app, Tick::SHORT).await, RoundReport::default(), "no work is left");
        let id = file_id(&s.alice().upload(spec("b"), b"x").await.unwrap());
        s.alice().delete(&id).await.unwrap();
        s.superuser.execute("UPDATE files SET purge_time = '2000-01-01'").await;
        assert_eq!(
            (run_due_ticks(&s.app, Tick::SHORT).await.done, purged().await),
            (0, 1),
            "the tick is not due"
        );
        s.clock.advance(Duration::seconds(60));
        assert_eq!((run_due_ticks(&s.app, Tick::SHORT).await.done, purged().await), (1, 2));
    });
}
