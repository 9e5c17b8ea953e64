//! Quotas, one row per tenant. Changes are single conditional UPDATEs; the CHECK constraints of the table are
//! a second guard.

use diesel::{
    AsChangeset, BoolExpressionMethods as _, ExpressionMethods as _, Insertable, IntoSql as _, QueryDsl as _,
    Queryable, QueryableByName, Selectable, SelectableHelper as _,
    sql_types::{BigInt, Uuid as SqlUuid},
};

use super::{
    DbError, SystemTx, TenantTx,
    schema::quotas,
    sql::{OfTenant as _, now, query, statement},
    user_quotas,
};

pub use super::quota_delta::{QuotaDelta, UserDelta};
use crate::domain::{
    clock::Timestamp,
    ids::TenantId,
    policy::{FileSizeLimits, InitialQuota},
    quota::Quota,
    usage_recalculation::QuotaDrift,
    user_quota::UserQuota,
};

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = quotas, check_for_backend(diesel::pg::Pg))]
pub(super) struct QuotaRow {
    tenant_id: TenantId,
    used_bytes: i64,
    reserved_bytes: i64,
    file_count: i64,
    reserved_file_count: i64,
    pending_deletion_bytes: i64,
    #[diesel(embed)]
    limits: Limits,
    revision: i64,
    update_time: Timestamp,
    last_warning_sent_time: Option<Timestamp>,
}

/// The columns that callers and operators set.
#[derive(AsChangeset, Insertable, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = quotas, check_for_backend(diesel::pg::Pg))]
pub(super) struct Limits {
    limit_bytes: i64,
    file_count_max: i64,
    warning_percent: i16,
    critical_percent: i16,
    image_bytes_max: i64,
    video_bytes_max: i64,
    audio_bytes_max: i64,
    document_bytes_max: i64,
    other_bytes_max: i64,
    ceiling_bytes: i64,
    ceiling_file_count: i64,
    pending_deletion_multiple: i64,
    alert_emails: Vec<String>,
}

impl From<&Quota> for Limits {
    fn from(quota: &Quota) -> Self {
        let sizes = &quota.file_size_max_bytes;
        Self {
            limit_bytes: quota.limit_bytes,
            file_count_max: quota.file_count_max,
            warning_percent: quota.warning_percent,
            critical_percent: quota.critical_percent,
            image_bytes_max: sizes.image,
            video_bytes_max: sizes.video,
            audio_bytes_max: sizes.audio,
            document_bytes_max: sizes.document,
            other_bytes_max: sizes.other,
            ceiling_bytes: quota.ceiling_bytes,
            ceiling_file_count: quota.ceiling_file_count,
            pending_deletion_multiple: quota.pending_deletion_multiple,
            alert_emails: quota.alert_emails.clone(),
        }
    }
}

/// The limits of a new tenant also become its initial ceilings, which only the operator can change.
impl From<&InitialQuota> for Limits {
    fn from(initial: &InitialQuota) -> Self {
        let sizes = &initial.file_size_max_bytes;
        Self {
            limit_bytes: initial.limit_bytes,
            file_count_max: initial.file_count_max,
            warning_percent: initial.warning_percent,
            critical_percent: initial.critical_percent,
            image_bytes_max: sizes.image,
            video_bytes_max: sizes.video,
            audio_bytes_max: sizes.audio,
            document_bytes_max: sizes.document,
            other_bytes_max: sizes.other,
            ceiling_bytes: initial.limit_bytes,
            ceiling_file_count: initial.file_count_max,
            pending_deletion_multiple: initial.pending_deletion_multiple,
            alert_emails: Vec::new(),
        }
    }
}

