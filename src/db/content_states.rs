//! State changes of all versions that reference one blob, when its object is found missing, damaged, or
//! repaired.

use diesel::{
    QueryableByName,
    sql_types::{Integer, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    audit_entries::{self, AuditAction, AuditEntry},
    blobs::Blob,
    events::EventKind,
    sql::statement,
};
use crate::domain::{
    caller::Actor,
    file::StateReason,
    ids::{BlobId, FileId, TenantId},
};

#[derive(QueryableByName)]
struct MovedRow {
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
    #[diesel(sql_type = Integer)]
    version: i32,
}

/// Moves every available version that references this blob to state ERROR, with an audit entry and an event
/// for each.
///
/// Returns the number of versions. Returns 0 if the blob has been moved to another object in the meantime.
pub async fn mark_damaged(tx: &mut TenantTx, blob: &Blob, reason: StateReason) -> Result<usize, DbError> {
    let tenant = tx.tenant().as_uuid();
    // Lock files before their blobs, in the same order as a purge.
    lock_files(blob.id, tenant).execute(tx.connection()?).await?;
    let locked = statement(
        "lock blob",
        "SELECT FROM blobs WHERE tenant_id = $1 AND id = $2 AND provider = $3 AND storage_key = $4 FOR SHARE",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(blob.id.as_uuid())
    .bind::<Text, _>(blob.provider.clone())
    .bind::<Text, _>(blob.key.as_str().to_owned())
    .execute(tx.connection()?)
    .await?;
    if locked == 0 {
        return Ok(0);
    }
    // 2: available, 5: error
    let moved: Vec<MovedRow> = statement(
        "mark versions damaged",
        "WITH marked AS (
             UPDATE versions SET content_state = 5, state_reason = $1
             WHERE tenant_id = $2 AND blob_id = $3 AND content_state = 2 RETURNING file_id, version
         ), updated AS (
             UPDATE files AS f SET revision = f.revision + 1, update_time = app.now(),
                content_state = CASE WHEN f.version = ANY (m.versions) THEN 5 ELSE f.content_state END,
                state_reason = CASE WHEN f.version = ANY (m.versions) THEN m.reason ELSE f.state_reason END
             FROM (SELECT file_id, array_agg(version) AS versions, $4::smallint AS reason
                   FROM marked GROUP BY file_id) AS m
             WHERE f.tenant_id = $5 AND f.id = m.file_id
         ), recorded AS (
             INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id, owner_id, audience, readers)
             SELECT f.tenant_id, app.now(), $6, m.file_id, m.version, $7, f.owner_id, f.audience, array(
                 SELECT reader.principal FROM file_readers AS reader
                 WHERE reader.tenant_id = f.tenant_id AND reader.file_id = f.id)
             FROM marked AS m JOIN files AS f ON f.tenant_id = $8 AND f.id = m.file_id
         )
         SELECT file_id, version FROM marked",
    )
    .bind::<SmallInt, _>(reason.number())
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(blob.id.as_uuid())
    .bind::<SmallInt, _>(reason.number())
    .bind::<SqlUuid, _>(tenant)
    .bind::<SmallInt, _>(EventKind::FileDamaged.number())
    .bind::<Text, _>(Actor::system().id)
    .bind::<SqlUuid, _>(tenant)
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
    statement("enable repair", "SELECT set_config('app.repair', 'on', true)")
        .execute(tx.connection()?)
        .await?;
    lock_files(blob, tenant.as_uuid()).execute(tx.connection()?).await?;
    let moved: Vec<MovedRow> = statement(
        "mark versions repaired",
        "WITH marked AS (
             UPDATE versions SET content_state = 2, state_reason = NULL
             WHERE tenant_id = $1 AND blob_id = $2 AND content_state = 5 AND state_reason IS NOT NULL
             RETURNING file_id, version
         ), updated AS (
             UPDATE files AS f SET revision = f.revision + 1, update_time = app.now(),
                content_state = CASE WHEN f.version = ANY (m.versions) THEN 2 ELSE f.content_state END,
                state_reason = CASE WHEN f.version = ANY (m.versions) THEN NULL ELSE f.state_reason END
             FROM (SELECT file_id, array_agg(version) AS versions FROM marked GROUP BY file_id) AS m
             WHERE f.tenant_id = $3 AND f.id = m.file_id
         ), recorded AS (
             INSERT INTO events (tenant_id, create_time, kind, file_id, version, actor_id, owner_id, audience, readers)
             SELECT f.tenant_id, app.now(), $4, m.file_id, m.version, $5, f.owner_id, f.audience, array(
                 SELECT reader.principal FROM file_readers AS reader
                 WHERE reader.tenant_id = f.tenant_id AND reader.file_id = f.id)
             FROM marked AS m JOIN files AS f ON f.tenant_id = $6 AND f.id = m.file_id
         )
         SELECT file_id, version FROM marked",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<SqlUuid, _>(blob.as_uuid())
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<SmallInt, _>(EventKind::FileRepaired.number())
    .bind::<Text, _>(Actor::system().id)
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .load(tx.connection()?)
    .await?;
    let entries = entries(&moved, AuditAction::FileRepair, &serde_json::json!({}));
    if !entries.is_empty() {
        audit_entries::insert_for(tx, tenant, &entries).await?;
    }
    Ok(moved.len())
}

/// Locks the files whose versions reference the blob. Must run before any version is updated, to keep the
/// lock order.
fn lock_files(blob: BlobId, tenant: Uuid) -> super::sql::Operation<super::sql::SqlText> {
    statement(
        "lock files of blob",
        "SELECT FROM files WHERE tenant_id = $1
           AND id IN (SELECT file_id FROM versions WHERE tenant_id = $2 AND blob_id = $3) ORDER BY id FOR UPDATE",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(blob.as_uuid())
}

fn entries(moved: &[MovedRow], action: AuditAction, details: &serde_json::Value) -> Vec<AuditEntry> {
    let entry = |row: &MovedRow| AuditEntry {
        file: Some(FileId::from_uuid(row.file_id)),
        version: Some(row.version),
        ..AuditEntry::system(action, details.clone())
    };
    moved.iter().map(entry).collect()
}
