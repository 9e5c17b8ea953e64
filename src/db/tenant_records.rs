//! Tenant records, for operators: explicit creation, states, and the progress of deletions.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, NullableExpressionMethods as _,
    PgAnyJsonExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    dsl::exists,
    sql_types::{BigInt, Nullable, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    idempotency_keys::RequestKey,
    schema::{files, tenants},
    sql::{OfTenant as _, erase_tenant_rows, literal, now, now_minus, query, seconds, statement},
    tenants::TenantName,
};
use crate::domain::{
    caller::{TenantKind, TenantState},
    clock::Timestamp,
    digest::Digest,
    ids::{RequestId, TenantId},
    policy::Policy,
    rate_limits::RequestLimits,
    tenant_record::{DeletionPlan, DeletionProgress, TenantRecord},
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = tenants, check_for_backend(diesel::pg::Pg))]
struct RecordRow {
    id: TenantId,
    kind: TenantKind,
    issuer: String,
    external_id: String,
    #[diesel(select_expression = tenants::policy.retrieve_as_text("name"))]
    preset: String,
    state: TenantState,
    state_time: Option<Timestamp>,
    state_reason: String,
    create_time: Timestamp,
    deletion_file_count: i64,
    deletion_object_count: i64,
    deletion_bytes: i64,
    erased_row_count: i64,
    erased_object_count: i64,
    erased_bytes: i64,
    deletion_problem: String,
    is_read_only: bool,
    rate_limits: RequestLimits,
}

impl From<RecordRow> for TenantRecord {
    fn from(row: RecordRow) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            issuer: row.issuer,
            external_id: row.external_id,
            preset: row.preset,
            state: row.state,
            state_time: row.state_time,
            state_reason: row.state_reason,
            create_time: row.create_time,
            deletion: DeletionProgress {
                file_count: row.deletion_file_count,
                object_count: row.deletion_object_count,
                bytes: row.deletion_bytes,
                erased_row_count: row.erased_row_count,
                erased_object_count: row.erased_object_count,
                erased_bytes: row.erased_bytes,
                problem: row.deletion_problem,
            },
            is_read_only: row.is_read_only,
            rate_limits: row.rate_limits,
        }
    }
}

/// Returns the tenant with this id, unless it is provisional.
pub async fn get(tx: &mut SystemTx, id: TenantId) -> Result<Option<TenantRecord>, DbError> {
    let existing = tenants::table.find(id).filter(tenants::provisional_time.is_null());
    let record = existing.select(RecordRow::as_select());
    let row: Option<RecordRow> = query("get tenant record", record).first(tx.connection()?).await?;
    Ok(row.map(TenantRecord::from))
}

/// Returns tenants after an id, ordered by id, without provisional ones.
pub async fn list(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    limit: i64,
) -> Result<Vec<TenantRecord>, DbError> {
    let page = tenants::table
        .filter(tenants::id.gt(after.unwrap_or(TenantId::from_uuid(Uuid::nil()))))
        .filter(tenants::provisional_time.is_null())
        .order(tenants::id)
        .limit(limit)
        .select(RecordRow::as_select());
    let rows: Vec<RecordRow> = query("list tenants", page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(TenantRecord::from).collect())
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
    let insert = diesel::insert_into(tenants::table)
        .values((
            tenants::id.eq(creation.id),
            tenants::kind.eq(creation.name.kind),
            tenants::issuer.eq(&creation.name.issuer),
            tenants::external_id.eq(&creation.name.external_id),
            tenants::policy.eq(creation.policy),
            tenants::create_time.eq(now()),
            tenants::create_request_id.eq(creation.request.map(|request| request.id)),
            tenants::create_payload_sha256.eq(creation.request.map(|request| request.payload)),
        ))
        .on_conflict_do_nothing();
    Ok(query("create tenant by operator", insert).execute(tx.connection()?).await? == 1)
}

