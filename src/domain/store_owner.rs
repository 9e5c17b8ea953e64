//! The owner of a store: the database whose rows decide which objects are deleted.
//!
//! A database and its store prove to each other that they belong together. The store has an owner marker, and
//! the database has a row for each of the latest markers that it wrote (a *beat*). A copy of the database, or
//! an earlier state of it, lacks the rows of the beats since. So does the former owner of a store that
//! another database took over. The database itself is identified by the installation, which copies share, and
//! by its incarnation (`app.event_incarnation`), which positions of events use as well.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{clock::Timestamp, ids::InstallationId};

/// The format of the markers that this version writes. A marker with a higher format cannot be read.
pub const MARKER_FORMAT: u32 = 1;

/// A marker that a database wrote, or is about to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerBeat {
    /// Increases when a database takes the store over.
    pub epoch: i64,
    /// Increases with each marker of an epoch, starting at 1.
    pub beat: i64,
    /// A random value, so that two databases with the same past never write the same beat.
    pub token: Uuid,
}

/// The identity of a running database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseIdentity {
    /// The id of the installation. Copies of the database have the same id.
    pub installation_id: InstallationId,
    /// The incarnation: `<system identifier>-<timeline>-<database>`.
    pub incarnation: String,
    /// The start time of the PostgreSQL server.
    pub server_start_time: Timestamp,
}

/// The owner marker of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerMarker {
    pub format: u32,
    /// The database that wrote the marker.
    #[serde(flatten)]
    pub database: DatabaseIdentity,
    #[serde(flatten)]
    pub beat: OwnerBeat,
    pub write_time: Timestamp,
}

/// Why a store does not belong to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerMismatch {
    /// The marker was written by another installation.
    OtherInstallation,
    /// Another database has taken the store over.
    TakenOver,
    /// The database is a copy of the owner: another cluster, or another database of the same cluster.
    Copied,
    /// The database has no record of the marker: it is an earlier state of the owner, or a copy of it.
    Restored,
    /// The store has objects and no marker, although the database wrote one.
    MarkerMissing,
    /// The store has no marker, and most of its objects are not known to the database.
    UnknownObjects,
    /// The marker cannot be read.
    MarkerUnreadable,
}

/// The result of comparing a marker with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The store belongs to this database.
    Owned,
    /// The database has a record of the marker, but its server has been restarted or has failed over since. A
    /// physical copy of the database looks the same until the original writes the next marker.
    Unconfirmed,
    /// The store does not belong to this database.
    NotOwned(OwnerMismatch),
}

impl OwnerMarker {
    /// Creates the marker that a database writes.
    pub fn new(database: DatabaseIdentity, beat: OwnerBeat, write_time: Timestamp) -> Self {
        Self { format: MARKER_FORMAT, database, beat, write_time }
    }

    /// Parses a marker. Returns `None` if it is damaged, or was written by a version with a newer format.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|marker| marker.format <= MARKER_FORMAT)
    }

    /// Compares the marker with a database. `newest` is the newest beat of the database, and `is_recorded`
    /// whether the database has a row for the beat of the marker.
    pub fn judge(
        &self,
        database: &DatabaseIdentity,
        newest: Option<&OwnerBeat>,
        is_recorded: bool,
    ) -> Verdict {
        let is_taken_over = newest.is_none_or(|newest| self.beat.epoch > newest.epoch);
        if self.database.installation_id != database.installation_id {
            Verdict::NotOwned(OwnerMismatch::OtherInstallation)
        } else if !is_recorded && newest.is_some() && is_taken_over {
            Verdict::NotOwned(OwnerMismatch::TakenOver)
        } else if physical_part(&self.database.incarnation) != physical_part(&database.incarnation) {
            Verdict::NotOwned(OwnerMismatch::Copied)
        } else if !is_recorded {
            Verdict::NotOwned(OwnerMismatch::Restored)
        } else if self.database == *database {
            Verdict::Owned
        } else {
            Verdict::Unconfirmed
        }
    }
}

