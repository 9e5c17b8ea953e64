//! Webhooks: endpoints that receive events. Each has its own position in the event stream and a lease for the
//! process that delivers to it.

use std::time::Duration;

use diesel::{
    AsChangeset, ExpressionMethods as _, Insertable, NullableExpressionMethods as _, QueryDsl as _,
    Queryable, QueryableByName, Selectable, SelectableHelper as _,
    sql_types::{BigInt, Interval, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    event_stream::StreamSnapshot,
    events::{position_number, position_of},
    schema::webhooks,
    sql::{
        OfTenant as _, interval, now, now_plus, now_plus_optional, query, seconds, sql, statement, xid::Xid,
    },
};
use crate::domain::{
    caller::TenantState,
    clock::Timestamp,
    event_position::EventPosition,
    ids::{TenantId, WebhookId},
    webhook::{DeliveryState, Webhook, WebhookChange, WebhookState},
};

/// A webhook with its internal columns.
#[derive(Debug, Clone)]
pub struct StoredWebhook {
    pub webhook: Webhook,
    pub sealed_secret: String,
    pub former_sealed_secret: Option<String>,
    pub former_secret_expire_time: Option<Timestamp>,
    pub position_time: Timestamp,
    /// The incarnation of the database in the epoch of the position.
    pub incarnation: String,
    pub first_failure_time: Option<Timestamp>,
    pub lease_epoch: i32,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = webhooks, check_for_backend(diesel::pg::Pg))]
struct Row {
    id: WebhookId,
    url: String,
    description: String,
    kinds: Vec<i16>,
    sealed_secret: String,
    former_sealed_secret: Option<String>,
    former_secret_expire_time: Option<Timestamp>,
    state: WebhookState,
    state_reason: String,
    position_epoch: i32,
    position_xid: Xid,
    position_n: i64,
    position_time: Timestamp,
    incarnation: String,
    failed_attempts: i32,
    last_error: String,
    first_failure_time: Option<Timestamp>,
    next_attempt_time: Timestamp,
    lease_epoch: i32,
    created_by: String,
    create_time: Timestamp,
    update_time: Timestamp,
    revision: i64,
}

