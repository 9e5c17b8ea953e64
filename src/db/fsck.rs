//! Read-only queries of `fsck` across tenants. Each check is one statement, hence one snapshot, so its result
//! is also valid on a live system.

use diesel::{
    ExpressionMethods as _, IntoSql as _, NullableExpressionMethods as _, QueryDsl as _, Queryable,
    QueryableByName, SelectableHelper as _,
    dsl::{exists, not},
    sql_types::{Array, BigInt, Bool, Record, Text, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx,
    audit_entries::AuditAction,
    blobs::{Blob, BlobCursor, versions_of_blob},
    schema::{
        audit_entries, blobs, credit_balances, file_readers, quotas, usage_counters, user_quotas, versions,
    },
    sql::{AcrossTenants as _, days, now_minus, query, sql, statement},
    sweep_candidates::Ownership,
};
use crate::domain::{
    caller::TenantState,
    file::ContentState,
    ids::{FileId, TenantId},
    object_key::ObjectKey,
    permission::Permission,
    upload::UploadState,
};

/// A blob, and the state of the versions that reference it.
#[derive(Debug, Clone, Queryable)]
pub struct CheckedBlob {
    pub tenant: TenantId,
    pub blob: Blob,
    /// Whether an available version references it.
    pub is_needed: bool,
    /// Whether a version that references it is marked missing or damaged.
    pub is_lost: bool,
}

impl CheckedBlob {
    /// Returns the position of this blob in the list of blobs.
    pub fn cursor(&self) -> BlobCursor {
        BlobCursor { tenant: self.tenant, blob: self.blob.id }
    }
}

/// A condition of queries for blobs: whether an available version references the blob.
macro_rules! is_needed {
    () => {
        exists(versions_of_blob!().filter(versions::content_state.eq(ContentState::Available)))
    };
}

/// Returns blobs after a position, ordered by (tenant, id).
pub async fn list_blobs(
    tx: &mut SystemTx,
    after: Option<BlobCursor>,
    limit: i64,
) -> Result<Vec<CheckedBlob>, DbError> {
    let after = after.unwrap_or(BlobCursor::START);
    let position = (blobs::tenant_id, blobs::id);
    let is_lost = exists(versions_of_blob!().filter(versions::state_reason.is_not_null()));
    let page = blobs::table
        .across_tenants()
        .filter(position.into_sql::<Record<(SqlUuid, SqlUuid)>>().gt((after.tenant, after.blob)))
        .order(position)
        .limit(limit)
        .select((blobs::tenant_id, Blob::as_select(), is_needed!(), is_lost));
    query("list blobs to check", page).load(tx.connection()?).await
}

/// Counts the blobs that available versions reference.
pub async fn count_needed_blobs(tx: &mut SystemTx) -> Result<u64, DbError> {
    let needed = blobs::table.across_tenants().filter(is_needed!());
    let count: i64 = query("count needed blobs", needed.count()).one(tx.connection()?).await?;
    Ok(u64::try_from(count).unwrap_or_default())
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
/// An object is owned by a blob, as its original or its copy, by an open upload, by a stray object row, or by a
/// quarantine. Keys are never reused, so the provider of the row does not matter.
pub async fn check_ownership(tx: &mut SystemTx, keys: &[&ObjectKey]) -> Result<Vec<Ownership>, DbError> {
    let tenants: Vec<TenantId> = keys.iter().map(|key| key.tenant()).collect();
    let storage_keys: Vec<ObjectKey> = keys.iter().map(|key| (*key).clone()).collect();
    // `unnest` batch.
    let text = sql!(
        "SELECT EXISTS (SELECT FROM tenants AS t WHERE t.id = k.tenant_id) AS has_tenant,
                EXISTS (SELECT FROM blobs AS b WHERE b.tenant_id = k.tenant_id AND b.storage_key = k.storage_key)
             OR EXISTS (SELECT FROM blobs AS b WHERE b.tenant_id = k.tenant_id AND b.replica_key = k.storage_key)
             OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id
                        AND u.storage_key = k.storage_key AND u.state = {open})
             OR EXISTS (SELECT FROM uploads AS u WHERE u.tenant_id = k.tenant_id
                        AND u.staging_key = k.storage_key AND u.state = {open})
             OR EXISTS (SELECT FROM stray_objects AS s WHERE s.tenant_id = k.tenant_id
                        AND s.storage_key = k.storage_key)
             OR EXISTS (SELECT FROM quarantined_objects AS q WHERE q.tenant_id = k.tenant_id
                        AND q.storage_key = k.storage_key) AS is_owned
         FROM unnest($1, $2) WITH ORDINALITY AS k (tenant_id, storage_key, n) ORDER BY k.n",
        open = UploadState::Open,
    );
    let rows: Vec<KeyRow> = statement("find owners of keys", text)
        .bind::<Array<SqlUuid>, _>(tenants)
        .bind::<Array<Text>, _>(storage_keys)
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
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = quotas)]
pub struct QuotaDrift {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    pub used_bytes: i64,
    #[diesel(sql_type = BigInt)]
    pub charged_bytes: i64,
    pub file_count: i64,
    #[diesel(sql_type = BigInt)]
    pub charged_files: i64,
    pub reserved_bytes: i64,
    #[diesel(sql_type = BigInt)]
    pub open_bytes: i64,
    pub reserved_file_count: i64,
    #[diesel(sql_type = BigInt)]
    pub open_uploads: i64,
    pub pending_deletion_bytes: i64,
    #[diesel(sql_type = BigInt)]
    pub scheduled_bytes: i64,
}

