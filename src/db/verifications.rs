//! Results of the verification of direct uploads. A version changes state once, from PROCESSING to
//! AVAILABLE or ERROR.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName,
    sql_types::{Binary, Integer, Nullable, SmallInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    audit_entries::{self, AuditAction, AuditEntry},
    blobs::Blob,
    events::EventKind,
    file_locks,
    schema::{blobs, versions},
    sql::{OfTenant as _, query, sql, statement},
};
use crate::domain::{
    caller::Actor,
    digest::{Digest, ObjectHashes},
    file::{ContentState, StateReason},
    ids::FileId,
};

#[derive(QueryableByName)]
#[diesel(table_name = versions)]
struct MovedRow {
    file_id: FileId,
}

/// Records the hashes of a blob that has none yet.
pub async fn record_hashes(tx: &mut TenantTx, blob: &Blob, hashes: ObjectHashes) -> Result<(), DbError> {
    let undigested =
        blobs::table.of(tx.tenant()).filter(blobs::id.eq(blob.id)).filter(blobs::sha256.is_null());
    let update = diesel::update(undigested)
        .set((blobs::sha256.eq(hashes.sha256), blobs::crc64nvme.eq(hashes.crc64nvme)));
    query("record hashes of blob", update).execute(tx.connection()?).await.map(|_| ())
}

/// Moves a version from PROCESSING to AVAILABLE with its digest, or to ERROR with a reason. Adds an audit
/// entry and an event.
///
/// Returns false if the version is not PROCESSING, because another worker has recorded a result or it was
/// purged.
pub async fn record_result(
    tx: &mut TenantTx,
    file: FileId,
    version: i32,
    verified: Result<Digest, StateReason>,
) -> Result<bool, DbError> {
    file_locks::lock(tx, file).await?;
    let (state, event, action) = match verified {
        Ok(_) => (ContentState::Available, EventKind::FileVerified, AuditAction::FileVerify),
        Err(_) => (ContentState::Error, EventKind::FileRefused, AuditAction::FileRefuse),
    };
    let reason = verified.err();
    // One statement that changes two tables and inserts events from the result. The version need not be the
    // current one: a new version becomes current only when it is available, and another version may have
    // become current by then.
    let text = sql!(
        "WITH moved AS (
             UPDATE versions SET content_state = $1, state_reason = $2, sha256 = $3
             WHERE tenant_id = $4 AND file_id = $5 AND version = $6 AND content_state = {processing}
             RETURNING tenant_id, file_id, version, content_state, state_reason, sha256
         ), updated AS (
             UPDATE files AS f SET revision = f.revision + 1, update_time = app.now(),
                content_state = CASE WHEN f.version = m.version THEN m.content_state ELSE f.content_state END,
                state_reason = CASE WHEN f.version = m.version THEN m.state_reason ELSE f.state_reason END,
                sha256 = CASE WHEN f.version = m.version THEN m.sha256 ELSE f.sha256 END
             FROM moved AS m WHERE f.tenant_id = m.tenant_id AND f.id = m.file_id
         ), recorded AS (
             INSERT INTO events (tenant_id, create_time, kind, file_id, version, revision, actor_id, owner_id, audience,
                readers)
             SELECT f.tenant_id, app.now(), $7, m.file_id, m.version, f.revision + 1, $8, f.owner_id, f.audience, array(
                 SELECT reader.principal FROM file_readers AS reader
                 WHERE reader.tenant_id = f.tenant_id AND reader.file_id = f.id
                   AND reader.view_end_time > app.now())
             FROM moved AS m JOIN files AS f ON f.tenant_id = m.tenant_id AND f.id = m.file_id
         )
         SELECT file_id FROM moved",
        processing = ContentState::Processing,
    );
    let moved: Vec<MovedRow> = statement("record verification result", text)
        .bind::<SmallInt, _>(state)
        .bind::<Nullable<SmallInt>, _>(reason)
        .bind::<Nullable<Binary>, _>(verified.ok())
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(file)
        .bind::<Integer, _>(version)
        .bind::<SmallInt, _>(event)
        .bind::<Text, _>(Actor::system().id)
        .load(tx.connection()?)
        .await?;
    let entry = |row: &MovedRow| AuditEntry {
        file: Some(row.file_id),
        version: Some(version),
        ..AuditEntry::system(action, serde_json::json!({ "reason": reason }))
    };
    let entries: Vec<AuditEntry> = moved.iter().map(entry).collect();
    if !entries.is_empty() {
        audit_entries::insert(tx, &entries).await?;
    }
    Ok(!moved.is_empty())
}