impl From<QuotaRow> for Quota {
    fn from(row: QuotaRow) -> Self {
        let limits = row.limits;
        Self {
            tenant_id: row.tenant_id,
            limit_bytes: limits.limit_bytes,
            used_bytes: row.used_bytes,
            reserved_bytes: row.reserved_bytes,
            file_count_max: limits.file_count_max,
            file_count: row.file_count,
            reserved_file_count: row.reserved_file_count,
            pending_deletion_bytes: row.pending_deletion_bytes,
            pending_deletion_multiple: limits.pending_deletion_multiple,
            warning_percent: limits.warning_percent,
            critical_percent: limits.critical_percent,
            file_size_max_bytes: FileSizeLimits {
                image: limits.image_bytes_max,
                video: limits.video_bytes_max,
                audio: limits.audio_bytes_max,
                document: limits.document_bytes_max,
                other: limits.other_bytes_max,
            },
            ceiling_bytes: limits.ceiling_bytes,
            ceiling_file_count: limits.ceiling_file_count,
            revision: row.revision,
            update_time: row.update_time,
            last_warning_sent_time: row.last_warning_sent_time,
            alert_emails: limits.alert_emails,
        }
    }
}

/// Creates the quota of a new tenant.
pub async fn create(tx: &mut SystemTx, tenant: TenantId, initial: &InitialQuota) -> Result<(), DbError> {
    let insert = diesel::insert_into(quotas::table).values((
        quotas::tenant_id.eq(tenant),
        Limits::from(initial),
        quotas::update_time.eq(now()),
    ));
    query("create quota", insert).execute(tx.connection()?).await.map(|_| ())
}

/// Returns the quota of the transaction's tenant.
pub async fn get(tx: &mut TenantTx) -> Result<Quota, DbError> {
    let quota = quotas::table.of(tx.tenant()).select(QuotaRow::as_select());
    let row: QuotaRow = query("read quota", quota).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Returns the quota of the transaction's tenant, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx) -> Result<Quota, DbError> {
    let quota = quotas::table.of(tx.tenant()).select(QuotaRow::as_select()).for_update();
    let row: QuotaRow = query("lock quota", quota).one(tx.connection()?).await?;
    Ok(row.into())
}

/// The outcome of a change of usage.
#[derive(Debug)]
pub enum ChargeOutcome {
    /// It was applied. The quota is that after the change.
    Charged(Quota),
    /// It exceeds the limits of the tenant, and nothing was changed.
    TenantExceeded,
    /// It exceeds the limits of a user. The transaction must be rolled back, or the change of the tenant's quota
    /// reverted.
    UserExceeded(UserQuota),
}

/// Applies a delta to the quota of the tenant, and the deltas of users to theirs, if the results fit into the limits.
/// The sum of the users' deltas is `delta`, except where a file changes its owner.
///
/// A delta that only releases usage or reservations always fits.
pub async fn apply_delta(
    tx: &mut TenantTx,
    delta: QuotaDelta,
    users: &[UserDelta],
) -> Result<ChargeOutcome, DbError> {
    let Some(ChargedRow { quota, user_quota_count }) = charge_tenant(tx, delta).await? else {
        return Ok(ChargeOutcome::TenantExceeded);
    };
    if user_quota_count > 0
        && let Some(exceeded) = user_quotas::apply_deltas(tx, users).await?
    {
        return Ok(ChargeOutcome::UserExceeded(exceeded));
    }
    Ok(ChargeOutcome::Charged(quota.into()))
}

/// Reverts the part of a delta that [`apply_delta`] applied before the limits of a user were exceeded.
pub async fn revert_delta(tx: &mut TenantTx, delta: QuotaDelta) -> Result<(), DbError> {
    charge_tenant(tx, delta.negated()).await.map(|_| ())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = quotas, check_for_backend(diesel::pg::Pg))]
struct ChargedRow {
    #[diesel(embed)]
    quota: QuotaRow,
    user_quota_count: i32,
}

