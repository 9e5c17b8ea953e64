//! Files that are deleted automatically: at their `expire_time` or their `deletion_time`, whichever is
//! earlier.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, sql::statement};
use crate::domain::{
    clock::Timestamp,
    ids::{FileId, TenantId},
};

/// The time when a file is deleted automatically.
const DUE_TIME: &str = "least(f.expire_time, f.deletion_time)";

#[derive(QueryableByName)]
struct TenantRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = Bool)]
    is_due: bool,
}

/// A tenant with files that will be deleted automatically.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiringTenant {
    pub tenant: TenantId,
    /// Whether one of them is due.
    pub is_due: bool,
}

/// Returns up to `tenants_max` tenants with such files after a tenant, ordered by id.
///
/// Skips from tenant to tenant through the partial index `files_to_delete`. A protected file (under a legal
/// hold or in retention) is due only if the tenant has a trash to move it to.
pub async fn list_tenants(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    tenants_max: i64,
) -> Result<Vec<ExpiringTenant>, DbError> {
    let next_tenant = |tenant: &str| {
        format!(
            "(SELECT f.tenant_id FROM files AS f WHERE f.delete_time IS NULL AND {DUE_TIME} IS NOT NULL
               AND f.tenant_id > {tenant} ORDER BY f.tenant_id, {DUE_TIME}, f.id LIMIT 1)"
        )
    };
    let sql = format!(
        "WITH RECURSIVE visited (tenant_id, n) AS (
             SELECT {}, 1
             UNION ALL
             SELECT {}, n + 1 FROM visited WHERE visited.tenant_id IS NOT NULL AND n < $2
         )
         SELECT v.tenant_id, coalesce((
             SELECT true FROM files AS f WHERE f.tenant_id = v.tenant_id AND f.delete_time IS NULL
               AND {DUE_TIME} <= app.now() AND (
                 (f.hold_time IS NULL AND (f.retain_until_time IS NULL OR f.retain_until_time <= app.now()))
                 OR (SELECT (t.policy #>> '{{trash,days}}')::integer > 0 FROM tenants AS t WHERE t.id = v.tenant_id))
             ORDER BY {DUE_TIME}, f.id LIMIT 1
         ), false) AS is_due
         FROM visited AS v WHERE v.tenant_id IS NOT NULL ORDER BY v.n",
        next_tenant("$1"),
        next_tenant("visited.tenant_id"),
    );
    let rows: Vec<TenantRow> = statement("find tenants with files to delete", sql)
        .bind::<SqlUuid, _>(after.map_or_else(Uuid::nil, TenantId::as_uuid))
        .bind::<BigInt, _>(tenants_max)
        .load(tx.connection()?)
        .await?;
    let tenant =
        |row: TenantRow| ExpiringTenant { tenant: TenantId::from_uuid(row.tenant_id), is_due: row.is_due };
    Ok(rows.into_iter().map(tenant).collect())
}

#[derive(QueryableByName)]
struct DueRow {
    #[diesel(sql_type = Timestamptz)]
    due_time: Timestamp,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// The due time and the id of a file that is due for deletion; also its position in the tenant's list.
pub type ExpiredFile = (Timestamp, FileId);

/// Returns files of the transaction's tenant that are due and not in the trash, after a position, ordered by
/// due time.
///
/// Without a trash, protected files are excluded, because deleting them would purge them.
pub async fn list_due(
    tx: &mut TenantTx,
    has_trash: bool,
    after: Option<ExpiredFile>,
    limit: i64,
) -> Result<Vec<ExpiredFile>, DbError> {
    let (time, id) = after.map_or((Timestamp::UNIX_EPOCH, Uuid::nil()), |(time, id)| (time, id.as_uuid()));
    let sql = format!(
        "SELECT {DUE_TIME} AS due_time, f.id FROM files AS f
         WHERE f.tenant_id = $1 AND f.delete_time IS NULL AND {DUE_TIME} <= app.now()
           AND ($2 OR (f.hold_time IS NULL AND (f.retain_until_time IS NULL OR f.retain_until_time <= app.now())))
           AND ({DUE_TIME}, f.id) > ($3, $4)
         ORDER BY {DUE_TIME}, f.id LIMIT $5"
    );
    let rows: Vec<DueRow> = statement("find files to delete", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<Bool, _>(has_trash)
        .bind::<Timestamptz, _>(time)
        .bind::<SqlUuid, _>(id)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    Ok(rows.into_iter().map(|row| (row.due_time, FileId::from_uuid(row.id))).collect())
}