/// Selects the versions that count against quotas: all versions of all files, those in the trash only if the
/// tenant's policy counts them.
const CHARGED: &str = "
    SELECT f.tenant_id, f.owner_id, f.category, v.media_kind, v.size_bytes, f.id, v.version = f.version AS is_current
    FROM files AS f
    JOIN tenants AS t ON t.id = f.tenant_id
    JOIN versions AS v ON v.tenant_id = f.tenant_id AND v.file_id = f.id
    WHERE f.delete_time IS NULL OR (t.policy -> 'trash' ->> 'counts_against_quota')::boolean";

/// Excludes tenants that are being deleted, because their rows are being erased.
fn is_not_being_deleted() -> &'static str {
    sql!(
        "NOT EXISTS (SELECT FROM tenants AS deleting WHERE deleting.id = tenant_id AND deleting.state = {deleting})",
        deleting = TenantState::Deleting,
    )
}

/// Returns quota rows that differ from the stored files, the open uploads and the objects that are pending deletion.
pub async fn list_quota_drifts(tx: &mut SystemTx) -> Result<Vec<QuotaDrift>, DbError> {
    // Outer joins of aggregates.
    let text = sql!(
        "WITH charged AS (
             SELECT tenant_id, sum(size_bytes)::bigint AS bytes, count(DISTINCT id) AS files
             FROM ({charged}) AS c GROUP BY tenant_id
         ), opened AS (
             SELECT tenant_id, sum(reserved_bytes)::bigint AS bytes, count(*) FILTER (WHERE NOT is_version) AS uploads
             FROM uploads WHERE state = {open} GROUP BY tenant_id
         ), scheduled AS (
             SELECT tenant_id, sum(size_bytes)::bigint AS bytes
             FROM (SELECT tenant_id, size_bytes FROM blobs WHERE delete_after IS NOT NULL
                   UNION ALL SELECT tenant_id, size_bytes FROM stray_objects) AS pending
             GROUP BY tenant_id
         ), totals AS (
             SELECT q.tenant_id, q.used_bytes, coalesce(c.bytes, 0) AS charged_bytes, q.file_count,
                    coalesce(c.files, 0) AS charged_files, q.reserved_bytes, coalesce(o.bytes, 0) AS open_bytes,
                    q.reserved_file_count, coalesce(o.uploads, 0) AS open_uploads, q.pending_deletion_bytes,
                    coalesce(s.bytes, 0) AS scheduled_bytes
             FROM quotas AS q LEFT JOIN charged AS c USING (tenant_id) LEFT JOIN opened AS o USING (tenant_id)
                 LEFT JOIN scheduled AS s USING (tenant_id)
         )
         SELECT * FROM totals
         WHERE {is_not_being_deleted} AND (used_bytes <> charged_bytes OR file_count <> charged_files
            OR reserved_bytes <> open_bytes OR reserved_file_count <> open_uploads
            OR pending_deletion_bytes <> scheduled_bytes)
         ORDER BY tenant_id",
        charged = CHARGED,
        open = UploadState::Open,
        is_not_being_deleted = is_not_being_deleted(),
    );
    statement("check quotas", text).load(tx.connection()?).await
}

/// A usage counter that differs from the stored files.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = usage_counters)]
pub struct UsageDrift {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    pub category: String,
    pub media_kind: i16,
    #[diesel(sql_type = BigInt)]
    pub counted_bytes: i64,
    #[diesel(sql_type = BigInt)]
    pub stored_bytes: i64,
}

