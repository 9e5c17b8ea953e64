//! Webhooks: endpoints that receive events. Each has its own position in the event stream and a lease for the
//! replica that delivers to it.

use std::time::Duration;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Double, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx, event_stream::StreamSnapshot, events::parse_position, statement::statement,
};
use crate::domain::{
    clock::Timestamp,
    event_position::EventPosition,
    ids::{TenantId, WebhookId},
    webhook::{Webhook, WebhookChange, WebhookState},
};

const COLUMNS: &str = "id, url, description, kinds, sealed_secret, former_sealed_secret, former_secret_expire_time, state,
    state_reason, position_xid::text AS position_xid, position_n, position_time, incarnation, failed_attempts, last_error,
    first_failure_time, next_attempt_time, lease_epoch, created_by, create_time, update_time, revision";

/// A webhook with its internal columns.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the columns of the same names")]
pub struct StoredWebhook {
    pub webhook: Webhook,
    pub sealed_secret: String,
    pub former_sealed_secret: Option<String>,
    pub former_secret_expire_time: Option<Timestamp>,
    pub position_time: Timestamp,
    pub incarnation: String,
    pub first_failure_time: Option<Timestamp>,
    pub lease_epoch: i32,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    url: String,
    #[diesel(sql_type = Text)]
    description: String,
    #[diesel(sql_type = Array<SmallInt>)]
    kinds: Vec<i16>,
    #[diesel(sql_type = Text)]
    sealed_secret: String,
    #[diesel(sql_type = Nullable<Text>)]
    former_sealed_secret: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    former_secret_expire_time: Option<Timestamp>,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Text)]
    state_reason: String,
    #[diesel(sql_type = Text)]
    position_xid: String,
    #[diesel(sql_type = BigInt)]
    position_n: i64,
    #[diesel(sql_type = Timestamptz)]
    position_time: Timestamp,
    #[diesel(sql_type = Text)]
    incarnation: String,
    #[diesel(sql_type = Integer)]
    failed_attempts: i32,
    #[diesel(sql_type = Text)]
    last_error: String,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    first_failure_time: Option<Timestamp>,
    #[diesel(sql_type = Timestamptz)]
    next_attempt_time: Timestamp,
    #[diesel(sql_type = Integer)]
    lease_epoch: i32,
    #[diesel(sql_type = Text)]
    created_by: String,
    #[diesel(sql_type = Timestamptz)]
    create_time: Timestamp,
    #[diesel(sql_type = Timestamptz)]
    update_time: Timestamp,
    #[diesel(sql_type = BigInt)]
    revision: i64,
}

impl Row {
    fn into_webhook(self) -> Result<StoredWebhook, DbError> {
        const OPERATION: &str = "read webhook";
        let state = WebhookState::from_number(self.state);
        Ok(StoredWebhook {
            webhook: Webhook {
                id: WebhookId::from_uuid(self.id),
                url: self.url,
                description: self.description,
                kinds: self.kinds,
                state: state.ok_or_else(|| DbError::corrupt(OPERATION, "state"))?,
                state_reason: self.state_reason,
                position: parse_position(OPERATION, &self.position_xid, self.position_n)?,
                failed_attempts: self.failed_attempts,
                last_error: self.last_error,
                next_attempt_time: self.next_attempt_time,
                created_by: self.created_by,
                create_time: self.create_time,
                update_time: self.update_time,
                revision: self.revision,
            },
            sealed_secret: self.sealed_secret,
            former_sealed_secret: self.former_sealed_secret,
            former_secret_expire_time: self.former_secret_expire_time,
            position_time: self.position_time,
            incarnation: self.incarnation,
            first_failure_time: self.first_failure_time,
            lease_epoch: self.lease_epoch,
        })
    }
}

/// Returns a page of the tenant's webhooks, oldest first. Their ids ascend in the order of creation.
pub async fn list(
    tx: &mut TenantTx,
    after: Option<WebhookId>,
    limit: i64,
) -> Result<Vec<StoredWebhook>, DbError> {
    let sql =
        format!("SELECT {COLUMNS} FROM webhooks WHERE tenant_id = {{}} AND id > {{}} ORDER BY id LIMIT {{}}");
    let rows: Vec<Row> = statement("list webhooks", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(after.map_or(Uuid::nil(), |after| after.as_uuid()))
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(Row::into_webhook).collect()
}

/// Returns a webhook.
pub async fn get(tx: &mut TenantTx, id: WebhookId) -> Result<Option<StoredWebhook>, DbError> {
    select(tx, id, "").await
}

/// Returns a webhook, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: WebhookId) -> Result<Option<StoredWebhook>, DbError> {
    select(tx, id, "FOR UPDATE").await
}

