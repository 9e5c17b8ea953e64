//! Discards the pooled connections to a server that has shut down or accepts no writes.
//!
//! After a failover, the other connections of the pool lead to the same former primary, so they are discarded
//! together. New connections reach the new primary, because the address of the database leads to it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use diesel::connection::{Instrumentation, InstrumentationEvent};

use super::error::is_server_lost;

/// The time until which connections of a pool lead to a lost server. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct LostServer(Arc<Mutex<Option<Instant>>>);

impl LostServer {
    /// Records that all connections that exist now lead to a lost server.
    pub(super) fn discard_existing(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns whether a connection of this age may be used.
    pub(super) fn is_usable(&self, created: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|lost| created > lost)
    }
}

/// Observes the errors of a connection.
impl Instrumentation for LostServer {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::FinishQuery { error: Some(error), .. } = event
            && is_server_lost(error)
        {
            self.discard_existing();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn connections_from_before_the_loss_are_discarded() {
        let lost = LostServer::default();
        let created = Instant::now();
        assert!(lost.is_usable(created));
        lost.clone().discard_existing();
        assert!(!lost.is_usable(created));
        assert!(lost.is_usable(Instant::now() + Duration::from_secs(1)));
    }
}
