//! Lists blobs that wait for a copy or a repair, by turns of tenants: first one blob of each tenant, then another one
//! of each. A tenant with a million of them therefore delays those of others no more than a tenant with one does.
//!
//! The queries skip from tenant to tenant through the indexes `blobs_to_replicate` and `versions_lost`, so they read
//! few rows however many blobs wait.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Text, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    blob_claims::BlobWork,
    schema::blobs,
    sql::{sql, statement},
};
use crate::domain::{
    clock::Timestamp,
    file::ContentState,
    ids::{BlobId, TenantId},
    object_key::ObjectKey,
};

/// The maximum number of blobs of one tenant in a list.
const TENANT_BLOBS_MAX: usize = 4;

/// A blob that waits for work. It may have changed since it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingBlob {
    pub tenant: TenantId,
    pub blob: BlobId,
    /// The provider of the original.
    pub provider: String,
    /// The key of the original.
    pub key: ObjectKey,
    /// The last tenant whose turn it was, up to this blob. A later list begins after it.
    pub turn: TenantId,
}

#[derive(Debug, QueryableByName)]
#[diesel(table_name = blobs)]
struct WaitingRow {
    tenant_id: TenantId,
    id: BlobId,
    provider: String,
    storage_key: ObjectKey,
    create_time: Timestamp,
}

#[derive(QueryableByName)]
#[diesel(table_name = blobs)]
struct TenantRow {
    tenant_id: TenantId,
}

/// The condition for a blob `b` of the provider `$1` that waits for a copy and is not claimed. Only blobs that an
/// available version references are copied.
fn is_pending() -> &'static str {
    sql!(
        "b.provider = $1 AND b.replica_key IS NULL AND b.sha256 IS NOT NULL AND b.delete_after IS NULL
         AND EXISTS (SELECT FROM versions AS v WHERE v.tenant_id = b.tenant_id AND v.blob_id = b.id
                     AND v.content_state = {available})
         AND NOT EXISTS (SELECT FROM blob_claims AS c WHERE c.tenant_id = b.tenant_id AND c.blob_id = b.id
                         AND c.work = '{work}' AND c.expire_time > app.now())",
        available = ContentState::Available,
        work = BlobWork::Replicate.name(),
    )
}

/// The condition for a blob `b` of the provider `$1` that a version `v` references as missing or damaged, whose copy is
/// with none of the providers `$2`, and that is not claimed.
fn is_repairable() -> &'static str {
    sql!(
        "v.state_reason IS NOT NULL AND b.provider = $1 AND b.replica_provider <> ALL ($2)
         AND b.sha256 IS NOT NULL AND b.delete_after IS NULL
         AND NOT EXISTS (SELECT FROM blob_claims AS c WHERE c.tenant_id = b.tenant_id AND c.blob_id = b.id
                         AND c.work = '{work}' AND c.expire_time > app.now())",
        work = BlobWork::Repair.name(),
    )
}

/// Returns blobs of the providers that wait for a copy, of the tenants after a tenant.
pub async fn list_pending(
    tx: &mut SystemTx,
    sources: &[&str],
    after: Option<TenantId>,
    limit: usize,
) -> Result<Vec<WaitingBlob>, DbError> {
    let mut tenants = Vec::new();
    // One query for each, so that blobs of other providers are not read.
    for source in sources {
        tenants.extend(list_pending_tenants(tx, source, after, limit).await?);
    }
    tenants.sort_unstable();
    tenants.dedup();
    tenants.truncate(limit);
    let mut rows = Vec::new();
    for source in sources {
        rows.extend(list_pending_of(tx, source, &tenants, limit).await?);
    }
    Ok(take_turns(rows, limit))
}

