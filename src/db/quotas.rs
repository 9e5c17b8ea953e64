//! Quotas, one row per tenant. Changes are single conditional UPDATEs; the CHECK constraints of the table are
//! a second guard.

use chrono::{DateTime, Utc};
use diesel::{
    QueryableByName,
    sql_types::{BigInt, SmallInt, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{DbError, SystemTx, TenantTx, sql::statement};
use crate::domain::{
    ids::TenantId,
    policy::{FileSizeLimits, InitialQuota},
    quota::Quota,
};

pub(super) const COLUMNS: &str = "tenant_id, limit_bytes, used_bytes, reserved_bytes, file_count_max, file_count, \
    reserved_file_count, warning_percent, critical_percent, image_bytes_max, video_bytes_max, audio_bytes_max, \
    document_bytes_max, other_bytes_max, ceiling_bytes, ceiling_file_count, revision, update_time";

#[derive(QueryableByName)]
pub(super) struct QuotaRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = BigInt)]
    limit_bytes: i64,
    #[diesel(sql_type = BigInt)]
    used_bytes: i64,
    #[diesel(sql_type = BigInt)]
    reserved_bytes: i64,
    #[diesel(sql_type = BigInt)]
    file_count_max: i64,
    #[diesel(sql_type = BigInt)]
    file_count: i64,
    #[diesel(sql_type = BigInt)]
    reserved_file_count: i64,
    #[diesel(sql_type = SmallInt)]
    warning_percent: i16,
    #[diesel(sql_type = SmallInt)]
    critical_percent: i16,
    #[diesel(sql_type = BigInt)]
    image_bytes_max: i64,
    #[diesel(sql_type = BigInt)]
    video_bytes_max: i64,
    #[diesel(sql_type = BigInt)]
    audio_bytes_max: i64,
    #[diesel(sql_type = BigInt)]
    document_bytes_max: i64,
    #[diesel(sql_type = BigInt)]
    other_bytes_max: i64,
    #[diesel(sql_type = BigInt)]
    ceiling_bytes: i64,
    #[diesel(sql_type = BigInt)]
    ceiling_file_count: i64,
    #[diesel(sql_type = BigInt)]
    revision: i64,
    #[diesel(sql_type = Timestamptz)]
    update_time: DateTime<Utc>,
}

impl From<QuotaRow> for Quota {
    fn from(row: QuotaRow) -> Self {
        Self {
            tenant_id: TenantId::from_uuid(row.tenant_id),
            limit_bytes: row.limit_bytes,
            used_bytes: row.used_bytes,
            reserved_bytes: row.reserved_bytes,
            file_count_max: row.file_count_max,
            file_count: row.file_count,
            reserved_file_count: row.reserved_file_count,
            warning_percent: row.warning_percent,
            critical_percent: row.critical_percent,
            file_size_max_bytes: FileSizeLimits {
                image: row.image_bytes_max,
                video: row.video_bytes_max,
                audio: row.audio_bytes_max,
                document: row.document_bytes_max,
                other: row.other_bytes_max,
            },
            ceiling_bytes: row.ceiling_bytes,
            ceiling_file_count: row.ceiling_file_count,
            revision: row.revision,
            update_time: row.update_time,
        }
    }
}

/// A change of usage and reservations, applied only if the result stays within the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the change of the column of the same name")]
pub struct QuotaDelta {
    pub used_bytes: i64,
    pub reserved_bytes: i64,
    pub file_count: i64,
    pub reserved_file_count: i64,
}

impl QuotaDelta {
    /// One added file of `bytes`.
    pub fn for_added_file(bytes: i64) -> Self {
        Self { used_bytes: bytes, file_count: 1, ..Self::default() }
    }

    /// A change of the used bytes of existing files.
    pub fn for_bytes(bytes: i64) -> Self {
        Self { used_bytes: bytes, ..Self::default() }
    }

    /// One removed file of `bytes`.
    pub fn for_removed_file(bytes: i64) -> Self {
        Self { used_bytes: -bytes, file_count: -1, ..Self::default() }
    }
}

