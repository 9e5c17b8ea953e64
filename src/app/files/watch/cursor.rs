//! Cursors, from which a watch resumes. They are sealed, so that callers cannot forge them.
//!
//! A cursor is valid for one tenant and one incarnation of the database. Its time is used to check that later
//! events are still stored. It does not depend on a filter: it is the position up to which a watcher has
//! read, with any filter.

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Error},
    db::event_stream::StreamSnapshot,
    domain::{clock::Timestamp, event_position::EventPosition, ids::TenantId},
};

/// The position of a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// All events up to this position were processed.
    #[serde(rename = "p")]
    pub(super) position: EventPosition,
    /// The time at which the position was reached. An event after the position can have an earlier time,
    /// because an event has the start time of its transaction.
    #[serde(rename = "t")]
    pub(super) time: Timestamp,
    /// The incarnation of the database that the position belongs to.
    #[serde(rename = "i")]
    pub(super) incarnation: String,
}

impl Cursor {
    /// Returns a cursor after all current events.
    pub(super) fn at(snapshot: &StreamSnapshot) -> Self {
        Self { position: snapshot.position, time: snapshot.time, incarnation: snapshot.incarnation.clone() }
    }

    /// Advances to a position up to which all events were processed. Never moves backwards. The time also
    /// advances without new events.
    pub(super) fn advance(&mut self, position: EventPosition, time: Timestamp) {
        if position >= self.position {
            (self.position, self.time) = (position, time);
        }
    }

    /// Checks that all events after the cursor are still stored.
    ///
    /// # Errors
    /// Returns `CursorTooOld` if some were dropped, or if the database has another incarnation.
    pub(super) fn check(&self, snapshot: &StreamSnapshot) -> Result<(), Error> {
        let is_complete = snapshot.retains_all_after(self.time, &self.incarnation);
        if is_complete { Ok(()) } else { Err(Error::CursorTooOld) }
    }

    /// Seals the cursor for the caller.
    pub(super) fn seal(&self, app: &App, tenant: TenantId) -> Result<String, Error> {
        let cursor = serde_json::to_vec(self).map_err(Error::internal)?;
        app.page_tokens.seal(&seal_context(tenant), &cursor).map_err(Error::internal)
    }

    /// Opens a cursor that a caller sent.
    ///
    /// # Errors
    /// Returns `CursorInvalid` if it is damaged or belongs to another tenant.
    pub(super) fn open(app: &App, tenant: TenantId, text: &str) -> Result<Self, Error> {
        let opened = app.page_tokens.open(&seal_context(tenant), text).map_err(|_| Error::CursorInvalid)?;
        serde_json::from_slice(&opened).map_err(|_| Error::CursorInvalid)
    }
}

/// The sealing context, which separates cursors from page tokens.
fn seal_context(tenant: TenantId) -> Vec<u8> {
    [b"watch cursor ".as_slice(), tenant.as_uuid().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_timestamp(hours * 3_600, 0).unwrap()
    }

    fn snapshot(time: i64, horizon: i64) -> StreamSnapshot {
        StreamSnapshot {
            position: EventPosition::start_of(1_000),
            time: at(time),
            incarnation: "1".to_owned(),
            horizon: at(horizon),
        }
    }

    fn cursor(hours: i64) -> Cursor {
        Cursor { position: EventPosition::start_of(10), time: at(hours), incarnation: "1".to_owned() }
    }

    #[test]
    fn cursor_is_valid_while_later_events_are_stored() {
        assert!(
            cursor(560).check(&snapshot(600, 560)).is_err(),
            "an event after a cursor may be up to an hour older than it"
        );
        assert!(cursor(561).check(&snapshot(600, 560)).is_ok());
        assert!(cursor(1).check(&snapshot(600, 0)).is_ok(), "old, but nothing was dropped");
    }

    #[test]
    fn rejects_cursor_of_another_incarnation() {
        let other = StreamSnapshot { incarnation: "2".to_owned(), ..snapshot(600, 0) };
        assert!(cursor(600).check(&other).is_err());
    }

    #[test]
    fn cursor_never_moves_backwards() {
        let mut cursor = cursor(5);
        cursor.advance(EventPosition::start_of(9), at(9));
        assert_eq!((cursor.position, cursor.time), (EventPosition::start_of(10), at(5)));
        cursor.advance(EventPosition::start_of(10), at(6));
        assert_eq!((cursor.position, cursor.time), (EventPosition::start_of(10), at(6)), "no new events");
        cursor.advance(EventPosition::start_of(11), at(4));
        assert_eq!((cursor.position, cursor.time), (EventPosition::start_of(11), at(4)));
    }
}
