//! Tenant records, for operators: explicit creation, states, and the progress of deletions.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{
        BigInt, Binary, Bool, Double, Integer, Jsonb, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, idempotency_keys::RequestKey, sql::statement, tenants::TenantName};
use crate::domain::{
    caller::{TenantKind, TenantState},
    clock::Timestamp,
    digest::Digest,
    ids::{RequestId, TenantId},
    policy::Policy,
    tenant_record::{DeletionPlan, DeletionProgress, TenantRecord},
};

const COLUMNS: &str = "id, kind, issuer, external_id, policy ->> 'name' AS preset, state, state_time, state_reason, \
    create_time, deletion_file_count, deletion_object_count, deletion_bytes, erased_row_count, erased_object_count, \
    erased_bytes, deletion_problem";

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
    erased_row_count: i64,
    #[diesel(sql_type = BigInt)]
    erased_object_count: i64,
    #[diesel(sql_type = BigInt)]
    erased_bytes: i64,
    #[diesel(sql_type = Text)]
    deletion_problem: String,
}

impl RecordRow {
    fn into_record(self) -> Result<TenantRecord, DbError> {
        let corrupt = |what: &str| DbError::corrupt("read tenant record", what);
        Ok(TenantRecord {
            id: TenantId::from_uuid(self.id),
            kind: TenantKind::from_number(self.kind).ok_or_else(|| corrupt("kind"))?,
            issuer: self.issuer,
            external_id: self.external_id,
            preset: self.preset,
            state: TenantState::from_number(self.state).ok_or_else(|| corrupt("state"))?,
            state_time: self.state_time,
            state_reason: self.state_reason,
            create_time: self.create_time,
            deletion: DeletionProgress {
                file_count: self.deletion_file_count,
                object_count: self.deletion_object_count,
                bytes: self.deletion_bytes,
                erased_row_count: self.erased_row_count,
                erased_object_count: self.erased_object_count,
                erased_bytes: self.erased_bytes,
                problem: self.deletion_problem,
            },
        })
    }
}

/// Returns the tenant with this id.
pub async fn get(tx: &mut SystemTx, id: TenantId) -> Result<Option<TenantRecord>, DbError> {
    let row: Option<RecordRow> =
        statement("get tenant record", format!("SELECT {COLUMNS} FROM tenants WHERE id = $1"))
            .bind::<SqlUuid, _>(id.as_uuid())
            .first(tx.connection()?)
            .await?;
    row.map(RecordRow::into_record).transpose()
}

/// Returns tenants after an id, ordered by id.
pub async fn list(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    limit: i64,
) -> Result<Vec<TenantRecord>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM tenants WHERE id > $1 ORDER BY id LIMIT $2");
    let rows: Vec<RecordRow> = statement("list tenants", sql)
        .bind::<SqlUuid, _>(after.map_or(Uuid::nil(), TenantId::as_uuid))
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(RecordRow::into_record).collect()
}

/// The creation of a tenant by an operator.
pub struct TenantCreation<'a> {
    pub id: TenantId,
    pub name: &'a TenantName,
    pub policy: &'a Policy,
    /// The id and the payload of the request, if it has an id.
    pub request: Option<RequestKey>,
}