/// Creates the quota of a new tenant. Its limits also become the initial ceilings, which only the operator
/// can change.
pub async fn create(tx: &mut SystemTx, tenant: TenantId, initial: &InitialQuota) -> Result<(), DbError> {
    let sizes = &initial.file_size_max_bytes;
    statement(
        "create quota",
        "INSERT INTO quotas (tenant_id, limit_bytes, file_count_max, warning_percent, critical_percent,
            image_bytes_max, video_bytes_max, audio_bytes_max, document_bytes_max, other_bytes_max,
            ceiling_bytes, ceiling_file_count, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, app.now())",
    )
    .bind::<SqlUuid, _>(tenant.as_uuid())
    .bind::<BigInt, _>(initial.limit_bytes)
    .bind::<BigInt, _>(initial.file_count_max)
    .bind::<SmallInt, _>(initial.warning_percent)
    .bind::<SmallInt, _>(initial.critical_percent)
    .bind::<BigInt, _>(sizes.image)
    .bind::<BigInt, _>(sizes.video)
    .bind::<BigInt, _>(sizes.audio)
    .bind::<BigInt, _>(sizes.document)
    .bind::<BigInt, _>(sizes.other)
    .bind::<BigInt, _>(initial.limit_bytes)
    .bind::<BigInt, _>(initial.file_count_max)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Returns the quota of the transaction's tenant.
pub async fn get(tx: &mut TenantTx) -> Result<Quota, DbError> {
    let tenant = tx.tenant().as_uuid();
    let row: QuotaRow = statement("read quota", format!("SELECT {COLUMNS} FROM quotas WHERE tenant_id = $1"))
        .bind::<SqlUuid, _>(tenant)
        .one(tx.connection()?)
        .await?;
    Ok(row.into())
}

/// Returns the quota of the transaction's tenant, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx) -> Result<Quota, DbError> {
    let tenant = tx.tenant().as_uuid();
    let sql = format!("SELECT {COLUMNS} FROM quotas WHERE tenant_id = $1 FOR UPDATE");
    let row: QuotaRow = statement("lock quota", sql).bind::<SqlUuid, _>(tenant).one(tx.connection()?).await?;
    Ok(row.into())
}

/// Applies a delta in one statement, if the result fits into the limits. Returns the new quota, or `None` if
/// it does not fit.
///
/// A delta that only releases usage or reservations always fits.
pub async fn apply_delta(tx: &mut TenantTx, delta: QuotaDelta) -> Result<Option<Quota>, DbError> {
    let tenant = tx.tenant().as_uuid();
    let sql = format!(
        "UPDATE quotas SET
            used_bytes = used_bytes + delta.used, reserved_bytes = reserved_bytes + delta.reserved,
            file_count = file_count + delta.files, reserved_file_count = reserved_file_count + delta.reserved_files
         FROM (VALUES ($1::bigint, $2::bigint, $3::bigint, $4::bigint))
            AS delta (used, reserved, files, reserved_files)
         WHERE tenant_id = $5
           AND used_bytes + reserved_bytes + delta.used + delta.reserved <= limit_bytes
           AND (file_count_max = 0
                OR file_count + reserved_file_count + delta.files + delta.reserved_files <= file_count_max)
         RETURNING {COLUMNS}"
    );
    let row: Option<QuotaRow> = statement("apply quota delta", sql)
        .bind::<BigInt, _>(delta.used_bytes)
        .bind::<BigInt, _>(delta.reserved_bytes)
        .bind::<BigInt, _>(delta.file_count)
        .bind::<BigInt, _>(delta.reserved_file_count)
        .bind::<SqlUuid, _>(tenant)
        .first(tx.connection()?)
        .await?;
    Ok(row.map(Quota::from))
}

/// Updates the limits and ceilings of a quota that was read with [`get_for_update`].
pub async fn set_limits(tx: &mut TenantTx, quota: &Quota) -> Result<Quota, DbError> {
    let sizes = &quota.file_size_max_bytes;
    let sql = format!(
        "UPDATE quotas SET limit_bytes = $1, file_count_max = $2, warning_percent = $3, critical_percent = $4,
            image_bytes_max = $5, video_bytes_max = $6, audio_bytes_max = $7, document_bytes_max = $8,
            other_bytes_max = $9, ceiling_bytes = $10, ceiling_file_count = $11,
            revision = revision + 1, update_time = app.now()
         WHERE tenant_id = $12 RETURNING {COLUMNS}"
    );
    let row: QuotaRow = statement("set quota limits", sql)
        .bind::<BigInt, _>(quota.limit_bytes)
        .bind::<BigInt, _>(quota.file_count_max)
        .bind::<SmallInt, _>(quota.warning_percent)
        .bind::<SmallInt, _>(quota.critical_percent)
        .bind::<BigInt, _>(sizes.image)
        .bind::<BigInt, _>(sizes.video)
        .bind::<BigInt, _>(sizes.audio)
        .bind::<BigInt, _>(sizes.document)
        .bind::<BigInt, _>(sizes.other)
        .bind::<BigInt, _>(quota.ceiling_bytes)
        .bind::<BigInt, _>(quota.ceiling_file_count)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .one(tx.connection()?)
        .await?;
    Ok(row.into())
}
