//! The state of a circuit breaker.

use super::sql_enum::sql_enum;

sql_enum! {
    /// Whether a circuit breaker lets calls of background work reach a store.
    BreakerState {
        /// The store works; all calls reach it.
        Closed = 1 => "closed",
        /// A pause has passed; one call at a time probes the store.
        HalfOpen = 2 => "half_open",
        /// Several calls in a row failed; calls fail at once until a pause has passed.
        Open = 3 => "open",
    }
}
