//! The outbox: every change of a file is a row in its transaction, at a position that no late commit can slip under.
//!
//! A row says what happened to which file and who could see it then. It holds no name: whoever may see the file reads that
//! from the file, and nobody else learns it here.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Text, Uuid as SqlUuid},
};
use serde::Serialize;
use serde_json::json;

use super::{DbError, DbErrorKind, TenantTx, file_owners::OwnedFile, statement::statement};
use crate::domain::{
    event_position::EventPosition,
    file::{File, Visibility},
    ids::FileId,
    principal::user_principal,
    sql_enum::sql_enum,
};

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
        /// The bytes of a direct upload are as declared.
        FileVerified = 70 => "file_verified",
        /// The bytes of a direct upload are gone, or not as declared.
        FileRefused = 71 => "file_refused",
    }
}

impl EventKind {
    /// What a row says. A kind that only a newer release knows is read as an update: whoever hears of it looks at the file.
    pub fn of_row(number: i16) -> Self {
        Self::from_number(number).unwrap_or(Self::FileUpdated)
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
    /// Whose file it is.
    owner_id: String,
    /// Who sees it by role; the wider one, where the change moved it.
    audience: i16,
    /// Who saw it by name, besides those whom the database knows as readers now.
    former_readers: Vec<String>,
}

impl Event {
    /// An event about a version of a file that need not be the current one.
    pub fn of_version(kind: EventKind, file: &File, version: i32, actor_id: &str) -> Self {
        Self { version, ..Self::of(kind, file, actor_id) }
    }

    /// A file changed hands: who had it hears of it too.
    pub fn of_transfer(owned: &OwnedFile, (from, to): (&str, &str), actor_id: &str) -> Self {
        Self {
            kind: EventKind::FileOwnerChanged,
            file: owned.id,
            version: owned.version,
            actor_id: actor_id.to_owned(),
            owner_id: to.to_owned(),
            audience: owned.audience,
            former_readers: vec![user_principal(from)],
        }
    }

    /// An event about the current version of a file.
    pub fn of(kind: EventKind, file: &File, actor_id: &str) -> Self {
        Self {
            kind,
            file: file.id,
            version: file.version,
            actor_id: actor_id.to_owned(),
            owner_id: file.owner_id.clone(),
            audience: audience(file.visibility),
            former_readers: Vec::new(),
        }
    }

    /// The change may have taken the file out of the sight of some: they hear of it too.
    #[must_use]
    pub fn seen_before(mut self, before: &File) -> Self {
        self.audience = self.audience.max(audience(before.visibility));
        if before.owner_id != self.owner_id {
            self.former_readers.push(user_principal(&before.owner_id));
        }
        self
    }

    /// The change took the file from these readers.
    #[must_use]
    pub fn taken_from(mut self, readers: Vec<String>) -> Self {
        self.former_readers.extend(readers);
        self
    }
}

/// The column of the same name in `files`.
fn audience(visibility: Visibility) -> i16 {
    visibility.number().min(Visibility::Organization.number())
}

/// The columns of an event, as [`insert`] hands them over.
#[derive(Serialize)]
struct EventRow<'a> {
    kind: i16,
    file_id: FileId,
    version: i32,
    actor_id: &'a str,
    owner_id: &'a str,
    audience: i16,
    readers: &'a [String],
}

#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Text)]
    xid: String,
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Writes events; the transaction knows the position of the last one afterwards. Readers that were given or taken in the same
/// transaction are written before, as the order of a commit says.
pub async fn insert(tx: &mut TenantTx, events: &[Event]) -> Result<(), DbError> {
    const OPERATION: &str = "insert events";
    let rows: Vec<EventRow<'_>> = events.iter().map(EventRow::from).collect();
    let written: Vec<Written> = statement(
        OPERATION,
        "WITH written AS (
            INSERT INTO events AS e (tenant_id, create_time, kind, file_id, version, actor_id, owner_id, audience, readers)
            SELECT {}, app.now(), n.kind, n.file_id, n.version, n.actor_id, n.owner_id, n.audience, array(
                SELECT reader.principal FROM file_readers AS reader
                WHERE reader.tenant_id = {} AND reader.file_id = n.file_id
                UNION SELECT unnest(n.readers))
            FROM jsonb_to_recordset({}::text::jsonb) AS n (kind smallint, file_id uuid, version integer, actor_id text,
                owner_id text, audience smallint, readers text[])
            RETURNING e.xid, e.n)
         SELECT xid::text AS xid, n AS number FROM written ORDER BY n DESC LIMIT 1",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Text, _>(json!(rows).to_string())
    .load(tx.connection()?)
    .await?;
    if let Some(last) = written.into_iter().next() {
        tx.note_event(position(OPERATION, &last.xid, last.number)?);
    }
    Ok(())
}

impl<'a> From<&'a Event> for EventRow<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            kind: event.kind.number(),
            file_id: event.file,
            version: event.version,
            actor_id: &event.actor_id,
            owner_id: &event.owner_id,
            audience: event.audience,
            readers: &event.former_readers,
        }
    }
}

/// A position from the database's two columns.
pub(super) fn position(operation: &'static str, xid: &str, number: i64) -> Result<EventPosition, DbError> {
    let xid = xid.parse().map_err(|error| DbError::new(DbErrorKind::Corrupt, operation, error))?;
    let n = u64::try_from(number).map_err(|error| DbError::new(DbErrorKind::Corrupt, operation, error))?;
    Ok(EventPosition { xid, n })
}
