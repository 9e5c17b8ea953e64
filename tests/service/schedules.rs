//! What is done by the clock: of any number of replicas one does it.

use chrono::Duration;
use futures::future::join_all;
use strongroom::{
    db::schedules,
    worker::schedule::{Tick, run_due_ticks},
};

use crate::harness::{Service, file_id, service_test, spec};

#[test]
fn of_many_replicas_one_has_each_turn_of_a_tick() {
    service_test(|s| async move {
        let other = s.replica(|_| {}).await;
        let ticks = ["a", "b", "c"];
        for round in 0..3 {
            let takes = (0..16).map(|n| {
                let db = if n % 2 == 0 { s.db.clone() } else { other.db.clone() };
                async move {
                    let mut tx = db.system_tx().await.unwrap();
                    let turns = schedules::claim_due(&mut tx, &ticks, 60).await.unwrap();
                    tx.commit().await.unwrap();
                    turns
                }
            });
            let mut turns: Vec<_> = join_all(takes).await.into_iter().flatten().collect();
            turns.sort_by(|left, right| left.name.cmp(&right.name));
            assert_eq!(
                turns.iter().map(|turn| turn.name.as_str()).collect::<Vec<_>>(),
                ticks,
                "round {round}"
            );
            s.clock.advance(Duration::seconds(60));
        }
        other.stopped().await;
    });
}

#[test]
fn a_tick_is_due_again_after_its_interval_and_at_once_when_there_is_more() {
    service_test(|s| async move {
        let take = || async {
            let mut tx = s.db.system_tx().await.unwrap();
            let turn = schedules::claim_due(&mut tx, &["a"], 60).await.unwrap().pop();
            tx.commit().await.unwrap();
            turn
        };
        let first = take().await.unwrap();
        s.clock.advance(Duration::seconds(59));
        assert_eq!(take().await, None);
        go_on(&s, &first).await;
        assert!(take().await.is_some(), "there was more to do");
        go_on(&s, &first).await;
        assert_eq!(take().await, None, "somebody has taken it since");
    });
}

async fn go_on(s: &Service, turn: &schedules::ClaimedTick) {
    let mut tx = s.db.system_tx().await.unwrap();
    schedules::make_due(&mut tx, turn).await.unwrap();
    tx.commit().await.unwrap();
}

#[test]
fn the_trash_is_emptied_by_the_clock_and_not_before_the_next_tick() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
        s.alice().delete(&id).await.unwrap();
        s.clock.advance(Duration::days(30));
        let stones = || async { s.owner.number("SELECT count(*) FROM tombstones").await };
        assert_eq!(
            (run_due_ticks(&s.app, Tick::SHORT).await, stones().await),
            (1, 1),
            "it may have more to do"
        );
        assert_eq!(run_due_ticks(&s.app, Tick::SHORT).await, 0, "it has not");
        let id = file_id(&s.alice().upload(spec("b"), b"x").await.unwrap());
        s.alice().delete(&id).await.unwrap();
        s.owner.run("UPDATE files SET purge_time = '2000-01-01'").await;
        assert_eq!(
            (run_due_ticks(&s.app, Tick::SHORT).await, stones().await),
            (0, 1),
            "its time has not come"
        );
        s.clock.advance(Duration::seconds(60));
        assert_eq!((run_due_ticks(&s.app, Tick::SHORT).await, stones().await), (1, 2));
    });
}
