//! Read-only queries of `fsck` across tenants. Each check is one statement, hence one snapshot, so its result
//! is also valid on a live system.

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Integer, Nullable, SmallInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    blob_position::BlobPosition,
    blobs::{Blob, BlobRow, COLUMNS},
    sql::statement,
    sweep_candidates::Ownership,
};
use crate::domain::{
    ids::{FileId, TenantId},
    object_key::ObjectKey,
};

/// A blob, and the state of the versions that reference it.
#[derive(Debug, Clone)]
pub struct CheckedBlob {
    pub tenant: TenantId,
    pub blob: Blob,
    /// Whether an available version references it.
    pub is_needed: bool,
    /// Whether a version that references it is marked missing or damaged.
    pub is_lost: bool,
}

#[derive(QueryableByName)]
struct CheckedRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = Bool)]
    is_needed: bool,
    #[diesel(sql_type = Bool)]
    is_lost: bool,
    #[diesel(embed)]
    blob: BlobRow,
}

/// Returns blobs after a position, ordered by (tenant, id).
pub async fn list_blobs(
    tx: &mut SystemTx,
    after: Option<BlobPosition>,
    limit: i64,
) -> Result<Vec<CheckedBlob>, DbError> {
    let (tenant, id) = BlobPosition::to_columns(after);
    // 2: available
    let sql = format!(
        "SELECT b.tenant_id, {COLUMNS}, EXISTS (
             SELECT FROM versions AS v
             WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id AND v.content_state = 2) AS is_needed,
             EXISTS (
             SELECT FROM versions AS v
             WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id AND v.state_reason IS NOT NULL) AS is_lost
         FROM blobs AS b WHERE (b.tenant_id, b.id) > ($1, $2) ORDER BY b.tenant_id, b.id LIMIT $3"
    );
    let rows: Vec<CheckedRow> = statement("list blobs to check", sql)
        .bind::<SqlUuid, _>(tenant)
        .bind::<SqlUuid, _>(id)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter()
        .map(|row| {
            let tenant = TenantId::from_uuid(row.tenant_id);
            Ok(CheckedBlob {
                tenant,
                blob: row.blob.into_blob()?,
                is_needed: row.is_needed,
                is_lost: row.is_lost,
            })
        })
        .collect()
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// Counts the blobs that available versions reference.
pub async fn count_needed_blobs(tx: &mut SystemTx) -> Result<u64, DbError> {
    // 2: available
    let row: CountRow = statement(
        "count needed blobs",
        "SELECT count(*) AS count FROM blobs AS b WHERE EXISTS (
             SELECT FROM versions AS v
             WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id AND v.content_state = 2)",
    )
    .one(tx.connection()?)
    .await?;
    Ok(u64::try_from(row.count).unwrap_or_default())
}

#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = Bool)]
    has_tenant: bool,
    #[diesel(sql_type = Bool)]
    is_owned: bool,
}

/// Returns who owns the objects with these keys, in order.
///
/// An object is owned by a blob, an open upload, or a stray object row. Keys are never reused, so the
/// provider of the row does not matter.
pub async fn check_ownership(tx: &mut SystemTx, keys: &[&ObjectKey]) -> Result<Vec<Ownership>, DbError> {
    let tenants: Vec<Uuid> = keys.iter().map(|key| key.tenant().as_uuid()).collect();
    let key_texts: Vec<String> = keys.iter().map(|key| key.as_str().to_owned()).collect();
    let rows: Vec<KeyRow> = statement(
        "find owners of keys",
        "SELECT EXISTS (SELECT FROM tenants AS t WHERE t.id = k.tenant_id) AS has_tenant,
                EXISTS (SELECT FROM blobs AS b WHERE b.tenant_id = k.tenant_id AND b.storage_key = k.storage_key)
             OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id
                        AND u.storage_key = k.storage_key AND u.state = 1)
             OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id
                        AND u.staging_key = k.storage_key AND u.state = 1)
             OR EXISTS (SELECT FROM stray_objects AS s WHERE s.tenant_id = k.tenant_id
                        AND s.storage_key = k.storage_key) AS is_owned
         FROM unnest($1, $2) WITH ORDINALITY AS k (tenant_id, storage_key, n) ORDER BY k.n",
    )
    .bind::<Array<SqlUuid>, _>(tenants)
    .bind::<Array<Text>, _>(key_texts)
    .load(tx.connection()?)
    .await?;
    let ownership = |row: KeyRow| match row {
        KeyRow { is_owned: true, .. } => Ownership::Owned,
        KeyRow { has_tenant: false, .. } => Ownership::Foreign,
        KeyRow { .. } => Ownership::Unowned,
    };
    Ok(rows.into_iter().map(ownership).collect())
}