/// Returns the tenant that a request created, and the digest of that request's payload.
pub async fn find_by_create_request(
    tx: &mut SystemTx,
    request: RequestId,
) -> Result<Option<(TenantRecord, Digest)>, DbError> {
    let created = tenants::table
        .filter(tenants::create_request_id.eq(request))
        .select((RecordRow::as_select(), tenants::create_payload_sha256.assume_not_null()));
    let row: Option<(RecordRow, Digest)> =
        query("find tenant by request", created).first(tx.connection()?).await?;
    Ok(row.map(|(record, payload)| (record.into(), payload)))
}

/// Returns the record of the transaction's tenant.
pub async fn get_own(tx: &mut TenantTx) -> Result<TenantRecord, DbError> {
    let record = tenants::table.find(tx.tenant()).select(RecordRow::as_select());
    let row: RecordRow = query("read own tenant record", record).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Returns the record of the transaction's tenant, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx) -> Result<TenantRecord, DbError> {
    let record = tenants::table.find(tx.tenant()).select(RecordRow::as_select()).for_no_key_update();
    let row: RecordRow = query("lock tenant record", record).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Returns the record of the transaction's tenant, unless it is provisional, and locks it until the transaction ends.
pub async fn find_for_update(tx: &mut TenantTx) -> Result<Option<TenantRecord>, DbError> {
    let existing = tenants::table.find(tx.tenant()).filter(tenants::provisional_time.is_null());
    let record = existing.select(RecordRow::as_select()).for_no_key_update();
    let row: Option<RecordRow> = query("lock existing tenant", record).first(tx.connection()?).await?;
    Ok(row.map(TenantRecord::from))
}

/// Sets the state of a tenant that was read with [`find_for_update`].
pub async fn set_state(tx: &mut TenantTx, state: TenantState, reason: &str) -> Result<TenantRecord, DbError> {
    let update = diesel::update(tenants::table.find(tx.tenant()))
        .set((
            tenants::state.eq(state),
            tenants::state_time.eq(now().nullable()),
            tenants::state_reason.eq(reason),
        ))
        .returning(RecordRow::as_returning());
    let row: RecordRow = query("set state of tenant", update).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Sets whether the callers of the transaction's tenant can change anything.
pub async fn set_read_only(tx: &mut TenantTx, is_read_only: bool) -> Result<(), DbError> {
    let update = diesel::update(tenants::table.find(tx.tenant())).set(tenants::is_read_only.eq(is_read_only));
    query("set read-only tenant", update).execute(tx.connection()?).await.map(|_| ())
}

/// Sets the own limits of requests of the transaction's tenant.
pub async fn set_rate_limits(tx: &mut TenantTx, limits: RequestLimits) -> Result<(), DbError> {
    let update = diesel::update(tenants::table.find(tx.tenant())).set(tenants::rate_limits.eq(limits));
    query("set rate limits of tenant", update).execute(tx.connection()?).await.map(|_| ())
}

/// Starts the deletion of the transaction's tenant, and records the amount of data to delete.
pub async fn begin_deletion(tx: &mut TenantTx, plan: &DeletionPlan) -> Result<TenantRecord, DbError> {
    let update = diesel::update(tenants::table.find(tx.tenant()))
        .set((
            tenants::state.eq(TenantState::Deleting),
            tenants::state_time.eq(now().nullable()),
            tenants::state_reason.eq(""),
            tenants::deletion_file_count.eq(plan.file_count),
            tenants::deletion_object_count.eq(plan.object_count),
            tenants::deletion_bytes.eq(plan.bytes),
        ))
        .returning(RecordRow::as_returning());
    let row: RecordRow = query("start deletion of tenant", update).one(tx.connection()?).await?;
    Ok(row.into())
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
    // Aggregates of two tables in one round trip.
    let row: PlanRow = statement(
        "plan deletion of tenant",
        "SELECT f.file_count, f.retained_file_count, f.held_file_count, f.retained_until, b.object_count, b.bytes
         FROM (SELECT count(*) AS file_count,
                      count(*) FILTER (WHERE retain_until_time > app.now() OR hold_time IS NOT NULL) AS retained_file_count,
                      count(*) FILTER (WHERE hold_time IS NOT NULL) AS held_file_count,
                      max(retain_until_time) FILTER (WHERE retain_until_time > app.now()) AS retained_until
               FROM files WHERE tenant_id = $1) AS f,
              (SELECT count(*) AS object_count, coalesce(sum(size_bytes), 0)::bigint AS bytes
               FROM blobs WHERE tenant_id = $1) AS b",
    )
    .bind::<SqlUuid, _>(tx.tenant())
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

/// Returns whether the transaction's tenant has files under a legal hold or in retention. Reads at most two
/// rows.
pub async fn has_protected_files(tx: &mut TenantTx) -> Result<bool, DbError> {
    let held = files::table.of(tx.tenant()).filter(files::hold_time.is_not_null());
    let retained = files::table.of(tx.tenant()).filter(files::retain_until_time.gt(now().nullable()));
    let is_protected = diesel::select(exists(held).or(exists(retained)));
    query("find protected files", is_protected).one(tx.connection()?).await
}

/// Returns tenants after an id, ordered by id, whose deletion was started more than `rest_seconds` ago:
/// longer than any process caches them.
pub async fn list_deleting(
    tx: &mut SystemTx,
    after: Option<TenantId>,
    rest_seconds: u32,
    limit: i64,
) -> Result<Vec<TenantId>, DbError> {
    let page = tenants::table
        .filter(tenants::state.eq(literal!(TenantState::Deleting)))
        .filter(tenants::id.gt(after.unwrap_or(TenantId::from_uuid(Uuid::nil()))))
        .filter(tenants::state_time.le(now_minus(seconds(rest_seconds)).nullable()))
        .order(tenants::id)
        .limit(limit)
        .select(tenants::id);
    query("list tenants to delete", page).load(tx.connection()?).await
}

/// Erases up to `row_max` rows of one table of a tenant that is being deleted, and adds them to its record.
/// Returns their number.
///
/// 0 means that only objects, and the rows that reference them, are left.
pub async fn erase_rows(tx: &mut SystemTx, id: TenantId, row_max: i32) -> Result<i64, DbError> {
    let erase = diesel::select(erase_tenant_rows(id, row_max));
    let erased: i64 = query("erase rows of tenant", erase).one(tx.connection()?).await?;
    if erased > 0 {
        let update = diesel::update(tenants::table.find(id))
            .set(tenants::erased_row_count.eq(tenants::erased_row_count + erased));
        query("add erased rows", update).execute(tx.connection()?).await?;
    }
    Ok(erased)
}

/// Adds deleted objects to the record of their tenant.
pub async fn add_erased_objects(
    tx: &mut SystemTx,
    id: TenantId,
    objects: i64,
    bytes: i64,
) -> Result<(), DbError> {
    let update = diesel::update(tenants::table.find(id)).set((
        tenants::erased_object_count.eq(tenants::erased_object_count + objects),
        tenants::erased_bytes.eq(tenants::erased_bytes + bytes),
    ));
    query("add erased objects", update).execute(tx.connection()?).await.map(|_| ())
}

/// Records the problem that blocks a deletion; empty if there is none.
pub async fn set_deletion_problem(tx: &mut SystemTx, id: TenantId, problem: &str) -> Result<(), DbError> {
    let update = diesel::update(tenants::table.find(id).filter(tenants::deletion_problem.ne(problem)))
        .set(tenants::deletion_problem.eq(problem));
    query("set deletion problem", update).execute(tx.connection()?).await.map(|_| ())
}

/// Ends a deletion. Returns the record, or `None` if another process has ended it already.
pub async fn end_deletion(tx: &mut SystemTx, id: TenantId) -> Result<Option<TenantRecord>, DbError> {
    let deleting = tenants::table.find(id).filter(tenants::state.eq(TenantState::Deleting));
    let update = diesel::update(deleting)
        .set((tenants::state.eq(TenantState::Deleted), tenants::state_time.eq(now().nullable())))
        .returning(RecordRow::as_returning());
    let row: Option<RecordRow> = query("end deletion of tenant", update).first(tx.connection()?).await?;
    Ok(row.map(TenantRecord::from))
}
