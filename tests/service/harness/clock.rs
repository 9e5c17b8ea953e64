//! A clock that only tests advance.

use std::sync::Mutex;

use strongroom::domain::clock::{Clock, SystemClock, Timestamp};

/// Starts at the current time, for which partitions exist, rounded down to a second.
#[derive(Debug)]
pub(crate) struct TestClock(Mutex<Timestamp>);

impl Default for TestClock {
    fn default() -> Self {
        let now = SystemClock.now();
        Self(Mutex::new(Timestamp::from_timestamp(now.timestamp(), 0).unwrap()))
    }
}

impl TestClock {
    pub(crate) fn advance(&self, by: chrono::Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}
