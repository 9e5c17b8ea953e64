//! Discards pooled connections that must not be used again: one whose session was ended, or all that lead to a
//! server that shuts down or accepts no writes.
//!
//! After a failover, the other connections of the pool lead to the same former primary, so they are discarded
//! together. New connections reach the new primary, because the address of the database leads to it. The end of
//! one session says nothing about the others: the server reports it also after a timeout or a command of an
//! administrator, and a pooler when it is overloaded, when new connections would only add to its load.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};

use super::error::{Loss, find_loss};

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

/// Observes the errors of one connection.
#[derive(Debug)]
pub(super) struct ConnectionObserver {
    lost_server: LostServer,
    is_session_lost: bool,
}

impl ConnectionObserver {
    /// Creates the observer of a new connection.
    pub(super) fn new(lost_server: LostServer) -> Self {
        Self { lost_server, is_session_lost: false }
    }

    fn note_error(&mut self, error: &diesel::result::Error) {
        match find_loss(error) {
            Some(Loss::Server) => self.lost_server.discard_existing(),
            Some(Loss::Session) => self.is_session_lost = true,
            None => {}
        }
    }
}

impl Instrumentation for ConnectionObserver {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::FinishQuery { error: Some(error), .. } = event {
            self.note_error(error);
        }
    }
}

/// Returns whether the session of an observed connection was ended.
pub(super) fn is_session_lost(connection: &mut AsyncPgConnection) -> bool {
    let observer = connection.instrumentation().downcast_ref::<ConnectionObserver>();
    observer.is_some_and(|observer| observer.is_session_lost)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use diesel::result::{DatabaseErrorKind, Error};

    use super::*;

    fn reported(message: &str) -> Error {
        Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned()))
    }

    #[test]
    fn lost_session_discards_only_its_own_connection() {
        let (lost, created) = (LostServer::default(), Instant::now());
        let mut ended = ConnectionObserver::new(lost.clone());
        ended.note_error(&reported("08P01: query_wait_timeout"));
        assert!(ended.is_session_lost && lost.is_usable(created));
        let mut other = ConnectionObserver::new(lost.clone());
        other.note_error(&reported("57P03: the database system is shutting down"));
        assert!(!other.is_session_lost && !lost.is_usable(created));
    }

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
