//! Files that delete themselves: at their `expire_time`, or when their retention says so at the latest.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, statement::statement};
use crate::domain::{
    clock::Timestamp,
    ids::{FileId, TenantId},
};

/// When a file is to be deleted.
const DUE_TIME: &str = "least(f.expire_time, f.deletion_time)";

#[derive(QueryableByName)]
struct TenantRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = Bool)]
    is_due: bool,
}

/// A tenant with files that delete themselves some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiringTenant {
    /// Which.
    pub tenant: TenantId,
    /// One of them can be deleted now.
    pub is_due: bool,
}

/// The next tenants behind a place that have such files, in the order of their ids, at most so many. Jumps from tenant to
/// tenant, in the order of the index that has nothing but such files. A file that must be kept is due only where it can go to a trash.
pub async fn tenants(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    tenants_max: i64,
) -> Result<Vec<ExpiringTenant>, DbError> {
    let behind = |place: &str| {
        format!(
            "(SELECT f.tenant_id FROM files AS f WHERE f.delete_time IS NULL AND {DUE_TIME} IS NOT NULL
               AND f.tenant_id > {place} ORDER BY f.tenant_id, {DUE_TIME}, f.id LIMIT 1)"
        )
    };
    let sql = format!(
        "WITH RECURSIVE visited (tenant_id, n) AS (
             SELECT {}, 1
             UNION ALL
             SELECT {}, n + 1 FROM visited WHERE visited.tenant_id IS NOT NULL AND n < {{}}
         )
         SELECT v.tenant_id, coalesce((
             SELECT true FROM files AS f WHERE f.tenant_id = v.tenant_id AND f.delete_time IS NULL
               AND {DUE_TIME} <= app.now() AND (
                 (f.hold_time IS NULL AND (f.retain_until_time IS NULL OR f.retain_until_time <= app.now()))
                 OR (SELECT (t.policy #>> '{{trash,days}}')::integer > 0 FROM tenants AS t WHERE t.id = v.tenant_id))
             ORDER BY {DUE_TIME}, f.id LIMIT 1
         ), false) AS is_due
         FROM visited AS v WHERE v.tenant_id IS NOT NULL ORDER BY v.n",
        behind("{}"),
        behind("visited.tenant_id"),
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

/// A file that is to be deleted since then: also its place in the list of the tenant's.
pub type ExpiredFile = (Timestamp, FileId);

/// Files of the transaction's tenant that are due and not in the trash; longest first, behind a place. Those that must be
/// kept are left out where nothing but a purge would come.
pub async fn list(
    tx: &mut TenantTx,
    has_trash: bool,
    after: Option<ExpiredFile>,
    limit: i64,
) -> Result<Vec<ExpiredFile>, DbError> {
    let (time, id) = after.map_or((Timestamp::UNIX_EPOCH, Uuid::nil()), |(time, id)| (time, id.as_uuid()));
    let sql = format!(
        "SELECT {DUE_TIME} AS due_time, f.id FROM files AS f
         WHERE f.tenant_id = {{}} AND f.delete_time IS NULL AND {DUE_TIME} <= app.now()
           AND ({{}} OR (f.hold_time IS NULL AND (f.retain_until_time IS NULL OR f.retain_until_time <= app.now())))
           AND ({DUE_TIME}, f.id) > ({{}}, {{}})
         ORDER BY {DUE_TIME}, f.id LIMIT {{}}"
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