/// Returns the next tenants with pending blobs.
async fn list_pending_tenants(
    tx: &mut SystemTx,
    source: &str,
    after: Option<TenantId>,
    limit: usize,
) -> Result<Vec<TenantId>, DbError> {
    // A recursive skip scan.
    let text = sql!(
        "WITH RECURSIVE turn (tenant_id, n) AS (
             SELECT (SELECT b.tenant_id FROM blobs AS b WHERE {pending} AND b.tenant_id > $2
                     ORDER BY b.tenant_id, b.create_time LIMIT 1), 1
             UNION ALL
             SELECT (SELECT b.tenant_id FROM blobs AS b WHERE {pending} AND b.tenant_id > turn.tenant_id
                     ORDER BY b.tenant_id, b.create_time LIMIT 1), n + 1
             FROM turn WHERE turn.tenant_id IS NOT NULL AND n < $3
         )
         SELECT tenant_id FROM turn WHERE tenant_id IS NOT NULL ORDER BY n",
        pending = is_pending(),
    );
    let tenants: Vec<TenantRow> = statement("list tenants to replicate", text)
        .bind::<Text, _>(source.to_owned())
        .bind::<SqlUuid, _>(start_after(after))
        .bind::<BigInt, _>(as_limit(limit))
        .load(tx.connection()?)
        .await?;
    Ok(tenants.into_iter().map(|row| row.tenant_id).collect())
}

/// Returns the oldest pending blobs of each of the tenants.
async fn list_pending_of(
    tx: &mut SystemTx,
    source: &str,
    tenants: &[TenantId],
    limit: usize,
) -> Result<Vec<WaitingRow>, DbError> {
    // A lateral join for each tenant.
    let text = sql!(
        "SELECT waiting.* FROM unnest($2) AS t (tenant_id) CROSS JOIN LATERAL (
             SELECT b.tenant_id, b.id, b.provider, b.storage_key, b.create_time FROM blobs AS b
             WHERE {pending} AND b.tenant_id = t.tenant_id
             ORDER BY b.create_time LIMIT $3) AS waiting",
        pending = is_pending(),
    );
    statement("list blobs to replicate", text)
        .bind::<Text, _>(source.to_owned())
        .bind::<Array<SqlUuid>, _>(tenants.to_vec())
        .bind::<BigInt, _>(limit_of_tenant(tenants, limit))
        .load(tx.connection()?)
        .await
}

/// Returns blobs of a provider that have a copy, and that a version references as missing or damaged, of the tenants
/// after a tenant. `excluded` are providers whose copies cannot be read.
pub async fn list_repairable(
    tx: &mut SystemTx,
    provider: &str,
    excluded: &[&str],
    after: Option<TenantId>,
    limit: usize,
) -> Result<Vec<WaitingBlob>, DbError> {
    let excluded: Vec<String> = excluded.iter().map(|name| (*name).to_owned()).collect();
    let tenants = list_repairable_tenants(tx, provider, &excluded, after, limit).await?;
    let rows = list_repairable_of(tx, provider, excluded, &tenants, limit).await?;
    Ok(take_turns(rows, limit))
}

/// Returns the next tenants with blobs to repair.
async fn list_repairable_tenants(
    tx: &mut SystemTx,
    provider: &str,
    excluded: &[String],
    after: Option<TenantId>,
    limit: usize,
) -> Result<Vec<TenantId>, DbError> {
    // A recursive skip scan.
    let text = sql!(
        "WITH RECURSIVE turn (tenant_id, n) AS (
             SELECT (SELECT v.tenant_id FROM versions AS v
                     JOIN blobs AS b ON b.tenant_id = v.tenant_id AND b.id = v.blob_id
                     WHERE {repairable} AND v.tenant_id > $3 ORDER BY v.tenant_id, v.blob_id LIMIT 1), 1
             UNION ALL
             SELECT (SELECT v.tenant_id FROM versions AS v
                     JOIN blobs AS b ON b.tenant_id = v.tenant_id AND b.id = v.blob_id
                     WHERE {repairable} AND v.tenant_id > turn.tenant_id ORDER BY v.tenant_id, v.blob_id LIMIT 1),
                 n + 1
             FROM turn WHERE turn.tenant_id IS NOT NULL AND n < $4
         )
         SELECT tenant_id FROM turn WHERE tenant_id IS NOT NULL ORDER BY n",
        repairable = is_repairable(),
    );
    let tenants: Vec<TenantRow> = statement("list tenants to repair", text)
        .bind::<Text, _>(provider.to_owned())
        .bind::<Array<Text>, _>(excluded.to_vec())
        .bind::<SqlUuid, _>(start_after(after))
        .bind::<BigInt, _>(as_limit(limit))
        .load(tx.connection()?)
        .await?;
    Ok(tenants.into_iter().map(|row| row.tenant_id).collect())
}

