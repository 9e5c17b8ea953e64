//! Cursors: where a watch goes on. Sealed, so that nobody can make one up, and bound to the tenant, to the history that its
//! position belongs to, and to a time that says whether what came after is still kept.
//!
//! A cursor is bound to no filter: it says how far a watcher has come, whatever it looked for.

use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Error},
    db::event_stream::Safe,
    domain::{clock::Timestamp, event_position::EventPosition, ids::TenantId},
};

/// Where a watcher stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Everything up to here was dealt with.
    #[serde(rename = "p")]
    pub(super) position: EventPosition,
    /// What comes behind is hardly older than this.
    #[serde(rename = "t")]
    pub(super) time: Timestamp,
    /// The history that the position belongs to.
    #[serde(rename = "i")]
    pub(super) incarnation: String,
}

impl Cursor {
    /// A watcher that has seen everything there is.
    pub(super) fn at(safe: &Safe) -> Self {
        Self { position: safe.position, time: safe.time, incarnation: safe.incarnation.clone() }
    }

    /// Moves on to where everything was seen, never back. Time passes also where nothing is written.
    pub(super) fn advance(&mut self, position: EventPosition, time: Timestamp) {
        if position >= self.position {
            (self.position, self.time) = (position, time);
        }
    }

    /// Whether everything behind it is still there, by the clock and the history of this moment.
    ///
    /// # Errors
    /// `CursorTooOld`.
    pub(super) fn check(&self, safe: &Safe, kept: chrono::Duration) -> Result<(), Error> {
        let is_whole = safe.has_all_behind(self.time, &self.incarnation, kept);
        if is_whole { Ok(()) } else { Err(Error::CursorTooOld) }
    }

    /// As text for the caller.
    pub(super) fn seal(&self, app: &App, tenant: TenantId) -> Result<String, Error> {
        let cursor = serde_json::to_vec(self).map_err(Error::internal)?;
        app.page_tokens.seal(&purpose(tenant), &cursor).map_err(Error::internal)
    }

    /// What a caller sent.
    pub(super) fn open(app: &App, tenant: TenantId, text: &str) -> Result<Self, Error> {
        let opened = app.page_tokens.open(&purpose(tenant), text).map_err(|_| Error::CursorInvalid)?;
        serde_json::from_slice(&opened).map_err(|_| Error::CursorInvalid)
    }
}

/// What keeps cursors and page tokens apart.
fn purpose(tenant: TenantId) -> Vec<u8> {
    [b"watch cursor ".as_slice(), tenant.as_uuid().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_timestamp(hours * 3_600, 0).unwrap()
    }

    fn safe(time: i64, horizon: i64) -> Safe {
        Safe {
            position: EventPosition::before(1_000),
            time: at(time),
            incarnation: "1".to_owned(),
            horizon: at(horizon),
        }
    }

    fn cursor(hours: i64) -> Cursor {
        Cursor { position: EventPosition::before(10), time: at(hours), incarnation: "1".to_owned() }
    }

    #[test]
    fn a_cursor_is_good_while_what_is_behind_it_is_kept() {
        let kept = chrono::Duration::hours(100);
        assert!(cursor(500).check(&safe(600, 0), kept).is_err(), "an event may be older than its cursor");
        assert!(cursor(501).check(&safe(600, 0), kept).is_ok());
        assert!(cursor(560).check(&safe(600, 560), kept).is_err(), "its partition is gone");
        assert!(cursor(561).check(&safe(600, 560), kept).is_ok());
    }

    #[test]
    fn a_cursor_of_another_history_is_refused() {
        let elsewhere = Safe { incarnation: "2".to_owned(), ..safe(600, 0) };
        assert!(cursor(600).check(&elsewhere, chrono::Duration::hours(100)).is_err());
    }

    #[test]
    fn a_cursor_never_goes_back() {
        let mut cursor = cursor(5);
        cursor.advance(EventPosition::before(9), at(9));
        assert_eq!((cursor.position, cursor.time), (EventPosition::before(10), at(5)));
        cursor.advance(EventPosition::before(10), at(6));
        assert_eq!((cursor.position, cursor.time), (EventPosition::before(10), at(6)), "a quiet database");
        cursor.advance(EventPosition::before(11), at(4));
        assert_eq!((cursor.position, cursor.time), (EventPosition::before(11), at(4)));
    }
}