/// Creates a tenant, unless a tenant with this name exists that is not deleted. Returns whether it was
/// created.
pub async fn create(tx: &mut SystemTx, creation: &TenantCreation<'_>) -> Result<bool, DbError> {
    let policy =
        serde_json::to_value(creation.policy).map_err(|error| DbError::corrupt("write policy", error))?;
    let created = statement(
        "create tenant by operator",
        "INSERT INTO tenants (id, kind, issuer, external_id, policy, create_time, create_request_id, create_payload_sha256)
         VALUES ($1, $2, $3, $4, $5, app.now(), $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind::<SqlUuid, _>(creation.id.as_uuid())
    .bind::<SmallInt, _>(creation.name.kind.number())
    .bind::<Text, _>(creation.name.issuer.clone())
    .bind::<Text, _>(creation.name.external_id.clone())
    .bind::<Jsonb, _>(policy)
    .bind::<Nullable<SqlUuid>, _>(creation.request.map(|request| request.id.as_uuid()))
    .bind::<Nullable<Binary>, _>(creation.request.map(|request| request.payload.as_bytes().to_vec()))
    .execute(tx.connection()?)
    .await?;
    Ok(created == 1)
}

#[derive(QueryableByName)]
struct CreatedRow {
    #[diesel(sql_type = Binary)]
    create_payload_sha256: Vec<u8>,
    #[diesel(embed)]
    record: RecordRow,
}

/// Returns the tenant that a request created, and the digest of that request's payload.
pub async fn find_by_create_request(
    tx: &mut SystemTx,
    request: RequestId,
) -> Result<Option<(TenantRecord, Digest)>, DbError> {
    let sql = format!("SELECT {COLUMNS}, create_payload_sha256 FROM tenants WHERE create_request_id = $1");
    let row: Option<CreatedRow> = statement("find tenant by request", sql)
        .bind::<SqlUuid, _>(request.as_uuid())
        .first(tx.connection()?)
        .await?;
    row.map(|row| {
        let payload = Digest::from_slice(&row.create_payload_sha256)
            .map_err(|_| DbError::corrupt("find tenant by request", "digest"))?;
        Ok((row.record.into_record()?, payload))
    })
    .transpose()
}

/// Returns the record of the transaction's tenant.
pub async fn get_own(tx: &mut TenantTx) -> Result<TenantRecord, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM tenants WHERE id = $1");
    let tenant = tx.tenant().as_uuid();
    let row: RecordRow =
        statement("read own tenant record", sql).bind::<SqlUuid, _>(tenant).one(tx.connection()?).await?;
    row.into_record()
}

/// Returns the record of the transaction's tenant, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx) -> Result<TenantRecord, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM tenants WHERE id = $1 FOR NO KEY UPDATE");
    let tenant = tx.tenant().as_uuid();
    let row: RecordRow =
        statement("lock tenant record", sql).bind::<SqlUuid, _>(tenant).one(tx.connection()?).await?;
    row.into_record()
}

/// Sets the state of a tenant that was read with [`get_for_update`].
pub async fn set_state(tx: &mut TenantTx, state: TenantState, reason: &str) -> Result<TenantRecord, DbError> {
    let sql = format!(
        "UPDATE tenants SET state = $1, state_time = app.now(), state_reason = $2 WHERE id = $3 RETURNING {COLUMNS}"
    );
    let row: RecordRow = statement("set state of tenant", sql)
        .bind::<SmallInt, _>(state.number())
        .bind::<Text, _>(reason.to_owned())
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_record()
}

