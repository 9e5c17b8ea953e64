//! The event outbox: every change of a file, the disabling of a webhook, and a quota alert insert an event in the
//! same transaction.
//!
//! An event states what happened to which file, and who could see the file at that time. It does not contain
//! the file's name: readers who may see the file read it there, and others must not learn it.

use std::num::TryFromIntError;

use diesel::{
    Queryable, QueryableByName, Selectable,
    sql_types::{Jsonb, Uuid as SqlUuid},
};
use serde::Serialize;
use serde_json::json;

use super::{
    DbError, TenantTx,
    file_owners::OwnedFile,
    schema::events,
    sql::{statement, xid::Xid},
};
use crate::domain::{
    caller::Actor,
    event_position::EventPosition,
    file::{File, Visibility},
    ids::{FileId, QuotaAlertId, WebhookId},
    principal::caller_principal,
    quota_alert::AlertLevel,
    sql_enum::sql_enum,
};

sql_enum! {
    /// A change of a file or of a webhook, or a quota alert.
    EventKind {
        /// Its first version was committed.
        FileCreated = 1 => "file_created",
        /// It was moved to the trash.
        FileDeleted = 2 => "file_deleted",
        /// It was restored from the trash.
        FileUndeleted = 3 => "file_undeleted",
        /// It was purged.
        FilePurged = 4 => "file_purged",
        /// It was archived. Its bytes are not readable until it is unarchived.
        FileArchived = 5 => "file_archived",
        /// It was unarchived.
        FileUnarchived = 6 => "file_unarchived",
        /// Its record was changed.
        FileUpdated = 7 => "file_updated",
        /// Another version was committed, by an upload or a restore.
        FileVersionCreated = 40 => "file_version_created",
        /// A version was deleted permanently.
        FileVersionDeleted = 41 => "file_version_deleted",
        /// A legal hold was set on it.
        FileHoldSet = 42 => "file_hold_set",
        /// Its legal hold was released.
        FileHoldReleased = 43 => "file_hold_released",
        /// It was transferred to another owner.
        FileOwnerChanged = 50 => "file_owner_changed",
        /// The object of a version is missing or damaged.
        FileDamaged = 44 => "file_damaged",
        /// The object of a version that was missing or damaged is intact again.
        FileRepaired = 45 => "file_repaired",
        /// The content of a direct upload matches its declaration.
        FileVerified = 70 => "file_verified",
        /// The content of a direct upload is missing or does not match its declaration.
        FileRefused = 71 => "file_refused",
        /// A permission on it was given or changed.
        FileGrantAdded = 100 => "file_grant_added",
        /// Permissions on it were revoked or expired.
        FileGrantRemoved = 101 => "file_grant_removed",
        /// It was shared.
        FileShareCreated = 120 => "file_share_created",
        /// The terms of one of its shares were changed.
        FileShareUpdated = 121 => "file_share_updated",
        /// One of its shares was revoked.
        FileShareRevoked = 122 => "file_share_revoked",
        /// A webhook was disabled. Readers get it only if they ask for this kind.
        WebhookDisabled = 80 => "webhook_disabled",
        /// The usage reached a threshold of the quota. Readers get it only if they ask for this kind.
        /// `app.raise_quota_alert` inserts it.
        QuotaAlert = 91 => "quota_alert",
    }
}

impl EventKind {
    /// Converts the number of a stored event. Maps unknown kinds, from a newer release, to `FileUpdated`,
    /// because that makes readers reload the file.
    pub fn from_stored(number: i16) -> Self {
        Self::from_number(number).unwrap_or(Self::FileUpdated)
    }
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSubject {
    /// A version of a file.
    File { id: FileId, version: i32 },
    /// A webhook, which has no versions.
    Webhook(WebhookId),
    /// A quota alert.
    QuotaAlert { id: QuotaAlertId, level: AlertLevel },
}

impl EventSubject {
    /// Converts the columns of an event. In an event about something else than a file, `file_id` is its id: the column
    /// is not nullable, and the previous version reads it. In a quota alert, `version` is the number of the level.
    pub(super) fn from_columns(kind: EventKind, file_id: FileId, version: i32) -> Self {
        match kind {
            EventKind::WebhookDisabled => Self::Webhook(WebhookId::from_uuid(file_id.as_uuid())),
            EventKind::QuotaAlert => {
                let level = i16::try_from(version).ok().and_then(AlertLevel::from_number);
                let level = level.unwrap_or(AlertLevel::Warning);
                Self::QuotaAlert { id: QuotaAlertId::from_uuid(file_id.as_uuid()), level }
            }
            _ => Self::File { id: file_id, version },
        }
    }