/// Returns the parts of an incarnation that a failover to a standby keeps: the system identifier and the
/// database.
fn physical_part(incarnation: &str) -> (&str, &str) {
    let system = incarnation.split_once('-').map_or(incarnation, |(system, _)| system);
    let database = incarnation.rsplit_once('-').map_or("", |(_, database)| database);
    (system, database)
}

impl fmt::Display for OwnerMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherInstallation => "it belongs to another installation",
            Self::TakenOver => "another database took it over",
            Self::Copied => "this database is a copy of its owner, or was restored from a dump",
            Self::Restored => "this database is an earlier state of its owner, or a copy",
            Self::MarkerMissing => "its owner marker was deleted",
            Self::UnknownObjects => "it has no owner marker, and this database does not know its objects",
            Self::MarkerUnreadable => "its owner marker is damaged or has a newer format",
        })
    }
}

/// The owner in short, as part of a sentence.
impl fmt::Display for OwnerMarker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "installation {}, epoch {}, last wrote {}",
            self.database.installation_id,
            self.beat.epoch,
            self.write_time.format("%Y-%m-%dT%H:%M:%SZ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn database(incarnation: &str, start: i64) -> DatabaseIdentity {
        DatabaseIdentity {
            installation_id: InstallationId::from_uuid(Uuid::from_u128(1)),
            incarnation: incarnation.to_owned(),
            server_start_time: time(start),
        }
    }

    fn beat(epoch: i64, beat: i64) -> OwnerBeat {
        OwnerBeat { epoch, beat, token: Uuid::from_u128(7) }
    }

    fn marker() -> OwnerMarker {
        OwnerMarker::new(database("70-00000001-5", 10), beat(2, 30), time(100))
    }

    #[test]
    fn marker_is_read_again_and_newer_format_is_refused() {
        let text = serde_json::to_vec(&marker()).unwrap();
        assert_eq!(OwnerMarker::parse(&text), Some(marker()));
        let newer = serde_json::to_vec(&OwnerMarker { format: MARKER_FORMAT + 1, ..marker() }).unwrap();
        assert_eq!(OwnerMarker::parse(&newer), None);
        assert_eq!(OwnerMarker::parse(&text[..text.len() - 1]), None);
    }

    #[test]
    fn recorded_marker_of_same_server_is_owned() {
        let owner = database("70-00000001-5", 10);
        assert_eq!(marker().judge(&owner, Some(&beat(2, 30)), true), Verdict::Owned);
    }

    #[test]
    fn failover_and_restart_are_unconfirmed_and_not_a_mismatch() {
        for after in [database("70-00000002-5", 10), database("70-00000001-5", 11)] {
            assert_eq!(marker().judge(&after, Some(&beat(2, 30)), true), Verdict::Unconfirmed);
        }
    }

    #[test]
    fn each_kind_of_mismatch_is_detected() {
        let owner = database("70-00000001-5", 10);
        let judged = |database: &DatabaseIdentity, newest, is_recorded| match marker().judge(
            database,
            Some(&newest),
            is_recorded,
        ) {
            Verdict::NotOwned(mismatch) => mismatch,
            verdict => panic!("{verdict:?}"),
        };
        // A dump in another cluster, or in another database of the cluster.
        for copy in [database("71-00000001-5", 10), database("70-00000001-6", 10)] {
            assert_eq!(judged(&copy, beat(2, 30), true), OwnerMismatch::Copied);
            assert_eq!(judged(&copy, beat(2, 29), false), OwnerMismatch::Copied);
        }
        assert_eq!(judged(&owner, beat(2, 29), false), OwnerMismatch::Restored);
        // The same number of another past.
        assert_eq!(judged(&owner, beat(2, 30), false), OwnerMismatch::Restored);
        assert_eq!(judged(&database("70-00000002-5", 12), beat(2, 29), false), OwnerMismatch::Restored);
        assert_eq!(judged(&owner, beat(1, 80), false), OwnerMismatch::TakenOver);
        let installation_id = InstallationId::from_uuid(Uuid::from_u128(2));
        let other = DatabaseIdentity { installation_id, ..owner };
        assert_eq!(judged(&other, beat(2, 30), true), OwnerMismatch::OtherInstallation);
    }
}
