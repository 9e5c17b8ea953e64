//! What the reading of a direct upload came to: its version moves from PROCESSING to AVAILABLE or to ERROR, once.

use diesel::{
    QueryableByName,
    sql_types::{Binary, Integer, Nullable, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, TenantTx,
    audit_entries::{self, AuditAction, AuditEntry},
    blobs::Blob,
    events::EventKind,
    statement::statement,
};
use crate::domain::{
    caller::Actor,
    checksum::Crc64,
    digest::Digest,
    file::{ContentState, StateReason},
    ids::FileId,
};

#[derive(QueryableByName)]
struct MovedRow {
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
}

/// Records what the bytes of a blob are; they were not known before.
pub async fn record_sums(
    tx: &mut TenantTx,
    blob: &Blob,
    sha256: Digest,
    crc64nvme: Crc64,
) -> Result<(), DbError> {
    statement(
        "record digest of blob",
        "UPDATE blobs SET sha256 = {}, crc64nvme = {} WHERE tenant_id = {} AND id = {} AND sha256 = {}",
    )
    .bind::<Binary, _>(sha256.as_bytes().to_vec())
    .bind::<Binary, _>(crc64nvme.to_be_bytes().to_vec())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(blob.id.as_uuid())
    .bind::<Binary, _>(Digest::UNKNOWN.as_bytes().to_vec())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Moves a version that is PROCESSING to its end, with its audit entry and event: available with its digest, or for a reason
/// in error. False when it is not PROCESSING any more: another worker was first, or it was purged.
pub async fn conclude(
    tx: &mut TenantTx,
    (file, version): (FileId, i32),
    verified: Result<Digest, StateReason>,
) -> Result<bool, DbError> {
    let tenant = tx.tenant().as_uuid();
    statement("lock verified file", "SELECT FROM files WHERE tenant_id = {} AND id = {} FOR UPDATE")
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(file.as_uuid())
        .execute(tx.connection()?)
        .await?;
    let (state, event, action) = match verified {
        Ok(_) => (ContentState::Available, EventKind::FileVerified, AuditAction::FileVerify),
        Err(_) => (ContentState::Error, EventKind::FileRefused, AuditAction::FileRefuse),
    };
    let reason = verified.err();
    let sha256 = verified.unwrap_or(Digest::UNKNOWN);
    // 1: processing. It need not be the current version: a further one becomes that only when it is available, and another
    // may be by then.
    let moved: Vec<MovedRow> = statement(
        "conclude verification",
        "WITH moved AS (
             UPDATE versions SET content_state = {}, state_reason = {}, sha256 = {}
             WHERE tenant_id = {} AND file_id = {} AND version = {} AND content_state = 1
             RETURNING tenant_id, file_id, version, content_state, state_reason, sha256
         ), touched AS (
             UPDATE files AS f SET revision = f.revision + 1, update_time = app.now(),
                content_state = CASE WHEN f.version = m.version THEN m.content_state ELSE f.content_state END,
                state_reason = CASE WHEN f.version = m.version THEN m.state_reason ELSE f.state_reason END,
                sha256 = CASE WHEN f.version = m.version THEN m.sha256 ELSE f.sha256 END
             FROM moved AS m WHERE f.tenant_id = m.tenant_id AND f.id = m.file_id
         ), told AS (
             INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id, owner_id, audience, readers)
             SELECT f.tenant_id, app.now(), {}, m.file_id, m.version, {}, f.owner_id, f.audience, array(
                 SELECT reader.principal FROM file_readers AS reader
                 WHERE reader.tenant_id = f.tenant_id AND reader.file_id = f.id)
             FROM moved AS m JOIN files AS f ON f.tenant_id = m.tenant_id AND f.id = m.file_id
         )
         SELECT file_id FROM moved",
    )
    .bind::<SmallInt, _>(state.number())
    .bind::<Nullable<SmallInt>, _>(reason.map(|reason| reason.number()))
    .bind::<Binary, _>(sha256.as_bytes().to_vec())
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(file.as_uuid())
    .bind::<Integer, _>(version)
    .bind::<SmallInt, _>(event.number())
    .bind::<Text, _>(Actor::system().id)
    .load(tx.connection()?)
    .await?;
    let entry = |row: &MovedRow| AuditEntry {
        file: Some(FileId::from_uuid(row.file_id)),
        version: Some(version),
        ..AuditEntry::system(action, serde_json::json!({ "reason": reason }))
    };
    let entries: Vec<AuditEntry> = moved.iter().map(entry).collect();
    if !entries.is_empty() {
        audit_entries::insert(tx, &entries).await?;
    }
    Ok(!moved.is_empty())
}