async fn select(tx: &mut TenantTx, id: WebhookId, lock: &str) -> Result<Option<StoredWebhook>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM webhooks WHERE tenant_id = {{}} AND id = {{}} {lock}");
    let row: Option<Row> = statement("get webhook", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .first(tx.connection()?)
        .await?;
    row.map(Row::into_webhook).transpose()
}

/// Serializes transactions that change the number of the tenant's webhooks, until the transaction ends.
pub async fn lock_count(tx: &mut TenantTx) -> Result<(), DbError> {
    statement(
        "lock webhook count",
        "SELECT pg_advisory_xact_lock(hashtextextended('webhooks ' || {}::uuid::text, 0))",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Inserts a webhook that receives all events after a snapshot.
pub async fn insert(
    tx: &mut TenantTx,
    id: WebhookId,
    change: &WebhookChange,
    sealed_secret: &str,
    created_by: &str,
    from: &StreamSnapshot,
) -> Result<StoredWebhook, DbError> {
    let sql = format!(
        "INSERT INTO webhooks (tenant_id, id, url, description, kinds, state, sealed_secret, created_by, position_xid,
            position_n, position_time, incarnation, next_attempt_time, create_time, update_time)
         VALUES ({{}}, {{}}, {{}}, {{}}, {{}}, {{}}, {{}}, {{}}, {{}}::xid8, {{}}, {{}}, {{}}, app.now(), app.now(), app.now())
         RETURNING {COLUMNS}"
    );
    let row: Row = statement("insert webhook", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .bind::<Text, _>(change.url.clone().unwrap_or_default())
        .bind::<Text, _>(change.description.clone().unwrap_or_default())
        .bind::<Array<SmallInt>, _>(change.kinds.clone().unwrap_or_default())
        .bind::<SmallInt, _>(change.state.unwrap_or(WebhookState::Active).number())
        .bind::<Text, _>(sealed_secret.to_owned())
        .bind::<Text, _>(created_by.to_owned())
        .bind::<Text, _>(from.position.xid.to_string())
        .bind::<BigInt, _>(position_number(from.position))
        .bind::<Timestamptz, _>(from.time)
        .bind::<Text, _>(from.incarnation.clone())
        .one(tx.connection()?)
        .await?;
    row.into_webhook()
}

/// Updates the settings of a webhook. Activating it resets its failures.
pub async fn update(
    tx: &mut TenantTx,
    id: WebhookId,
    change: &WebhookChange,
) -> Result<StoredWebhook, DbError> {
    let sql = format!(
        "UPDATE webhooks SET url = coalesce({{}}, url), description = coalesce({{}}, description),
            kinds = coalesce({{}}, kinds), state = coalesce({{}}, state), state_reason = CASE WHEN {{}} THEN '' ELSE state_reason END,
            failed_attempts = CASE WHEN {{}} THEN 0 ELSE failed_attempts END,
            first_failure_time = CASE WHEN {{}} THEN NULL ELSE first_failure_time END,
            next_attempt_time = app.now(), lease_epoch = lease_epoch + 1, lease_expire_time = NULL,
            update_time = app.now(), revision = revision + 1
         WHERE tenant_id = {{}} AND id = {{}} RETURNING {COLUMNS}"
    );
    let is_activated = change.state == Some(WebhookState::Active);
    let row: Row = statement("update webhook", sql)
        .bind::<Nullable<Text>, _>(change.url.clone())
        .bind::<Nullable<Text>, _>(change.description.clone())
        .bind::<Nullable<Array<SmallInt>>, _>(change.kinds.clone())
        .bind::<Nullable<SmallInt>, _>(change.state.map(WebhookState::number))
        .bind::<diesel::sql_types::Bool, _>(change.state.is_some())
        .bind::<diesel::sql_types::Bool, _>(is_activated)
        .bind::<diesel::sql_types::Bool, _>(is_activated)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_webhook()
}

/// Replaces the secret. The former secret is also used for signing for `overlap_seconds`.
pub async fn set_secret(
    tx: &mut TenantTx,
    id: WebhookId,
    sealed: &str,
    overlap_seconds: u32,
) -> Result<StoredWebhook, DbError> {
    let sql = format!(
        "UPDATE webhooks SET former_sealed_secret = sealed_secret, sealed_secret = {{}},
            former_secret_expire_time = app.now() + make_interval(secs => {{}}), update_time = app.now(),
            revision = revision + 1
         WHERE tenant_id = {{}} AND id = {{}} RETURNING {COLUMNS}"
    );
    let row: Row = statement("rotate webhook secret", sql)
        .bind::<Text, _>(sealed.to_owned())
        .bind::<Double, _>(f64::from(overlap_seconds))
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .one(tx.connection()?)
        .await?;
    row.into_webhook()
}

/// Deletes a webhook and its failed deliveries. Returns whether it existed.
pub async fn delete(tx: &mut TenantTx, id: WebhookId) -> Result<bool, DbError> {
    let deleted = statement("delete webhook", "DELETE FROM webhooks WHERE tenant_id = {} AND id = {}")
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(id.as_uuid())
        .execute(tx.connection()?)
        .await?;
    Ok(deleted == 1)
}

#[derive(QueryableByName)]
struct ClaimedRow {
    #[diesel(sql_type = SqlUuid)]
    tenant_id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Integer)]
    lease_epoch: i32,
}