/// A quota row whose counters differ from the stored files and open uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the values of the quota row, and the counted values")]
pub struct QuotaDrift {
    pub tenant: TenantId,
    pub used_bytes: i64,
    pub charged_bytes: i64,
    pub file_count: i64,
    pub charged_files: i64,
    pub reserved_bytes: i64,
    pub open_bytes: i64,
    pub reserved_file_count: i64,
    pub open_uploads: i64,
}

#[derive(QueryableByName)]
struct DriftRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = BigInt)]
    used_bytes: i64,
    #[diesel(sql_type = BigInt)]
    charged_bytes: i64,
    #[diesel(sql_type = BigInt)]
    file_count: i64,
    #[diesel(sql_type = BigInt)]
    charged_files: i64,
    #[diesel(sql_type = BigInt)]
    reserved_bytes: i64,
    #[diesel(sql_type = BigInt)]
    open_bytes: i64,
    #[diesel(sql_type = BigInt)]
    reserved_file_count: i64,
    #[diesel(sql_type = BigInt)]
    open_uploads: i64,
}

/// Selects the versions that count against quotas: all versions of all files, those in the trash only if the
/// tenant's policy counts them.
const CHARGED: &str = "
    SELECT f.tenant_id, f.category, v.media_kind, v.size_bytes, f.id, v.version = f.version AS is_current
    FROM files AS f
    JOIN tenants AS t ON t.id = f.tenant_id
    JOIN versions AS v ON v.tenant_id = f.tenant_id AND v.file_id = f.id
    WHERE f.delete_time IS NULL OR (t.policy -> 'trash' ->> 'counts_against_quota')::boolean";

/// Excludes tenants that are being deleted, because their rows are being erased.
const IS_NOT_BEING_DELETED: &str =
    "NOT EXISTS (SELECT FROM tenants AS deleting WHERE deleting.id = tenant_id AND deleting.state = 3)";

/// Returns quota rows that differ from the stored files and open uploads.
pub async fn list_quota_drifts(tx: &mut SystemTx) -> Result<Vec<QuotaDrift>, DbError> {
    let sql = format!(
        "WITH charged AS (
             SELECT tenant_id, sum(size_bytes)::bigint AS bytes, count(DISTINCT id) AS files
             FROM ({CHARGED}) AS c GROUP BY tenant_id
         ), opened AS (
             SELECT tenant_id, sum(reserved_bytes)::bigint AS bytes, count(*) FILTER (WHERE NOT is_version) AS uploads
             FROM uploads WHERE state = 1 GROUP BY tenant_id
         ), totals AS (
             SELECT q.tenant_id, q.used_bytes, coalesce(c.bytes, 0) AS charged_bytes, q.file_count,
                    coalesce(c.files, 0) AS charged_files, q.reserved_bytes, coalesce(o.bytes, 0) AS open_bytes,
                    q.reserved_file_count, coalesce(o.uploads, 0) AS open_uploads
             FROM quotas AS q LEFT JOIN charged AS c USING (tenant_id) LEFT JOIN opened AS o USING (tenant_id)
         )
         SELECT * FROM totals
         WHERE {IS_NOT_BEING_DELETED} AND (used_bytes <> charged_bytes OR file_count <> charged_files
            OR reserved_bytes <> open_bytes OR reserved_file_count <> open_uploads)
         ORDER BY tenant_id"
    );
    let rows: Vec<DriftRow> = statement("check quotas", sql).load(tx.connection()?).await?;
    Ok(rows
        .into_iter()
        .map(|row| QuotaDrift {
            tenant: TenantId::from_uuid(row.tenant_id),
            used_bytes: row.used_bytes,
            charged_bytes: row.charged_bytes,
            file_count: row.file_count,
            charged_files: row.charged_files,
            reserved_bytes: row.reserved_bytes,
            open_bytes: row.open_bytes,
            reserved_file_count: row.reserved_file_count,
            open_uploads: row.open_uploads,
        })
        .collect())
}