    /// Returns the id for the column `file_id`, and the version.
    pub(super) fn into_columns(self) -> (FileId, i32) {
        match self {
            Self::File { id, version } => (id, version),
            Self::Webhook(id) => (FileId::from_uuid(id.as_uuid()), 0),
            Self::QuotaAlert { id, level } => (FileId::from_uuid(id.as_uuid()), level.number().into()),
        }
    }

    /// Returns the id of the file, if the event is about one.
    pub fn file(self) -> Option<FileId> {
        match self {
            Self::File { id, .. } => Some(id),
            Self::Webhook(_) | Self::QuotaAlert { .. } => None,
        }
    }
}

/// An event about a file to insert.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: EventKind,
    pub file: FileId,
    pub version: i32,
    /// The revision of the file after the change. No two events of a file have the same.
    revision: i64,
    pub actor_id: String,
    owner_id: String,
    /// The audience that sees the event by role. If the change modified it, this is the wider of the two.
    audience: i16,
    /// Principals that could read the file before the change, in addition to its current readers.
    former_readers: Vec<String>,
}

impl Event {
    /// Creates an event about a version of a file, which need not be the current one, from the file's record after the
    /// change.
    pub fn for_version(kind: EventKind, file: &File, version: i32, actor_id: &str) -> Self {
        Self { version, ..Self::for_file(kind, file, actor_id) }
    }

    /// Creates an event about a transfer between two owners. The former owner can see it too.
    pub fn for_transfer(owned: &OwnedFile, from: &str, to: &str, actor_id: &str) -> Self {
        Self {
            kind: EventKind::FileOwnerChanged,
            file: owned.id,
            version: owned.version,
            revision: owned.revision + 1,
            actor_id: actor_id.to_owned(),
            owner_id: to.to_owned(),
            audience: owned.audience,
            former_readers: vec![caller_principal(from)],
        }
    }

    /// Creates an event about the purge of a file, from its last record.
    pub fn for_purge(file: &File, actor_id: &str) -> Self {
        let event = Self::for_file(EventKind::FilePurged, file, actor_id);
        Self { revision: file.revision + 1, ..event }
    }

    /// Creates an event about the current version of a file, from its record after the change.
    pub fn for_file(kind: EventKind, file: &File, actor_id: &str) -> Self {
        Self {
            kind,
            file: file.id,
            version: file.version,
            revision: file.revision,
            actor_id: actor_id.to_owned(),
            owner_id: file.owner_id.clone(),
            audience: audience(file.visibility),
            former_readers: Vec::new(),
        }
    }

    /// Makes the event visible also to those who could see the file before the change.
    #[must_use]
    pub fn with_former_viewers(mut self, before: &File) -> Self {
        self.audience = self.audience.max(audience(before.visibility));
        if before.owner_id != self.owner_id {
            self.former_readers.push(caller_principal(&before.owner_id));
        }
        self
    }

    /// Makes the event visible also to readers whom the change removed.
    #[must_use]
    pub fn with_removed_readers(mut self, readers: Vec<String>) -> Self {
        self.former_readers.extend(readers);
        self
    }
}

/// Computes the generated column `files.audience`.
fn audience(visibility: Visibility) -> i16 {
    visibility.number().min(Visibility::Organization.number())
}

/// The columns of an event, as [`insert`] passes them to the database.
#[derive(Serialize)]
struct EventRow<'a> {
    kind: i16,
    file_id: FileId,
    version: i32,
    revision: i64,
    actor_id: &'a str,
    owner_id: &'a str,
    audience: i16,
    readers: &'a [String],
}

/// The columns of the position of an event.
#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = events, check_for_backend(diesel::pg::Pg))]
pub(super) struct PositionRow {
    epoch: i32,
    xid: Xid,
    n: i64,
}

