//! Time and ids come in from outside, so that a test can move the one and predict the other.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A moment, in UTC.
pub type Timestamp = DateTime<Utc>;

/// Tells the time of this process. Whatever expires is decided by the database's clock instead (`app.now()`).
pub trait Clock: Send + Sync + 'static {
    /// The time now.
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

/// Mints ids and other randomness.
pub trait IdSource: Send + Sync + 'static {
    /// A fresh UUIDv7: ordered by time of birth, unguessable enough to be no key for anything.
    fn uuid(&self) -> Uuid;
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    #[allow(clippy::disallowed_methods, reason = "the one place where ids are minted")]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
}