/// A usage counter that differs from the stored files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the values of the counter, and the counted values")]
pub struct UsageDrift {
    pub tenant: TenantId,
    pub category: String,
    pub media_kind: i16,
    pub counted_bytes: i64,
    pub stored_bytes: i64,
}

#[derive(QueryableByName)]
struct UsageRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = Text)]
    category: String,
    #[diesel(sql_type = SmallInt)]
    media_kind: i16,
    #[diesel(sql_type = BigInt)]
    counted_bytes: i64,
    #[diesel(sql_type = BigInt)]
    stored_bytes: i64,
}

/// Returns usage counters that differ from the stored files. Bytes count under the media kind of each
/// version, files under that of their current version.
pub async fn list_usage_drifts(tx: &mut SystemTx) -> Result<Vec<UsageDrift>, DbError> {
    let sql = format!(
        "SELECT tenant_id, category, media_kind, coalesce(u.total_bytes, 0) AS counted_bytes,
                coalesce(s.bytes, 0) AS stored_bytes
         FROM usage_counters AS u FULL JOIN (
             SELECT tenant_id, category, media_kind, sum(size_bytes)::bigint AS bytes,
                    count(*) FILTER (WHERE is_current) AS files
             FROM ({CHARGED}) AS c GROUP BY tenant_id, category, media_kind
         ) AS s USING (tenant_id, category, media_kind)
         WHERE {IS_NOT_BEING_DELETED} AND (coalesce(u.total_bytes, 0) <> coalesce(s.bytes, 0)
            OR coalesce(u.file_count, 0) <> coalesce(s.files, 0))
         ORDER BY tenant_id, category, media_kind"
    );
    let rows: Vec<UsageRow> = statement("check usage counters", sql).load(tx.connection()?).await?;
    Ok(rows
        .into_iter()
        .map(|row| UsageDrift {
            tenant: TenantId::from_uuid(row.tenant_id),
            category: row.category,
            media_kind: row.media_kind,
            counted_bytes: row.counted_bytes,
            stored_bytes: row.stored_bytes,
        })
        .collect())
}

#[derive(QueryableByName)]
struct UnauditedRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
    #[diesel(sql_type = Nullable<Integer>)]
    version: Option<i32>,
}

/// Returns versions without an audit entry for their commit; at most 1000.
pub async fn list_unaudited_versions(tx: &mut SystemTx) -> Result<Vec<(TenantId, FileId, i32)>, DbError> {
    // 2: file_upload, 40: file_version_restore
    let rows: Vec<UnauditedRow> = statement(
        "list unaudited versions",
        "SELECT v.tenant_id, v.file_id, v.version FROM versions AS v
         WHERE NOT EXISTS (
             SELECT FROM audit_entries AS a
             WHERE a.tenant_id = v.tenant_id AND a.file_id = v.file_id AND a.create_time = v.create_time
               AND a.action IN (2, 40) AND a.version = v.version AND a.is_allowed)
         ORDER BY v.tenant_id, v.file_id, v.version LIMIT 1000",
    )
    .load(tx.connection()?)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let (tenant, file) = (TenantId::from_uuid(row.tenant_id), FileId::from_uuid(row.file_id));
            (tenant, file, row.version.unwrap_or_default())
        })
        .collect())
}