/// Returns usage counters that differ from the stored files. Bytes count under the media kind of each
/// version, files under that of their current version.
pub async fn list_usage_drifts(tx: &mut SystemTx) -> Result<Vec<UsageDrift>, DbError> {
    // A full join with aggregates.
    let text = sql!(
        "SELECT tenant_id, category, media_kind, coalesce(u.total_bytes, 0) AS counted_bytes,
                coalesce(s.bytes, 0) AS stored_bytes
         FROM usage_counters AS u FULL JOIN (
             SELECT tenant_id, category, media_kind, sum(size_bytes)::bigint AS bytes,
                    count(*) FILTER (WHERE is_current) AS files
             FROM ({charged}) AS c GROUP BY tenant_id, category, media_kind
         ) AS s USING (tenant_id, category, media_kind)
         WHERE {is_not_being_deleted} AND (coalesce(u.total_bytes, 0) <> coalesce(s.bytes, 0)
            OR coalesce(u.file_count, 0) <> coalesce(s.files, 0))
         ORDER BY tenant_id, category, media_kind",
        charged = CHARGED,
        is_not_being_deleted = is_not_being_deleted(),
    );
    statement("check usage counters", text).load(tx.connection()?).await
}

/// A quota of a user whose usage differs from the user's files and open uploads.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = user_quotas)]
pub struct UserQuotaDrift {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    pub user_id: String,
    pub used_bytes: i64,
    #[diesel(sql_type = BigInt)]
    pub charged_bytes: i64,
    pub file_count: i64,
    #[diesel(sql_type = BigInt)]
    pub charged_files: i64,
    pub reserved_bytes: i64,
    #[diesel(sql_type = BigInt)]
    pub open_bytes: i64,
    pub reserved_file_count: i64,
    #[diesel(sql_type = BigInt)]
    pub open_uploads: i64,
}

/// Returns quotas of users that differ from their files and open uploads.
pub async fn list_user_quota_drifts(tx: &mut SystemTx) -> Result<Vec<UserQuotaDrift>, DbError> {
    // Outer joins of aggregates.
    let text = sql!(
        "WITH charged AS (
             SELECT tenant_id, owner_id AS user_id, sum(size_bytes)::bigint AS bytes, count(DISTINCT id) AS files
             FROM ({charged}) AS c GROUP BY tenant_id, owner_id
         ), opened AS (
             SELECT tenant_id, owner_id AS user_id, sum(reserved_bytes)::bigint AS bytes,
                    count(*) FILTER (WHERE NOT is_version) AS uploads
             FROM uploads WHERE state = {open} GROUP BY tenant_id, owner_id
         ), totals AS (
             SELECT q.tenant_id, q.user_id, q.used_bytes, coalesce(c.bytes, 0) AS charged_bytes, q.file_count,
                    coalesce(c.files, 0) AS charged_files, q.reserved_bytes, coalesce(o.bytes, 0) AS open_bytes,
                    q.reserved_file_count, coalesce(o.uploads, 0) AS open_uploads
             FROM user_quotas AS q LEFT JOIN charged AS c USING (tenant_id, user_id)
                 LEFT JOIN opened AS o USING (tenant_id, user_id)
             WHERE q.is_counted
         )
         SELECT * FROM totals
         WHERE {is_not_being_deleted} AND (used_bytes <> charged_bytes OR file_count <> charged_files
            OR reserved_bytes <> open_bytes OR reserved_file_count <> open_uploads)
         ORDER BY tenant_id, user_id",
        charged = CHARGED,
        open = UploadState::Open,
        is_not_being_deleted = is_not_being_deleted(),
    );
    statement("check user quotas", text).load(tx.connection()?).await
}

/// A balance that differs from the ledger of its user.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = credit_balances)]
pub struct CreditDrift {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    pub user_id: String,
    pub balance: i64,
    #[diesel(sql_type = BigInt)]
    pub entry_sum: i64,
    /// The number of the last entry by the balance.
    #[diesel(column_name = entry_count)]
    pub last_number: i64,
    #[diesel(sql_type = BigInt)]
    pub found_entry_count: i64,
    /// The number of entries whose `balance_after` is not the sum of the entries up to them.
    #[diesel(sql_type = BigInt)]
    pub wrong_entry_count: i64,
}

