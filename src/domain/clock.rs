//! Injected sources of time and ids, so that tests can control both.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A point in time, in UTC.
pub type Timestamp = DateTime<Utc>;

/// The clock of this process. Expiry is decided by the database's clock instead (`app.now()`).
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where the ambient clock is read")]
    fn now(&self) -> Timestamp {
        Utc::now()
    }
}

/// A source of ids and other random values.
pub trait IdSource: Send + Sync + 'static {
    /// Returns a new UUIDv7. Ids are ordered by creation time. They are not secrets and must not be used as
    /// such.
    fn uuid(&self) -> Uuid;
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    #[allow(clippy::disallowed_methods, reason = "the one place where ids are generated")]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
}