/// The lease of a webhook, under which a replica delivers to it.
#[derive(Debug, Clone, Copy)]
pub struct WebhookLease {
    pub tenant: TenantId,
    pub webhook: WebhookId,
    /// Incremented by every claim. A lease with an older epoch has been lost.
    pub epoch: i32,
}

/// Claims up to `limit` due webhooks of active tenants that no replica holds, in the order of their due time.
///
/// A webhook is due if it has events to deliver. Without events it is claimed once an hour, so that its
/// position stays within the retention of events. A webhook whose position belongs to another incarnation of
/// the database is claimed immediately, because the position is meaningless in the current one.
///
/// Limits the webhooks of one tenant that all replicas hold to `per_tenant`.
pub async fn claim_due(
    tx: &mut SystemTx,
    lease_seconds: u32,
    limit: i64,
    per_tenant: i64,
) -> Result<Vec<WebhookLease>, DbError> {
    let rows: Vec<ClaimedRow> = statement(
        "claim webhooks",
        "WITH ranked AS MATERIALIZED (
            SELECT idle.tenant_id, idle.id, row_number() OVER (PARTITION BY idle.tenant_id ORDER BY idle.next_attempt_time, idle.id)
                + (SELECT count(*) FROM webhooks AS busy
                   WHERE busy.tenant_id = idle.tenant_id AND busy.lease_expire_time > app.now()) AS place
            FROM webhooks AS idle JOIN tenants AS t ON t.id = idle.tenant_id AND t.state = 1
            WHERE idle.state = 1 AND idle.next_attempt_time <= app.now()
              AND (idle.lease_expire_time IS NULL OR idle.lease_expire_time <= app.now())
              AND (idle.position_time <= app.now() - interval '1 hour'
                   OR idle.incarnation <> (SELECT app.event_incarnation())
                   OR EXISTS (SELECT FROM events AS e
                              WHERE e.tenant_id = idle.tenant_id
                                AND (e.xid, e.n) > (idle.position_xid, idle.position_n)
                                AND e.xid < (SELECT pg_snapshot_xmin(pg_current_snapshot())))
                   OR EXISTS (SELECT FROM webhook_deliveries AS d
                              WHERE d.tenant_id = idle.tenant_id AND d.webhook_id = idle.id AND d.state = 2)))
         UPDATE webhooks AS w SET lease_epoch = w.lease_epoch + 1, lease_expire_time = app.now() + make_interval(secs => {})
         FROM (SELECT idle.tenant_id, idle.id
               FROM webhooks AS idle JOIN ranked AS r ON r.tenant_id = idle.tenant_id AND r.id = idle.id
               WHERE r.place <= {} AND idle.state = 1 AND idle.next_attempt_time <= app.now()
                 AND (idle.lease_expire_time IS NULL OR idle.lease_expire_time <= app.now())
               ORDER BY idle.next_attempt_time, idle.id LIMIT {} FOR UPDATE OF idle SKIP LOCKED) AS due
         WHERE w.tenant_id = due.tenant_id AND w.id = due.id
         RETURNING w.tenant_id, w.id, w.lease_epoch",
    )
    .bind::<Double, _>(f64::from(lease_seconds))
    .bind::<BigInt, _>(per_tenant)
    .bind::<BigInt, _>(limit)
    .load(tx.connection()?)
    .await?;
    let lease = |row: ClaimedRow| WebhookLease {
        tenant: TenantId::from_uuid(row.tenant_id),
        webhook: WebhookId::from_uuid(row.id),
        epoch: row.lease_epoch,
    };
    Ok(rows.into_iter().map(lease).collect())
}

