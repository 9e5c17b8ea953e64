//! Time has one source: the database's clock, which every process follows.

use strongroom::domain::clock::{Clock as _, SyncedClock, Timestamp};

use crate::harness::{Service, TestClock, service_test};

/// Returns the time of the database, which no test clock overrides.
async fn database_time(s: &Service) -> Timestamp {
    let microseconds =
        s.superuser.query_number("SELECT extract(epoch FROM clock_timestamp()) * 1000000").await;
    Timestamp::from_timestamp_micros(microseconds).unwrap()
}

#[test]
fn process_with_a_wrong_clock_follows_the_database() {
    service_test(|s| async move {
        for hours in [-3, 0, 50] {
            // A clock that does not advance, so that the measurement is exact.
            let wrong = TestClock::default();
            wrong.advance(chrono::Duration::hours(hours));
            let clock = SyncedClock::new(wrong);
            let before = database_time(&s).await;
            clock.follow(s.app.db().measure_clock(clock.local()).await.unwrap());
            let after = database_time(&s).await;
            let now = clock.now();
            assert!((before..=after).contains(&now), "{before} {now} {after}");
        }
    });
}