impl PositionRow {
    pub(super) fn into_position(self, operation: &'static str) -> Result<EventPosition, DbError> {
        position_of(operation, self.epoch, self.xid, self.n)
    }
}

/// Inserts events, and stores the position of the last one in the transaction.
///
/// The same transaction must lock the file with `file_locks` and change it before. It must also change the readers of
/// a file before, because events copy the current readers.
pub async fn insert(tx: &mut TenantTx, events: &[Event]) -> Result<(), DbError> {
    insert_rows(tx, events.iter().map(EventRow::from).collect()).await
}

/// Inserts the event of a disabled webhook. Only admins see it.
pub async fn insert_webhook_disabled(tx: &mut TenantTx, webhook: WebhookId) -> Result<(), DbError> {
    let (file_id, version) = EventSubject::Webhook(webhook).into_columns();
    let actor = Actor::system();
    let row = EventRow {
        kind: EventKind::WebhookDisabled.number(),
        file_id,
        version,
        revision: 0,
        actor_id: &actor.id,
        // No caller has this id.
        owner_id: "",
        audience: audience(Visibility::Owner),
        readers: &[],
    };
    insert_rows(tx, vec![row]).await
}

async fn insert_rows(tx: &mut TenantTx, rows: Vec<EventRow<'_>>) -> Result<(), DbError> {
    const OPERATION: &str = "insert events";
    // A batch, with the readers of each file.
    let last: Option<PositionRow> = statement(
        OPERATION,
        "WITH inserted AS (
            INSERT INTO events AS e (tenant_id, create_time, kind, file_id, version, revision, actor_id, owner_id,
                audience, readers)
            SELECT $1, app.now(), n.kind, n.file_id, n.version, n.revision, n.actor_id, n.owner_id, n.audience, array(
                SELECT reader.principal FROM file_readers AS reader
                WHERE reader.tenant_id = $1 AND reader.file_id = n.file_id AND reader.view_end_time > app.now()
                UNION SELECT unnest(n.readers))
            FROM jsonb_to_recordset($2) AS n (kind smallint, file_id uuid, version integer, revision bigint,
                actor_id text, owner_id text, audience smallint, readers text[])
            RETURNING e.epoch, e.xid, e.n)
         SELECT epoch, xid, n FROM inserted ORDER BY n DESC LIMIT 1",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Jsonb, _>(json!(rows))
    .first(tx.connection()?)
    .await?;
    if let Some(last) = last {
        tx.note_event(last.into_position(OPERATION)?);
    }
    Ok(())
}

impl<'a> From<&'a Event> for EventRow<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            kind: event.kind.number(),
            file_id: event.file,
            version: event.version,
            revision: event.revision,
            actor_id: &event.actor_id,
            owner_id: &event.owner_id,
            audience: event.audience,
            readers: &event.former_readers,
        }
    }
}

/// Converts the three position columns of the database.
pub(super) fn position_of(
    operation: &'static str,
    epoch: i32,
    xid: Xid,
    number: i64,
) -> Result<EventPosition, DbError> {
    let corrupt = |error: TryFromIntError| DbError::corrupt(operation, error);
    let (epoch, n) = (u16::try_from(epoch).map_err(corrupt)?, u64::try_from(number).map_err(corrupt)?);
    if xid.0 > EventPosition::XID_MAX {
        return Err(DbError::corrupt(operation, "transaction id"));
    }
    Ok(EventPosition { epoch, xid: xid.0, n })
}

/// Returns the number of a position as its column stores it.
pub(super) fn position_number(position: EventPosition) -> i64 {
    i64::try_from(position.n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_without_a_text_is_corrupt() {
        let max = EventPosition::XID_MAX;
        let position = position_of("test", 0xffff, Xid(max), i64::MAX).unwrap();
        assert_eq!(position.to_string().parse(), Ok(position));
        for (epoch, xid, n) in [(0x1_0000, 1, 1), (-1, 1, 1), (1, max + 1, 1), (1, u64::MAX, 1), (1, 1, -1)] {
            assert!(position_of("test", epoch, Xid(xid), n).is_err(), "{epoch} {xid} {n}");
        }
    }
}