/// Returns balances that differ from the sum of their entries, and ledgers with gaps or wrong sums.
pub async fn list_credit_drifts(tx: &mut SystemTx) -> Result<Vec<CreditDrift>, DbError> {
    // An outer join with an aggregate over a window.
    let text = sql!(
        "WITH running AS (
             SELECT tenant_id, user_id, amount, balance_after,
                    sum(amount) OVER (PARTITION BY tenant_id, user_id ORDER BY number) AS total
             FROM credit_entries
         ), ledgers AS (
             SELECT tenant_id, user_id, sum(amount)::bigint AS total, count(*) AS entries,
                    count(*) FILTER (WHERE balance_after <> total) AS wrong
             FROM running GROUP BY tenant_id, user_id
         ), compared AS (
             SELECT b.tenant_id, b.user_id, b.balance, coalesce(l.total, 0) AS entry_sum, b.entry_count,
                    coalesce(l.entries, 0) AS found_entry_count, coalesce(l.wrong, 0) AS wrong_entry_count
             FROM credit_balances AS b LEFT JOIN ledgers AS l USING (tenant_id, user_id)
         )
         SELECT * FROM compared
         WHERE {is_not_being_deleted}
           AND (balance <> entry_sum OR entry_count <> found_entry_count OR wrong_entry_count > 0)
         ORDER BY tenant_id, user_id",
        is_not_being_deleted = is_not_being_deleted(),
    );
    statement("check credits", text).load(tx.connection()?).await
}

/// A reader whose times differ from the grants of its principal.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
#[diesel(table_name = file_readers)]
pub struct ReaderDrift {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    #[diesel(column_name = file_id)]
    pub file: FileId,
    pub principal: String,
}

/// Returns readers that differ from the policy and the grants of their principals, including missing ones; at most
/// 1000.
pub async fn list_reader_drifts(tx: &mut SystemTx) -> Result<Vec<ReaderDrift>, DbError> {
    // A full join with aggregates.
    let text = sql!(
        "SELECT tenant_id, file_id, principal
         FROM file_readers AS r FULL JOIN (
             SELECT tenant_id, file_id, principal, max(coalesce(expire_time, 'infinity')) AS view_end,
                max(coalesce(expire_time, 'infinity')) FILTER (WHERE permission >= {download}) AS download_end,
                max(coalesce(expire_time, 'infinity')) FILTER (WHERE permission >= {delete}) AS delete_end
             FROM file_grants GROUP BY tenant_id, file_id, principal
         ) AS g USING (tenant_id, file_id, principal)
         WHERE {is_not_being_deleted} AND (r.is_by_policy IS NULL
            OR r.view_end_time <> CASE WHEN r.is_by_policy THEN 'infinity' ELSE coalesce(g.view_end, '-infinity') END
            OR r.download_end_time
                <> CASE WHEN r.is_by_policy THEN 'infinity' ELSE coalesce(g.download_end, '-infinity') END
            OR r.delete_end_time <> coalesce(g.delete_end, '-infinity')
            OR NOT r.is_by_policy AND g.view_end IS NULL)
         ORDER BY tenant_id, file_id, principal LIMIT 1000",
        download = Permission::Download,
        delete = Permission::Delete,
        is_not_being_deleted = is_not_being_deleted(),
    );
    statement("check readers", text).load(tx.connection()?).await
}

/// Returns versions of the last `audit_days` without an audit entry for their commit; at most 1000. The entries of
/// older versions may have been dropped.
pub async fn list_unaudited_versions(
    tx: &mut SystemTx,
    audit_days: u32,
) -> Result<Vec<(TenantId, FileId, i32)>, DbError> {
    let commits = audit_entries::table
        .across_tenants()
        .filter(audit_entries::tenant_id.eq(versions::tenant_id))
        .filter(audit_entries::file_id.eq(versions::file_id.nullable()))
        .filter(audit_entries::create_time.eq(versions::create_time))
        .filter(audit_entries::action.eq_any([AuditAction::FileUpload, AuditAction::FileVersionRestore]))
        .filter(audit_entries::version.eq(versions::version.nullable()))
        .filter(audit_entries::is_allowed);
    let key = (versions::tenant_id, versions::file_id, versions::version);
    let unaudited = versions::table
        .across_tenants()
        .filter(versions::create_time.gt(now_minus(days(audit_days))))
        .filter(not(exists(commits)))
        .order(key)
        .limit(1000)
        .select(key);
    query("list unaudited versions", unaudited).load(tx.connection()?).await
}
