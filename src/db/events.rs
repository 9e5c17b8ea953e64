//! The outbox: every change of a file is a row in its transaction, at a position that no late commit can slip under.

use diesel::sql_types::{Array, Integer, SmallInt, Text, Uuid as SqlUuid};

use super::{DbError, TenantTx, statement::statement};
use crate::domain::{file::File, ids::FileId, sql_enum::sql_enum};

sql_enum! {
    /// What happened to a file.
    EventKind {
        /// Its first version was committed.
        FileCreated = 1 => "file_created",
        /// It went to the trash.
        FileDeleted = 2 => "file_deleted",
        /// It came back.
        FileUndeleted = 3 => "file_undeleted",
        /// It is gone for good.
        FilePurged = 4 => "file_purged",
        /// Its bytes are not readable until it is unarchived.
        FileArchived = 5 => "file_archived",
        /// They are again.
        FileUnarchived = 6 => "file_unarchived",
        /// What people wrote about it changed.
        FileUpdated = 7 => "file_updated",
        /// A further version was committed: uploaded, or restored.
        FileVersionCreated = 40 => "file_version_created",
        /// A version was removed for good.
        FileVersionDeleted = 41 => "file_version_deleted",
        /// A legal hold was set on it.
        FileHoldSet = 42 => "file_hold_set",
        /// Its legal hold was released.
        FileHoldReleased = 43 => "file_hold_released",
        /// It belongs to someone else.
        FileOwnerChanged = 50 => "file_owner_changed",
        /// The object of a version is missing or damaged.
        FileDamaged = 44 => "file_damaged",
        /// The object of a version that was missing or damaged is whole again.
        FileRepaired = 45 => "file_repaired",
    }
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// To which file.
    pub file: FileId,
    /// At which version.
    pub version: i32,
    /// By whom.
    pub actor_id: String,
}

impl Event {
    /// An event about a version of a file that need not be the current one.
    pub fn of_version(kind: EventKind, file: FileId, version: i32, actor_id: &str) -> Self {
        Self { kind, file, version, actor_id: actor_id.to_owned() }
    }

    /// An event about the current version of a file.
    pub fn of(kind: EventKind, file: &File, actor_id: &str) -> Self {
        Self { kind, file: file.id, version: file.version, actor_id: actor_id.to_owned() }
    }
}

/// Writes events.
pub async fn insert(tx: &mut TenantTx, events: &[Event]) -> Result<(), DbError> {
    statement(
        "insert events",
        "INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id)
         SELECT {}, app.now(), n.kind, n.file_id, n.version, n.actor_id
         FROM unnest({}, {}, {}, {}) AS n (kind, file_id, version, actor_id)",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<SmallInt>, _>(events.iter().map(|event| event.kind.number()).collect::<Vec<_>>())
    .bind::<Array<SqlUuid>, _>(events.iter().map(|event| event.file.as_uuid()).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(events.iter().map(|event| event.version).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(events.iter().map(|event| event.actor_id.clone()).collect::<Vec<_>>())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}
