//! State changes of all versions that reference one blob, when its object is found missing, damaged, or
//! repaired.

use diesel::{
    ExpressionMethods as _, QueryDsl as _, QueryableByName,
    sql_types::{SmallInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    audit_entries::{self, AuditAction, AuditEntry},
    blobs::Blob,
    events::EventKind,
    file_locks,
    schema::{blobs, versions},
    sql::{OfTenant as _, query, sql, statement},
};
use crate::domain::{
    caller::Actor,
    file::{ContentState, StateReason},
    ids::{BlobId, FileId, TenantId},
};

#[derive(QueryableByName)]
#[diesel(table_name = versions)]
struct MovedRow {
    file_id: FileId,
    version: i32,
}

/// Moves every available version that references this blob to state ERROR, with an audit entry and an event
/// for each.
///
/// Returns the number of versions. Returns 0 if the blob has been moved to another object in the meantime.
pub async fn mark_damaged(tx: &mut TenantTx, blob: &Blob, reason: StateReason) -> Result<usize, DbError> {
    // Lock files before their blobs, in the same order as a purge.
    let tenant = tx.tenant();
    file_locks::lock_of_blob(tx.connection()?, tenant, blob.id).await?;
    let lock = blobs::table
        .of(tx.tenant())
        .filter(blobs::id.eq(blob.id))
        .filter(blobs::provider.eq(&blob.provider))
        .filter(blobs::storage_key.eq(&blob.key))
        .select(blobs::id)
        .for_share();
    let locked = query("lock blob", lock).execute(tx.connection()?).await?;
    if locked == 0 {
        return Ok(0);
    }
    // One statement that changes two tables and inserts events from the result. Each event has a revision of its own.
    let text = sql!(
        "WITH marked AS (
             UPDATE versions SET content_state = {error}, state_reason = $1
             WHERE tenant_id = $2 AND blob_id = $3 AND content_state = {available} RETURNING file_id, version
         ), updated AS (
             UPDATE files AS f SET revision = f.revision + cardinality(m.versions), update_time = app.now(),
                content_state = CASE WHEN f.version = ANY (m.versions) THEN {error} ELSE f.content_state END,
                state_reason = CASE WHEN f.version = ANY (m.versions) THEN $1 ELSE f.state_reason END
             FROM (SELECT file_id, array_agg(version) AS versions FROM marked GROUP BY file_id) AS m
             WHERE f.tenant_id = $2 AND f.id = m.file_id
         ), recorded AS (
             INSERT INTO events (tenant_id, create_time, kind, file_id, version, revision, actor_id, owner_id, audience,
                readers)
             SELECT f.tenant_id, app.now(), $4, m.file_id, m.version,
                f.revision + row_number() OVER (PARTITION BY m.file_id ORDER BY m.version), $5, f.owner_id, f.audience,
                array(
                    SELECT reader.principal FROM file_readers AS reader
                    WHERE reader.tenant_id = f.tenant_id AND reader.file_id = f.id
                      AND reader.view_end_time > app.now())
             FROM marked AS m JOIN files AS f ON f.tenant_id = $2 AND f.id = m.file_id
             ORDER BY m.file_id, m.version
         )
         SELECT file_id, version FROM marked",
        available = ContentState::Available,
        error = ContentState::Error,
    );
    let moved: Vec<MovedRow> = statement("mark versions damaged", text)
        .bind::<SmallInt, _>(reason)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<SqlUuid, _>(blob.id)
        .bind::<SmallInt, _>(EventKind::FileDamaged)
        .bind::<Text, _>(Actor::system().id)
        .load(tx.connection()?)
        .await?;
    let entries = entries(&moved, AuditAction::FileDamage, &serde_json::json!({ "reason": reason }));
    if !entries.is_empty() {
        audit_entries::insert(tx, &entries).await?;
    }
    Ok(moved.len())
}

/// Moves every version of this blob that was marked missing or damaged back to available, with an audit entry
/// and an event for each.
///
/// Returns the number of versions. The caller must have read the object and found it intact.
pub async fn mark_repaired(tx: &mut SystemTx, tenant: TenantId, blob: BlobId) -> Result<usize, DbError> {
    // A setting of the transaction.
    statement("enable repair", "SELECT set_config('app.repair', 'on', true)")
        .execute(tx.connection()?)
        .await?;
    file_locks::lock_of_blob(tx.connection()?, tenant, blob).await?;
    // As above.
    let text = sql!(
        "WITH marked AS (
             UPDATE versions SET content_state = {available}, state_reason = NULL
             WHERE tenant_id = $1 AND blob_id = $2 AND content_state = {error} AND state_reason IS NOT NULL
             RETURNING file_id, version
         ), updated AS (
             UPDATE files AS f SET revision = f.revision + cardinality(m.versions), update_time = app.now(),
                content_state = CASE WHEN f.version = ANY (m.versions) THEN {available} ELSE f.content_state END,
                state_reason = CASE WHEN f.version = ANY (m.versions) THEN NULL ELSE f.state_reason END
             FROM (SELECT file_id, array_agg(version) AS versions FROM marked GROUP BY file_id) AS m
             WHERE f.tenant_id = $1 AND f.id = m.file_id
         ), recorded AS (
             INSERT INTO events (tenant_id, create_time, kind, file_id, version, revision, actor_id, owner_id, audience,
                readers)
             SELECT f.tenant_id, app.now(), $3, m.file_id, m.version,
                f.revision + row_number() OVER (PARTITION BY m.file_id ORDER BY m.version), $4, f.owner_id, f.audience,
                array(
                    SELECT reader.principal FROM file_readers AS reader
                    WHERE reader.tenant_id = f.tenant_id AND reader.file_id = f.id
                      AND reader.view_end_time > app.now())
             FROM marked AS m JOIN files AS f ON f.tenant_id = $1 AND f.id = m.file_id
             ORDER BY m.file_id, m.version
         )
         SELECT file_id, version FROM marked",
        available = ContentState::Available,
        error = ContentState::Error,
    );
    let moved: Vec<MovedRow> = statement("mark versions repaired", text)
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(blob)
        .bind::<SmallInt, _>(EventKind::FileRepaired)
        .bind::<Text, _>(Actor::system().id)
        .load(tx.connection()?)
        .await?;
    let entries = entries(&moved, AuditAction::FileRepair, &serde_json::json!({}));
    if !entries.is_empty() {
        audit_entries::insert_for(tx, tenant, &entries).await?;
    }
    Ok(moved.len())
}

fn entries(moved: &[MovedRow], action: AuditAction, details: &serde_json::Value) -> Vec<AuditEntry> {
    let entry = |row: &MovedRow| AuditEntry {
        file: Some(row.file_id),
        version: Some(row.version),
        ..AuditEntry::system(action, details.clone())
    };
    moved.iter().map(entry).collect()
}
