//! Tenants as operators see them: birth by hand, states, and how far a deletion has come.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{
        BigInt, Binary, Bool, Double, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, statement::statement, tenants::TenantName};
use crate::domain::{
    caller::{TenantKind, TenantState},
    clock::Timestamp,
    digest::Digest,
    ids::{RequestId, TenantId},
    policy::Policy,
    tenant_record::{Deletion, DeletionPlan, TenantRecord},
};

const COLUMNS: &str = "id, kind, issuer, external_id, policy ->> 'name' AS preset, state, state_time, state_reason, \
    create_time, deletion_file_count, deletion_object_count, deletion_bytes, removed_row_count, removed_object_count, \
    removed_bytes, deletion_problem";

#[derive(QueryableByName)]
struct RecordRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SmallInt)]
    kind: i16,
    #[diesel(sql_type = Text)]
    issuer: String,
    #[diesel(sql_type = Text)]
    external_id: String,
    #[diesel(sql_type = Text)]
    preset: String,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    state_time: Option<DateTime<Utc>>,
    #[diesel(sql_type = Text)]
    state_reason: String,
    #[diesel(sql_type = Timestamptz)]
    create_time: DateTime<Utc>,
    #[diesel(sql_type = BigInt)]
    deletion_file_count: i64,
    #[diesel(sql_type = BigInt)]
    deletion_object_count: i64,
    #[diesel(sql_type = BigInt)]
    deletion_bytes: i64,
    #[diesel(sql_type = BigInt)]
    removed_row_count: i64,
    #[diesel(sql_type = BigInt)]
    removed_object_count: i64,
    #[diesel(sql_type = BigInt)]
    removed_bytes: i64,
    #[diesel(sql_type = Text)]
    deletion_problem: String,
}

impl RecordRow {
    fn read(self) -> Result<TenantRecord, DbError> {
        let bad = |what: &str| DbError::corrupt("read tenant record", what);
        Ok(TenantRecord {
            id: TenantId::from_uuid(self.id),
            kind: TenantKind::from_number(self.kind).ok_or_else(|| bad("kind"))?,
            issuer: self.issuer,
            external_id: self.external_id,
            preset: self.preset,
            state: TenantState::from_number(self.state).ok_or_else(|| bad("state"))?,
            state_time: self.state_time,
            state_reason: self.state_reason,
            create_time: self.create_time,
            deletion: Deletion {
                file_count: self.deletion_file_count,
                object_count: self.deletion_object_count,
                bytes: self.deletion_bytes,
                removed_row_count: self.removed_row_count,
                removed_object_count: self.removed_object_count,
                removed_bytes: self.removed_bytes,
                problem: self.deletion_problem,
            },
        })
    }
}

/// The tenant with this id.
pub async fn get(tx: &mut SystemTx, id: TenantId) -> Result<Option<TenantRecord>, DbError> {
    let row: Option<RecordRow> =
        statement("get tenant record", format!("SELECT {COLUMNS} FROM tenants WHERE id = {{}}"))
            .bind::<SqlUuid, _>(id.as_uuid())
            .first(tx.connection()?)
            .await?;
    row.map(RecordRow::read).transpose()
}

/// Tenants in the order of their ids, behind one.
pub async fn list(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    limit: i64,
) -> Result<Vec<TenantRecord>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM tenants WHERE id > {{}} ORDER BY id LIMIT {{}}");
    let rows: Vec<RecordRow> = statement("list tenants", sql)
        .bind::<SqlUuid, _>(after.map_or(Uuid::nil(), TenantId::as_uuid))
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(RecordRow::read).collect()
}

/// A tenant that an operator creates, with the request it came by.
pub struct Birth<'a> {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: &'a TenantName,
    /// What it is born with.
    pub policy: &'a Policy,
    /// The request id, and what it stands for.
    pub request: Option<(RequestId, Digest)>,
}

/// Creates a tenant unless one of this name is alive; returns whether it did.
pub async fn create(tx: &mut SystemTx, birth: &Birth<'_>) -> Result<bool, DbError> {
    let policy =
        serde_json::to_value(birth.policy).map_err(|error| DbError::corrupt("write policy", error))?;
    let created = statement(
        "create tenant by hand",
        "INSERT INTO tenants (id, kind, issuer, external_id, policy, create_time, create_request_id, create_payload_sha256)
         VALUES ({}, {}, {}, {}, {}, app.now(), {}, {}) ON CONFLICT DO NOTHING",
    )
    .bind::<SqlUuid, _>(birth.id.as_uuid())
    .bind::<SmallInt, _>(birth.name.kind.number())
    .bind::<Text, _>(birth.name.issuer.clone())
    .bind::<Text, _>(birth.name.external_id.clone())
    .bind::<Jsonb, _>(policy)
    .bind::<Nullable<SqlUuid>, _>(birth.request.map(|(id, _)| id.as_uuid()))
    .bind::<Nullable<Binary>, _>(birth.request.map(|(_, payload)| payload.as_bytes().to_vec()))
    .execute(tx.connection()?)
    .await?;
    Ok(created == 1)
}