impl Row {
    fn into_webhook(self) -> Result<StoredWebhook, DbError> {
        Ok(StoredWebhook {
            webhook: Webhook {
                id: self.id,
                url: self.url,
                description: self.description,
                kinds: self.kinds,
                state: self.state,
                state_reason: self.state_reason,
                position: position_of(
                    "read webhook",
                    self.position_epoch,
                    self.position_xid,
                    self.position_n,
                )?,
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
    let page = webhooks::table
        .of(tx.tenant())
        .filter(webhooks::id.gt(after.unwrap_or(WebhookId::from_uuid(Uuid::nil()))))
        .order(webhooks::id)
        .limit(limit)
        .select(Row::as_select());
    let rows: Vec<Row> = query("list webhooks", page).load(tx.connection()?).await?;
    rows.into_iter().map(Row::into_webhook).collect()
}

/// Returns a webhook.
pub async fn get(tx: &mut TenantTx, id: WebhookId) -> Result<Option<StoredWebhook>, DbError> {
    let webhook = webhooks::table.of(tx.tenant()).filter(webhooks::id.eq(id)).select(Row::as_select());
    let row: Option<Row> = query("get webhook", webhook).first(tx.connection()?).await?;
    row.map(Row::into_webhook).transpose()
}

/// Returns a webhook, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: WebhookId) -> Result<Option<StoredWebhook>, DbError> {
    let webhook =
        webhooks::table.of(tx.tenant()).filter(webhooks::id.eq(id)).select(Row::as_select()).for_update();
    let row: Option<Row> = query("lock webhook", webhook).first(tx.connection()?).await?;
    row.map(Row::into_webhook).transpose()
}

/// Serializes transactions that change the number of the tenant's webhooks, until the transaction ends.
pub async fn lock_count(tx: &mut TenantTx) -> Result<(), DbError> {
    // A function of the server.
    statement(
        "lock webhook count",
        "SELECT pg_advisory_xact_lock(hashtextextended('webhooks ' || $1::uuid::text, 0))",
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
    let values = (
        webhooks::tenant_id.eq(tx.tenant()),
        webhooks::id.eq(id),
        webhooks::url.eq(change.url.as_deref().unwrap_or_default()),
        webhooks::description.eq(change.description.as_deref().unwrap_or_default()),
        webhooks::kinds.eq(change.kinds.as_deref().unwrap_or_default()),
        webhooks::state.eq(change.state.unwrap_or(WebhookState::Active)),
        webhooks::sealed_secret.eq(sealed_secret),
        webhooks::created_by.eq(created_by),
        Position::from(from),
        webhooks::next_attempt_time.eq(now()),
        webhooks::create_time.eq(now()),
        webhooks::update_time.eq(now()),
    );
    let insert = diesel::insert_into(webhooks::table).values(values).returning(Row::as_returning());
    let row: Row = query("insert webhook", insert).one(tx.connection()?).await?;
    row.into_webhook()
}

/// The columns of a position in the event stream.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = webhooks)]
struct Position<'a> {
    position_epoch: i32,
    position_xid: Xid,
    position_n: i64,
    position_time: Timestamp,
    incarnation: &'a str,
}

impl<'a> From<&'a StreamSnapshot> for Position<'a> {
    fn from(snapshot: &'a StreamSnapshot) -> Self {
        Self {
            position_epoch: snapshot.position.epoch.into(),
            position_xid: Xid(snapshot.position.xid),
            position_n: position_number(snapshot.position),
            position_time: snapshot.time,
            incarnation: snapshot.incarnation_of(snapshot.position.epoch).unwrap_or_default(),
        }
    }
}

/// The settings of a webhook that a caller changes. Absent fields are unchanged.
#[derive(AsChangeset)]
#[diesel(table_name = webhooks)]
struct Settings<'a> {
    url: Option<&'a str>,
    description: Option<&'a str>,
    kinds: Option<&'a [i16]>,
    state: Option<WebhookState>,
    state_reason: Option<&'static str>,
    failed_attempts: Option<i32>,
    first_failure_time: Option<Option<Timestamp>>,
    lease_expire_time: Option<Option<Timestamp>>,
}

/// Updates the settings of a webhook. Activating it resets its failures.
pub async fn update(
    tx: &mut TenantTx,
    id: WebhookId,
    change: &WebhookChange,
) -> Result<StoredWebhook, DbError> {
    let is_activated = change.state == Some(WebhookState::Active);
    let settings = Settings {
        url: change.url.as_deref(),
        description: change.description.as_deref(),
        kinds: change.kinds.as_deref(),
        state: change.state,
        state_reason: change.state.map(|_| ""),
        failed_attempts: is_activated.then_some(0),
        first_failure_time: is_activated.then_some(None),
        lease_expire_time: Some(None),
    };
    let update = diesel::update(webhooks::table.of(tx.tenant()).filter(webhooks::id.eq(id)))
        .set((
            settings,
            webhooks::next_attempt_time.eq(now()),
            webhooks::lease_epoch.eq(webhooks::lease_epoch + 1),
            webhooks::update_time.eq(now()),
            webhooks::revision.eq(webhooks::revision + 1),
        ))
        .returning(Row::as_returning());
    let row: Row = query("update webhook", update).one(tx.connection()?).await?;
    row.into_webhook()
}

/// Replaces the secret. The former secret is also used for signing for `overlap_seconds`.
pub async fn set_secret(
    tx: &mut TenantTx,
    id: WebhookId,
    sealed: &str,
    overlap_seconds: u32,
) -> Result<StoredWebhook, DbError> {
    let update = diesel::update(webhooks::table.of(tx.tenant()).filter(webhooks::id.eq(id)))
        .set((
            webhooks::former_sealed_secret.eq(webhooks::sealed_secret.nullable()),
            webhooks::sealed_secret.eq(sealed),
            webhooks::former_secret_expire_time.eq(now_plus(seconds(overlap_seconds)).nullable()),
            webhooks::update_time.eq(now()),
            webhooks::revision.eq(webhooks::revision + 1),
        ))
        .returning(Row::as_returning());
    let row: Row = query("rotate webhook secret", update).one(tx.connection()?).await?;
    row.into_webhook()
}

/// Deletes a webhook and its failed deliveries. Returns whether it existed.
pub async fn delete(tx: &mut TenantTx, id: WebhookId) -> Result<bool, DbError> {
    let delete = diesel::delete(webhooks::table.of(tx.tenant()).filter(webhooks::id.eq(id)));
    Ok(query("delete webhook", delete).execute(tx.connection()?).await? == 1)
}

/// The lease of a webhook, under which a process delivers to it.
#[derive(Debug, Clone, Copy, QueryableByName)]
#[diesel(table_name = webhooks)]
pub struct WebhookLease {
    #[diesel(column_name = tenant_id)]
    pub tenant: TenantId,
    #[diesel(column_name = id)]
    pub webhook: WebhookId,
    /// Incremented by every claim. A lease with an older epoch has been lost.
    #[diesel(column_name = lease_epoch)]
    pub epoch: i32,
}

/// Claims up to `limit` due webhooks of active tenants that no process holds, in the order of their due time.
///
/// A webhook is due if it has events to deliver. Without events it is claimed once an hour, so that its
/// position stays within the retention of events. A webhook whose position belongs to an incarnation of the database
/// without an epoch is claimed immediately, because the position is meaningless.
///
/// Limits the webhooks of one tenant that all processes hold to `per_tenant`.
pub async fn claim_due(
    tx: &mut SystemTx,
    lease_seconds: u32,
    limit: i64,
    per_tenant: i64,
) -> Result<Vec<WebhookLease>, DbError> {
    // Two scans with a window function, an existence test per row and SKIP LOCKED on one of the tables.
    const OPERATION: &str = "claim webhooks";
    let text = sql!(
        "WITH ranked AS MATERIALIZED (
            SELECT idle.tenant_id, idle.id, row_number() OVER (PARTITION BY idle.tenant_id ORDER BY idle.next_attempt_time, idle.id)
                + (SELECT count(*) FROM webhooks AS busy
                   WHERE busy.tenant_id = idle.tenant_id AND busy.lease_expire_time > app.now()) AS place
            FROM webhooks AS idle JOIN tenants AS t ON t.id = idle.tenant_id AND t.state = {tenant_active}
            WHERE idle.state = {active} AND idle.next_attempt_time <= app.now()
              AND (idle.lease_expire_time IS NULL OR idle.lease_expire_time <= app.now())
              AND (idle.position_time <= app.now() - interval '1 hour'
                   OR NOT EXISTS (SELECT FROM app.position_epochs AS p
                                  WHERE p.epoch = idle.position_epoch AND p.incarnation = idle.incarnation)
                   OR EXISTS (SELECT FROM events AS e
                              WHERE e.tenant_id = idle.tenant_id
                                AND (e.epoch, e.xid, e.n) > (idle.position_epoch, idle.position_xid, idle.position_n)
                                AND (e.epoch, e.xid) < (SELECT b.epoch, b.xid FROM app.event_bound() AS b))
                   OR EXISTS (SELECT FROM webhook_deliveries AS d
                              WHERE d.tenant_id = idle.tenant_id AND d.webhook_id = idle.id AND d.state = {waiting})))
         UPDATE webhooks AS w SET lease_epoch = w.lease_epoch + 1, lease_expire_time = app.now() + $1
         FROM (SELECT idle.tenant_id, idle.id
               FROM webhooks AS idle JOIN ranked AS r ON r.tenant_id = idle.tenant_id AND r.id = idle.id
               WHERE r.place <= $2 AND idle.state = {active} AND idle.next_attempt_time <= app.now()
                 AND (idle.lease_expire_time IS NULL OR idle.lease_expire_time <= app.now())
               ORDER BY idle.next_attempt_time, idle.id LIMIT $3 FOR UPDATE OF idle SKIP LOCKED) AS due
         WHERE w.tenant_id = due.tenant_id AND w.id = due.id
         RETURNING w.tenant_id, w.id, w.lease_epoch",
        tenant_active = TenantState::Active,
        active = WebhookState::Active,
        waiting = DeliveryState::Waiting,
    );
    statement(OPERATION, text)
        .bind::<Interval, _>(seconds(lease_seconds))
        .bind::<BigInt, _>(per_tenant)
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await
}

