//! Cursors, from which a watch resumes. They are sealed, so that callers cannot forge them.
//!
//! A cursor is valid for one tenant. It contains the last event up to which the watcher has read, with any filter, and
//! the incarnation of the database that wrote the event. With these, the service can check that the database knows the
//! watcher's past: after a restore to an earlier time it does not know the events of transactions that are lost. The
//! cursor's time is used to check that later events are still stored.

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Error},
    db::{
        TenantTx,
        event_stream::{self, EventPlace, StreamSnapshot},
    },
    domain::{clock::Timestamp, event_position::EventPosition, ids::TenantId},
};

/// The position of a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// All events up to this position were processed. Without an event, it is the start of an epoch.
    #[serde(rename = "p")]
    pub(super) position: EventPosition,
    /// The time of the event at the position. Cursors of the version before epochs have none, and a position that may
    /// be between two events.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    event_time: Option<Timestamp>,
    /// The time at which the position was reached. An event after the position can have an earlier time,
    /// because an event has the start time of its transaction.
    #[serde(rename = "t")]
    pub(super) time: Timestamp,
    /// The incarnation of the database in the epoch of the position.
    #[serde(rename = "i")]
    incarnation: String,
}

impl Cursor {
    /// Returns a cursor after all events of a snapshot. `newest` is the newest one.
    pub(super) fn at(snapshot: &StreamSnapshot, newest: Option<EventPlace>) -> Self {
        let mut cursor = Self {
            position: EventPosition::start_of_epoch(snapshot.position.epoch),
            event_time: None,
            time: snapshot.time,
            incarnation: String::new(),
        };
        cursor.note_incarnation(snapshot);
        cursor.advance_to_end(snapshot, newest);
        cursor
    }

    /// Advances past an event that was processed. Never moves backwards.
    pub(super) fn advance(&mut self, event: EventPlace, snapshot: &StreamSnapshot) {
        if event.position > self.position {
            (self.position, self.event_time) = (event.position, Some(event.time));
            self.time = event.time;
            self.note_incarnation(snapshot);
        }
    }

    /// Advances to the newest event of a snapshot whose events were processed. The time also advances without new
    /// events. It is that of the snapshot even if it is earlier, because the database's clock may have been corrected.
    pub(super) fn advance_to_end(&mut self, snapshot: &StreamSnapshot, newest: Option<EventPlace>) {
        if let Some(newest) = newest {
            self.advance(newest, snapshot);
        }
        self.time = snapshot.time;
    }

    /// Events of an epoch that has not begun do not exist, and an empty incarnation belongs to no epoch.
    fn note_incarnation(&mut self, snapshot: &StreamSnapshot) {
        self.incarnation = snapshot.incarnation_of(self.position.epoch).unwrap_or_default().to_owned();
    }

    /// Checks that all events after the cursor are still stored.
    ///
    /// # Errors
    /// Returns `CursorTooOld` if some were dropped, or if the cursor belongs to another database.
    pub(super) fn check_retention(&self, snapshot: &StreamSnapshot) -> Result<(), Error> {
        let has_epoch = snapshot.incarnation_of(self.position.epoch) == Some(self.incarnation.as_str());
        if has_epoch && snapshot.retains_time(self.time) { Ok(()) } else { Err(Error::CursorTooOld) }
    }

    /// Checks that the database knows the past of the watcher, and that all later events are still stored. The
    /// transaction must see all events of the tenant.
    ///
    /// # Errors
    /// Returns `CursorTooOld` if some were dropped, or if the database was restored to an earlier time.
    pub(super) async fn check(&self, tx: &mut TenantTx, snapshot: &StreamSnapshot) -> Result<(), Error> {
        self.check_retention(snapshot)?;
        let is_known = match self.find_past(snapshot) {
            Past::Known => true,
            Past::Unknown => false,
            Past::Stored => event_stream::is_known(tx, self.position, self.event_time).await?,
        };
        if is_known { Ok(()) } else { Err(Error::CursorTooOld) }
    }

    /// Replaces the position of a cursor of the version before epochs with that of the last event that its watcher has
    /// seen. The position was the bound of a snapshot, and a server that crashes can assign the ids below it again. The
    /// id of an event is not assigned again, because the event is stored.
    pub(super) async fn settle(mut self, tx: &mut TenantTx) -> Result<Self, Error> {
        if self.event_time.is_some() || self.position.xid == 0 {
            return Ok(self);
        }
        match event_stream::find_last_seen(tx, self.position, self.time).await? {
            Some(seen) => (self.position, self.event_time) = (seen.position, Some(seen.time)),
            None => self.position = EventPosition::start_of_epoch(self.position.epoch),
        }
        Ok(self)
    }