/// The result of a delivery attempt.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the columns of the same names")]
pub struct DeliveryProgress {
    pub position: EventPosition,
    pub position_time: Timestamp,
    pub state: WebhookState,
    pub state_reason: String,
    pub failed_attempts: i32,
    pub last_error: String,
    pub first_failure_time: Option<Timestamp>,
    /// The delay until the next attempt.
    pub retry_delay: Duration,
    /// The duration for which the lease is extended; `None` to release it.
    pub lease_seconds: Option<u32>,
}

/// Records the result of an attempt. Returns false, and writes nothing, if the lease was lost.
pub async fn record_progress(
    tx: &mut TenantTx,
    lease: &WebhookLease,
    progress: &DeliveryProgress,
) -> Result<bool, DbError> {
    let changed = statement(
        "record webhook progress",
        "UPDATE webhooks SET position_xid = {}::xid8, position_n = {}, position_time = {}, state = {}, state_reason = {},
            failed_attempts = {}, last_error = {}, first_failure_time = {},
            next_attempt_time = app.now() + make_interval(secs => {}),
            lease_expire_time = app.now() + make_interval(secs => {})
         WHERE tenant_id = {} AND id = {} AND lease_epoch = {}",
    )
    .bind::<Text, _>(progress.position.xid.to_string())
    .bind::<BigInt, _>(position_number(progress.position))
    .bind::<Timestamptz, _>(progress.position_time)
    .bind::<SmallInt, _>(progress.state.number())
    .bind::<Text, _>(progress.state_reason.clone())
    .bind::<Integer, _>(progress.failed_attempts)
    .bind::<Text, _>(progress.last_error.clone())
    .bind::<Nullable<Timestamptz>, _>(progress.first_failure_time)
    .bind::<Double, _>(progress.retry_delay.as_secs_f64())
    .bind::<Nullable<Double>, _>(progress.lease_seconds.map(f64::from))
    .bind::<SqlUuid, _>(lease.tenant.as_uuid())
    .bind::<SqlUuid, _>(lease.webhook.as_uuid())
    .bind::<Integer, _>(lease.epoch)
    .execute(tx.connection()?)
    .await?;
    Ok(changed == 1)
}

/// Resets the position of a webhook to a snapshot, if the events after its former position are no longer
/// retained.
pub async fn reset_position(tx: &mut TenantTx, id: WebhookId, from: &StreamSnapshot) -> Result<(), DbError> {
    statement(
        "set webhook position",
        "UPDATE webhooks SET position_xid = {}::xid8, position_n = {}, position_time = {}, incarnation = {}
         WHERE tenant_id = {} AND id = {}",
    )
    .bind::<Text, _>(from.position.xid.to_string())
    .bind::<BigInt, _>(position_number(from.position))
    .bind::<Timestamptz, _>(from.time)
    .bind::<Text, _>(from.incarnation.clone())
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(id.as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Sets the position of a webhook in a new incarnation of the database. Returns false if the lease was lost.
pub async fn set_incarnation(
    tx: &mut TenantTx,
    lease: &WebhookLease,
    position: EventPosition,
    incarnation: &str,
) -> Result<bool, DbError> {
    let changed = statement(
        "set webhook incarnation",
        "UPDATE webhooks SET position_xid = {}::xid8, position_n = {}, incarnation = {}
         WHERE tenant_id = {} AND id = {} AND lease_epoch = {}",
    )
    .bind::<Text, _>(position.xid.to_string())
    .bind::<BigInt, _>(position_number(position))
    .bind::<Text, _>(incarnation.to_owned())
    .bind::<SqlUuid, _>(lease.tenant.as_uuid())
    .bind::<SqlUuid, _>(lease.webhook.as_uuid())
    .bind::<Integer, _>(lease.epoch)
    .execute(tx.connection()?)
    .await?;
    Ok(changed == 1)
}

pub(super) fn position_number(position: EventPosition) -> i64 {
    i64::try_from(position.n).unwrap_or(i64::MAX)
}