#[derive(QueryableByName)]
struct BornRow {
    #[diesel(sql_type = Binary)]
    create_payload_sha256: Vec<u8>,
    #[diesel(embed)]
    record: RecordRow,
}

/// The tenant that a request created, and what that request said.
pub async fn created_by(
    tx: &mut SystemTx,
    request: RequestId,
) -> Result<Option<(TenantRecord, Digest)>, DbError> {
    let sql = format!("SELECT {COLUMNS}, create_payload_sha256 FROM tenants WHERE create_request_id = {{}}");
    let row: Option<BornRow> = statement("find tenant of request", sql)
        .bind::<SqlUuid, _>(request.as_uuid())
        .first(tx.connection()?)
        .await?;
    row.map(|row| {
        let payload = Digest::from_slice(&row.create_payload_sha256)
            .map_err(|_| DbError::corrupt("find tenant of request", "digest"))?;
        Ok((row.record.read()?, payload))
    })
    .transpose()
}

/// The record of the transaction's tenant.
pub async fn get_own(tx: &mut TenantTx) -> Result<TenantRecord, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM tenants WHERE id = {{}}");
    let tenant = tx.tenant().as_uuid();
    let row: RecordRow =
        statement("read own tenant record", sql).bind::<SqlUuid, _>(tenant).one(tx.connection()?).await?;
    row.read()
}

/// The record of the transaction's tenant, locked until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx) -> Result<TenantRecord, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM tenants WHERE id = {{}} FOR NO KEY UPDATE");
    let tenant = tx.tenant().as_uuid();
    let row: RecordRow =
        statement("lock tenant record", sql).bind::<SqlUuid, _>(tenant).one(tx.connection()?).await?;
    row.read()
}