/// Starts the deletion of the transaction's tenant, and records the amount of data to delete.
pub async fn begin_deletion(tx: &mut TenantTx, plan: &DeletionPlan) -> Result<TenantRecord, DbError> {
    let sql = format!(
        "UPDATE tenants SET state = $1, state_time = app.now(), state_reason = '', deletion_file_count = $2,
            deletion_object_count = $3, deletion_bytes = $4
         WHERE id = $5 RETURNING {COLUMNS}"
    );
    let row: RecordRow = statement("start deletion of tenant", sql)
        .bind::<SmallInt, _>(TenantState::Deleting.number())
        .bind::<BigInt, _>(plan.file_count)
        .bind::<BigInt, _>(plan.object_count)
        .bind::<BigInt, _>(plan.bytes)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_record()
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

/// Computes the extent of a deletion of the transaction's tenant, and the number of files that prevent it.
///
/// Reads all files and blobs of the tenant: for operators. Any other rule that protects files must be added
/// to the counts of retained files.
pub async fn plan_deletion(tx: &mut TenantTx) -> Result<DeletionPlan, DbError> {
    let tenant = tx.tenant().as_uuid();
    let row: PlanRow = statement(
        "plan deletion of tenant",
        "SELECT f.file_count, f.retained_file_count, f.held_file_count, f.retained_until, b.object_count, b.bytes
         FROM (SELECT count(*) AS file_count,
                      count(*) FILTER (WHERE retain_until_time > app.now() OR hold_time IS NOT NULL) AS retained_file_count,
                      count(*) FILTER (WHERE hold_time IS NOT NULL) AS held_file_count,
                      max(retain_until_time) FILTER (WHERE retain_until_time > app.now()) AS retained_until
               FROM files WHERE tenant_id = $1) AS f,
              (SELECT count(*) AS object_count, coalesce(sum(size_bytes), 0)::bigint AS bytes
               FROM blobs WHERE tenant_id = $2) AS b",
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
struct ExistsRow {
    #[diesel(sql_type = Bool)]
    exists: bool,
}

/// Returns whether the transaction's tenant has files under a legal hold or in retention. Reads at most two
/// rows.
pub async fn has_protected_files(tx: &mut TenantTx) -> Result<bool, DbError> {
    let tenant = tx.tenant().as_uuid();
    let row: ExistsRow = statement(
        "find protected files",
        "SELECT EXISTS (SELECT FROM files WHERE tenant_id = $1 AND hold_time IS NOT NULL)
             OR EXISTS (SELECT FROM files WHERE tenant_id = $2 AND retain_until_time > app.now()) AS exists",
    )
    .bind::<SqlUuid, _>(tenant)
    .bind::<SqlUuid, _>(tenant)
    .one(tx.connection()?)
    .await?;
    Ok(row.exists)
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// Returns tenants after an id, ordered by id, whose deletion was started more than `rest_seconds` ago:
/// longer than any replica caches them.
pub async fn list_deleting(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    rest_seconds: u32,
    limit: i64,
) -> Result<Vec<TenantId>, DbError> {
    let rows: Vec<IdRow> = statement(
        "list tenants to delete",
        "SELECT id FROM tenants WHERE state = 3 AND id > $1 AND state_time <= app.now() - make_interval(secs => $2)
         ORDER BY id LIMIT $3",
    )
    .bind::<SqlUuid, _>(after.map_or(Uuid::nil(), TenantId::as_uuid))
    .bind::<Double, _>(f64::from(rest_seconds))
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    Ok(rows.into_iter().map(|row| TenantId::from_uuid(row.id)).collect())
}

#[derive(QueryableByName)]
struct ErasedRow {
    #[diesel(sql_type = BigInt)]
    erased: i64,
}

/// Erases up to `row_max` rows of one table of a tenant that is being deleted, and adds them to its record.
/// Returns their number.
///
/// 0 means that only objects, and the rows that reference them, are left.
pub async fn erase_rows(tx: &mut SystemTx, id: TenantId, row_max: i32) -> Result<i64, DbError> {
    let row: ErasedRow = statement("erase rows of tenant", "SELECT app.erase_tenant_rows($1, $2) AS erased")
        .bind::<SqlUuid, _>(id.as_uuid())
        .bind::<Integer, _>(row_max)
        .one(tx.connection()?)
        .await?;
    if row.erased > 0 {
        statement(
            "add erased rows",
            "UPDATE tenants SET erased_row_count = erased_row_count + $1 WHERE id = $2",
        )
        .bind::<BigInt, _>(row.erased)
        .bind::<SqlUuid, _>(id.as_uuid())
        .execute(tx.connection()?)
        .await?;
    }
    Ok(row.erased)
}

/// Adds deleted objects to the record of their tenant.
pub async fn add_erased_objects(
    tx: &mut SystemTx,
    id: TenantId,
    objects: i64,
    bytes: i64,
) -> Result<(), DbError> {
    statement(
        "add erased objects",
        "UPDATE tenants SET erased_object_count = erased_object_count + $1, erased_bytes = erased_bytes + $2
         WHERE id = $3",
    )
    .bind::<BigInt, _>(objects)
    .bind::<BigInt, _>(bytes)
    .bind::<SqlUuid, _>(id.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Records the problem that blocks a deletion; empty if there is none.
pub async fn set_deletion_problem(tx: &mut SystemTx, id: TenantId, problem: &str) -> Result<(), DbError> {
    statement(
        "set deletion problem",
        "UPDATE tenants SET deletion_problem = $1 WHERE id = $2 AND deletion_problem <> $3",
    )
    .bind::<Text, _>(problem.to_owned())
    .bind::<SqlUuid, _>(id.as_uuid())
    .bind::<Text, _>(problem.to_owned())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Ends a deletion. Returns the record, or `None` if another replica has ended it already.
pub async fn end_deletion(tx: &mut SystemTx, id: TenantId) -> Result<Option<TenantRecord>, DbError> {
    let sql = format!(
        "UPDATE tenants SET state = 4, state_time = app.now() WHERE id = $1 AND state = 3 RETURNING {COLUMNS}"
    );
    let row: Option<RecordRow> = statement("end deletion of tenant", sql)
        .bind::<SqlUuid, _>(id.as_uuid())
        .first(tx.connection()?)
        .await?;
    row.map(RecordRow::into_record).transpose()
}