/// Returns blobs to repair of each of the tenants.
async fn list_repairable_of(
    tx: &mut SystemTx,
    provider: &str,
    excluded: Vec<String>,
    tenants: &[TenantId],
    limit: usize,
) -> Result<Vec<WaitingRow>, DbError> {
    // A lateral join for each tenant. Several versions can reference a blob.
    let text = sql!(
        "SELECT waiting.* FROM unnest($3) AS t (tenant_id) CROSS JOIN LATERAL (
             SELECT DISTINCT ON (v.blob_id) b.tenant_id, b.id, b.provider, b.storage_key, b.create_time
             FROM versions AS v JOIN blobs AS b ON b.tenant_id = v.tenant_id AND b.id = v.blob_id
             WHERE {repairable} AND v.tenant_id = t.tenant_id
             ORDER BY v.blob_id LIMIT $4) AS waiting",
        repairable = is_repairable(),
    );
    statement("list blobs to repair", text)
        .bind::<Text, _>(provider.to_owned())
        .bind::<Array<Text>, _>(excluded)
        .bind::<Array<SqlUuid>, _>(tenants.to_vec())
        .bind::<BigInt, _>(limit_of_tenant(tenants, limit))
        .load(tx.connection()?)
        .await
}

fn start_after(after: Option<TenantId>) -> TenantId {
    after.unwrap_or(TenantId::from_uuid(Uuid::nil()))
}

fn as_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Returns the number of blobs of each tenant that fill a list, at most [`TENANT_BLOBS_MAX`].
fn limit_of_tenant(tenants: &[TenantId], limit: usize) -> i64 {
    as_limit(limit.div_ceil(tenants.len().max(1)).min(TENANT_BLOBS_MAX))
}

/// Orders blobs by turns of their tenants, and those of one tenant by age.
fn take_turns(mut rows: Vec<WaitingRow>, limit: usize) -> Vec<WaitingBlob> {
    rows.sort_by_key(|row| (row.create_time, row.id));
    let mut counts: HashMap<TenantId, usize> = HashMap::new();
    let mut numbered: Vec<(usize, WaitingRow)> = Vec::with_capacity(rows.len());
    for row in rows {
        let count = counts.entry(row.tenant_id).or_default();
        *count += 1;
        numbered.push((*count, row));
    }
    numbered.sort_by_key(|(number, row)| (*number, row.tenant_id));
    numbered.truncate(limit);
    let mut turn = start_after(None);
    let waiting = |(_, row): (usize, WaitingRow)| {
        turn = turn.max(row.tenant_id);
        let WaitingRow { tenant_id, id, provider, storage_key, .. } = row;
        WaitingBlob { tenant: tenant_id, blob: id, provider, key: storage_key, turn }
    };
    numbered.into_iter().map(waiting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    fn row(of_tenant: u128, age: u128) -> WaitingRow {
        let (tenant_id, id) = (tenant(of_tenant), BlobId::from_uuid(Uuid::from_u128(age)));
        WaitingRow {
            tenant_id,
            id,
            provider: "main".to_owned(),
            storage_key: ObjectKey::for_blob("", tenant_id, "report", chrono::NaiveDate::default(), id)
                .unwrap(),
            create_time: Timestamp::UNIX_EPOCH - chrono::Duration::seconds(i64::try_from(age).unwrap()),
        }
    }

    #[test]
    fn tenants_take_turns_and_old_blobs_are_first() {
        let rows = vec![row(2, 1), row(1, 2), row(1, 3), row(1, 4), row(3, 9)];
        let turns: Vec<(TenantId, u128, TenantId)> = take_turns(rows, 4)
            .into_iter()
            .map(|waiting| (waiting.tenant, waiting.blob.as_uuid().as_u128(), waiting.turn))
            .collect();
        let expected = [(1, 4, 1), (2, 1, 2), (3, 9, 3), (1, 3, 3)];
        assert_eq!(turns, expected.map(|(of, age, turn)| (tenant(of), age, tenant(turn))));
    }

    #[test]
    fn few_tenants_have_several_blobs_each() {
        let tenants: Vec<TenantId> = (0..20).map(tenant).collect();
        assert_eq!(limit_of_tenant(&tenants, 20), 1);
        assert_eq!(limit_of_tenant(&tenants[..7], 20), 3);
        assert_eq!(limit_of_tenant(&tenants[..1], 20), 4);
        assert_eq!(limit_of_tenant(&[], 20), 4);
    }
}