/// Applies a delta in one statement. Returns `None` if the result does not fit.
async fn charge_tenant(tx: &mut TenantTx, delta: QuotaDelta) -> Result<Option<ChargedRow>, DbError> {
    let fitting_bytes =
        (quotas::used_bytes + quotas::reserved_bytes + delta.used_bytes + delta.reserved_bytes)
            .le(quotas::limit_bytes);
    let fitting_files = quotas::file_count_max.eq(0).or((quotas::file_count
        + quotas::reserved_file_count
        + delta.file_count
        + delta.reserved_file_count)
        .le(quotas::file_count_max));
    let added_bytes = delta.used_bytes + delta.reserved_bytes;
    let fitting_deletions = added_bytes.into_sql::<BigInt>().le(0).or((quotas::used_bytes
        + quotas::reserved_bytes
        + quotas::pending_deletion_bytes
        + added_bytes)
        .le(quotas::limit_bytes * (quotas::pending_deletion_multiple + 1)));
    let fitting = quotas::table.of(tx.tenant()).filter(fitting_bytes).filter(fitting_deletions);
    let update = diesel::update(fitting.filter(fitting_files))
        .set((
            quotas::used_bytes.eq(quotas::used_bytes + delta.used_bytes),
            quotas::reserved_bytes.eq(quotas::reserved_bytes + delta.reserved_bytes),
            quotas::file_count.eq(quotas::file_count + delta.file_count),
            quotas::reserved_file_count.eq(quotas::reserved_file_count + delta.reserved_file_count),
        ))
        .returning(ChargedRow::as_returning());
    query("apply quota delta", update).first(tx.connection()?).await
}

/// Subtracts a drift from the row, if the result fits into the limits. Returns whether it does.
pub async fn subtract_drift(tx: &mut TenantTx, drift: &QuotaDrift) -> Result<bool, DbError> {
    let fitting_bytes =
        (quotas::used_bytes + quotas::reserved_bytes - drift.used_bytes - drift.reserved_bytes)
            .le(quotas::limit_bytes);
    let fitting_files = quotas::file_count_max.eq(0).or((quotas::file_count + quotas::reserved_file_count
        - drift.file_count
        - drift.reserved_file_count)
        .le(quotas::file_count_max));
    let update = diesel::update(quotas::table.of(tx.tenant()).filter(fitting_bytes).filter(fitting_files))
        .set((
            quotas::used_bytes.eq(quotas::used_bytes - drift.used_bytes),
            quotas::reserved_bytes.eq(quotas::reserved_bytes - drift.reserved_bytes),
            quotas::file_count.eq(quotas::file_count - drift.file_count),
            quotas::reserved_file_count.eq(quotas::reserved_file_count - drift.reserved_file_count),
            quotas::pending_deletion_bytes.eq(quotas::pending_deletion_bytes - drift.pending_deletion_bytes),
        ));
    Ok(query("repair quota", update).execute(tx.connection()?).await? > 0)
}

/// The number of files in the trash that [`sum_trash`] reads at most.
const TRASH_FILES_MAX: i64 = 10_000;

#[derive(QueryableByName)]
struct TrashRow {
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// Returns the bytes of files in the trash that the viewer may see, of the first `TRASH_FILES_MAX` files.
pub async fn sum_trash(tx: &mut TenantTx) -> Result<i64, DbError> {
    // A sum over a limited subquery.
    let row: TrashRow = statement(
        "sum up trash",
        "SELECT coalesce(sum(v.size_bytes), 0)::bigint AS bytes
         FROM (SELECT id FROM files WHERE tenant_id = $1 AND delete_time IS NOT NULL LIMIT $2) AS f
         JOIN versions AS v ON v.tenant_id = $1 AND v.file_id = f.id",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<BigInt, _>(TRASH_FILES_MAX)
    .one(tx.connection()?)
    .await?;
    Ok(row.bytes)
}

/// Updates the limits and ceilings of a quota that was read with [`get_for_update`].
pub async fn set_limits(tx: &mut TenantTx, quota: &Quota) -> Result<Quota, DbError> {
    let update = diesel::update(quotas::table.of(tx.tenant()))
        .set((Limits::from(quota), quotas::revision.eq(quotas::revision + 1), quotas::update_time.eq(now())))
        .returning(quotas::revision);
    query("set quota limits", update).one::<i64>(tx.connection()?).await?;
    // The statement returns the row as it is before its triggers, and they change the alert.
    get(tx).await
}