/// Moves a tenant that was read with [`get_for_update`] into a state.
pub async fn set_state(tx: &mut TenantTx, state: TenantState, reason: &str) -> Result<TenantRecord, DbError> {
    let sql = format!(
        "UPDATE tenants SET state = {{}}, state_time = app.now(), state_reason = {{}} WHERE id = {{}} RETURNING {COLUMNS}"
    );
    let row: RecordRow = statement("set state of tenant", sql)
        .bind::<SmallInt, _>(state.number())
        .bind::<Text, _>(reason.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .one(tx.connection()?)
        .await?;
    row.read()
}

/// Begins a deletion, and notes what there is to remove.
pub async fn begin_deletion(tx: &mut TenantTx, plan: &DeletionPlan) -> Result<TenantRecord, DbError> {
    let sql = format!(
        "UPDATE tenants SET state = {{}}, state_time = app.now(), state_reason = '', deletion_file_count = {{}},
            deletion_object_count = {{}}, deletion_bytes = {{}}
         WHERE id = {{}} RETURNING {COLUMNS}"
    );
    let row: RecordRow = statement("begin deletion of tenant", sql)
        .bind::<SmallInt, _>(TenantState::Deleting.number())
        .bind::<BigInt, _>(plan.file_count)
        .bind::<BigInt, _>(plan.object_count)
        .bind::<BigInt, _>(plan.bytes)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .one(tx.connection()?)
        .await?;
    row.read()
}

#[derive(QueryableByName)]
struct PlanRow {
    #[diesel(sql_type = BigInt)]
    file_count: i64,
    #[diesel(sql_type = BigInt)]
    object_count: i64,
    #[diesel(sql_type = BigInt)]
    bytes: i64,
    #[diesel(sql_type = BigInt)]
    retained_file_count: i64,
    #[diesel(sql_type = BigInt)]
    held_file_count: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    retained_until: Option<Timestamp>,
}

/// What a deletion of the transaction's tenant would remove, and what stands in its way. Reads all of its files and blobs:
/// for operators. Whatever else may hold a file belongs into the second half.
pub async fn plan_deletion(tx: &mut TenantTx) -> Result<DeletionPlan, DbError> {
    let tenant = tx.tenant().as_uuid();
    let row: PlanRow = statement(
        "plan deletion of tenant",
        "SELECT f.file_count, f.retained_file_count, f.held_file_count, f.retained_until, b.object_count, b.bytes
         FROM (SELECT count(*) AS file_count,
                      count(*) FILTER (WHERE retain_until_time > app.now() OR hold_time IS NOT NULL) AS retained_file_count,
                      count(*) FILTER (WHERE hold_time IS NOT NULL) AS held_file_count,
                      max(retain_until_time) FILTER (WHERE retain_until_time > app.now()) AS retained_until
               FROM files WHERE tenant_id = {}) AS f,
              (SELECT count(*) AS object_count, coalesce(sum(size_bytes), 0)::bigint AS bytes
               FROM blobs WHERE tenant_id = {}) AS b",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(tenant)
    .one(tx.connection()?)
    .await?;
    Ok(DeletionPlan {
        file_count: row.file_count,
        object_count: row.object_count,
        bytes: row.bytes,
        retained_file_count: row.retained_file_count,
        held_file_count: row.held_file_count,
        retained_until: row.retained_until,
    })
}

#[derive(QueryableByName)]
struct Keeps {
    #[diesel(sql_type = Bool)]
    keeps: bool,
}

/// Whether any file of the transaction's tenant must be kept. Reads a row or two, however many there are.
pub async fn keeps_files(tx: &mut TenantTx) -> Result<bool, DbError> {
    let tenant = tx.tenant().as_uuid();
    let row: Keeps = statement(
        "look for files to keep",
        "SELECT EXISTS (SELECT FROM files WHERE tenant_id = {} AND hold_time IS NOT NULL)
             OR EXISTS (SELECT FROM files WHERE tenant_id = {} AND retain_until_time > app.now()) AS keeps",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(tenant)
    .one(tx.connection()?)
    .await?;
    Ok(row.keeps)
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// Tenants whose deletion was asked for longer ago than every replica remembers them, behind one, in the order of ids.
pub async fn list_deleting(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    (rest_seconds, limit): (u32, i64),
) -> Result<Vec<TenantId>, DbError> {
    let rows: Vec<IdRow> = statement(
        "find tenants to delete",
        "SELECT id FROM tenants WHERE state = 3 AND id > {} AND state_time <= app.now() - make_interval(secs => {})
         ORDER BY id LIMIT {}",
    )
    .bind::<SqlUuid, _>(after.map_or(Uuid::nil(), TenantId::as_uuid))
    .bind::<Double, _>(f64::from(rest_seconds))
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    Ok(rows.into_iter().map(|row| TenantId::from_uuid(row.id)).collect())
}

#[derive(QueryableByName)]
struct Erased {
    #[diesel(sql_type = BigInt)]
    erased: i64,
}

/// Erases at most so many rows of one table of a tenant that is being deleted, and counts them in its record; answers how
/// many. None means that only its bytes, and what names them, are left.
pub async fn erase_rows(tx: &mut SystemTx, id: TenantId, row_max: i32) -> Result<i64, DbError> {
    let row: Erased = statement("erase rows of tenant", "SELECT app.erase_tenant_rows({}, {}) AS erased")
        .bind::<SqlUuid, _>(id.as_uuid())
        .bind::<Integer, _>(row_max)
        .one(tx.connection()?)
        .await?;
    if row.erased > 0 {
        statement(
            "count erased rows",
            "UPDATE tenants SET removed_row_count = removed_row_count + {} WHERE id = {}",
        )
        .bind::<BigInt, _>(row.erased)
        .bind::<SqlUuid, _>(id.as_uuid())
        .execute(tx.connection()?)
        .await?;
    }
    Ok(row.erased)
}

/// Counts objects that are gone in the record of their tenant.
pub async fn count_removed(tx: &mut SystemTx, id: TenantId, objects: i64, bytes: i64) -> Result<(), DbError> {
    statement(
        "count removed objects",
        "UPDATE tenants SET removed_object_count = removed_object_count + {}, removed_bytes = removed_bytes + {}
         WHERE id = {}",
    )
    .bind::<BigInt, _>(objects)
    .bind::<BigInt, _>(bytes)
    .bind::<SqlUuid, _>(id.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Notes what keeps a deletion from going on; empty when nothing does.
pub async fn set_problem(tx: &mut SystemTx, id: TenantId, problem: &str) -> Result<(), DbError> {
    statement(
        "note problem of deletion",
        "UPDATE tenants SET deletion_problem = {} WHERE id = {} AND deletion_problem <> {}",
    )
    .bind::<Text, _>(problem.to_owned())
    .bind::<SqlUuid, _>(id.as_uuid())
    .bind::<Text, _>(problem.to_owned())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Ends a deletion; answers the record, or nothing when another replica was faster.
pub async fn end_deletion(tx: &mut SystemTx, id: TenantId) -> Result<Option<TenantRecord>, DbError> {
    let sql = format!(
        "UPDATE tenants SET state = 4, state_time = app.now() WHERE id = {{}} AND state = 3 RETURNING {COLUMNS}"
    );
    let row: Option<RecordRow> = statement("end deletion of tenant", sql)
        .bind::<SqlUuid, _>(id.as_uuid())
        .first(tx.connection()?)
        .await?;
    row.map(RecordRow::read).transpose()
}