/// The result of a delivery attempt.
#[derive(Debug, Clone)]
pub struct DeliveryProgress {
    pub position: EventPosition,
    /// The incarnation of the database in the epoch of the position.
    pub incarnation: String,
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
    let update = diesel::update(webhooks::table.of(lease.tenant).filter(webhooks::id.eq(lease.webhook)))
        .filter(webhooks::lease_epoch.eq(lease.epoch))
        .set((
            webhooks::position_epoch.eq(i32::from(progress.position.epoch)),
            webhooks::position_xid.eq(Xid(progress.position.xid)),
            webhooks::position_n.eq(position_number(progress.position)),
            webhooks::incarnation.eq(&progress.incarnation),
            webhooks::position_time.eq(progress.position_time),
            webhooks::state.eq(progress.state),
            webhooks::state_reason.eq(&progress.state_reason),
            webhooks::failed_attempts.eq(progress.failed_attempts),
            webhooks::last_error.eq(&progress.last_error),
            webhooks::first_failure_time.eq(progress.first_failure_time),
            webhooks::next_attempt_time.eq(now_plus(interval(progress.retry_delay))),
            webhooks::lease_expire_time.eq(now_plus_optional(progress.lease_seconds.map(seconds))),
        ));
    Ok(query("record webhook progress", update).execute(tx.connection()?).await? == 1)
}

/// Resets the position of a webhook to a snapshot, if the events after its former position are no longer
/// retained.
pub async fn reset_position(tx: &mut TenantTx, id: WebhookId, from: &StreamSnapshot) -> Result<(), DbError> {
    let webhook = webhooks::table.of(tx.tenant()).filter(webhooks::id.eq(id));
    let update = diesel::update(webhook).set(Position::from(from));
    query("set webhook position", update).execute(tx.connection()?).await.map(|_| ())
}

/// Replaces a position that belongs to an incarnation of the database without an epoch. Returns false if the lease was
/// lost.
pub async fn set_incarnation(
    tx: &mut TenantTx,
    lease: &WebhookLease,
    position: EventPosition,
    incarnation: &str,
) -> Result<bool, DbError> {
    let update = diesel::update(webhooks::table.of(lease.tenant).filter(webhooks::id.eq(lease.webhook)))
        .filter(webhooks::lease_epoch.eq(lease.epoch))
        .set((
            webhooks::position_epoch.eq(i32::from(position.epoch)),
            webhooks::position_xid.eq(Xid(position.xid)),
            webhooks::position_n.eq(position_number(position)),
            webhooks::incarnation.eq(incarnation),
        ));
    Ok(query("set webhook incarnation", update).execute(tx.connection()?).await? == 1)
}