    fn find_past(&self, snapshot: &StreamSnapshot) -> Past {
        match self.event_time {
            // Retention dropped the event.
            Some(time) if time < snapshot.horizon => Past::Known,
            Some(_) => Past::Stored,
            // The watcher has seen no event of this epoch.
            None if self.position.xid == 0 => Past::Known,
            None if !snapshot.is_current(self.position.epoch) => Past::Stored,
            None if self.position <= snapshot.position => Past::Known,
            None => Past::Unknown,
        }
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

/// What a snapshot shows about the past of a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    /// The database knows it.
    Known,
    /// The watcher is ahead of the database.
    Unknown,
    /// The stored events show whether the database knows it.
    Stored,
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
            position: EventPosition::start_of(1, 1_000),
            time: at(time),
            incarnations: ["1".to_owned(), "2".to_owned()].into(),
            horizon: at(horizon),
        }
    }

    fn event(epoch: u16, xid: u64, hours: i64) -> EventPlace {
        EventPlace { position: EventPosition { epoch, xid, n: 7 }, time: at(hours) }
    }

    fn cursor(hours: i64) -> Cursor {
        Cursor::at(&snapshot(hours, 0), Some(event(1, 10, 1)))
    }

    #[test]
    fn cursor_is_valid_while_later_events_are_stored() {
        assert!(
            cursor(560).check_retention(&snapshot(600, 560)).is_err(),
            "an event after a cursor may be up to an hour older than it"
        );
        assert!(cursor(561).check_retention(&snapshot(600, 560)).is_ok());
        assert!(cursor(1).check_retention(&snapshot(600, 0)).is_ok(), "old, but nothing was dropped");
    }

    #[test]
    fn cursor_of_former_epoch_is_valid() {
        let mut next = snapshot(600, 0);
        next.incarnations = ["1".to_owned(), "2".to_owned(), "3".to_owned()].into();
        next.position = EventPosition::start_of(2, 5);
        assert!(cursor(600).check_retention(&next).is_ok());
        assert_eq!(cursor(600).find_past(&next), Past::Stored);
    }

    #[test]
    fn rejects_cursor_of_another_database() {
        let other =
            StreamSnapshot { incarnations: ["1".to_owned(), "3".to_owned()].into(), ..snapshot(600, 0) };
        assert!(cursor(600).check_retention(&other).is_err());
    }

    #[test]
    fn past_is_looked_up_unless_it_was_dropped() {
        assert_eq!(cursor(600).find_past(&snapshot(600, 1)), Past::Stored);
        assert_eq!(cursor(600).find_past(&snapshot(600, 2)), Past::Known, "the event was dropped");
        assert_eq!(Cursor::at(&snapshot(600, 0), None).find_past(&snapshot(601, 0)), Past::Known);
    }

    #[test]
    fn cursor_of_former_version_is_of_first_epoch() {
        let former = format!(r#"{{"p":"{:016x}{:016x}","t":"2026-12-01T00:00:00Z","i":"1"}}"#, 500, 0);
        let former: Cursor = serde_json::from_str(&former).unwrap();
        assert_eq!(former.position, EventPosition::start_of(0, 500));
        let first = |xid| StreamSnapshot {
            position: EventPosition::start_of(0, xid),
            incarnations: ["1".to_owned()].into(),
            ..snapshot(0, 0)
        };
        assert!(former.check_retention(&first(501)).is_ok());
        assert_eq!(former.find_past(&first(501)), Past::Known);
        assert_eq!(former.find_past(&first(499)), Past::Unknown, "the database is at an earlier time");
        assert_eq!(former.find_past(&first(EventPosition::XID_MAX)), Past::Stored, "a former incarnation");
        assert_eq!(former.find_past(&snapshot(0, 0)), Past::Stored, "a later epoch");
        let start = Cursor { position: EventPosition::start_of(0, 0), ..former };
        assert_eq!(start.find_past(&snapshot(0, 0)), Past::Known, "the watcher has seen no event");
    }

    #[test]
    fn cursor_never_moves_backwards() {
        let mut cursor = cursor(5);
        cursor.advance(event(1, 9, 9), &snapshot(9, 0));
        assert_eq!((cursor.position, cursor.time), (event(1, 10, 1).position, at(5)));
        cursor.advance_to_end(&snapshot(6, 0), Some(event(1, 10, 1)));
        assert_eq!((cursor.position, cursor.time), (event(1, 10, 1).position, at(6)), "no new events");
        cursor.advance(event(0, 11, 10), &snapshot(10, 0));
        assert_eq!((cursor.position, cursor.time), (event(1, 10, 1).position, at(6)), "a former epoch");
        cursor.advance(event(1, 11, 4), &snapshot(10, 0));
        assert_eq!((cursor.position, cursor.time), (event(1, 11, 4).position, at(4)));
    }
}
