//! Failed deliveries of events to webhooks: dead letters and redeliveries.

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
    sql_types::{BigInt, Integer, Record},
    upsert::excluded,
};

use super::{
    DbError, SystemTx, TenantTx,
    event_stream::StoredEvent,
    events::{EventKind, EventSubject, position_number, position_of},
    schema::webhook_deliveries,
    sql::{
        AcrossTenants as _, OfTenant as _, days, literal, now, now_minus, query,
        xid::{Xid, Xid8},
    },
};
use crate::domain::{
    clock::Timestamp,
    event_position::EventPosition,
    ids::{FileId, WebhookId},
    webhook::DeliveryState,
};

/// A failed delivery of an event.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub event: StoredEvent,
    pub state: DeliveryState,
    /// The number of attempts.
    pub attempts: i32,
    /// The error of the last attempt.
    pub last_error: String,
    /// When it became a dead letter.
    pub create_time: Timestamp,
    /// When it was last attempted, or its redelivery was requested.
    pub update_time: Timestamp,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = webhook_deliveries, check_for_backend(diesel::pg::Pg))]
struct Row {
    position_epoch: i32,
    position_xid: Xid,
    position_n: i64,
    kind: EventKind,
    file_id: FileId,
    version: i32,
    actor_id: String,
    event_time: Timestamp,
    state: DeliveryState,
    attempts: i32,
    last_error: String,
    create_time: Timestamp,
    update_time: Timestamp,
    revision: i64,
}

impl Row {
    fn into_delivery(self) -> Result<Delivery, DbError> {
        Ok(Delivery {
            event: StoredEvent {
                position: position_of(
                    "read webhook delivery",
                    self.position_epoch,
                    self.position_xid,
                    self.position_n,
                )?,
                kind: self.kind,
                subject: EventSubject::from_columns(self.kind, self.file_id, self.version),
                revision: self.revision,
                actor_id: self.actor_id,
                create_time: self.event_time,
            },
            state: self.state,
            attempts: self.attempts,
            last_error: self.last_error,
            create_time: self.create_time,
            update_time: self.update_time,
        })
    }
}

/// Selects the deliveries of a webhook.
macro_rules! of_webhook {
    ($tx:expr, $webhook:expr) => {
        webhook_deliveries::table.of($tx.tenant()).filter(webhook_deliveries::webhook_id.eq($webhook))
    };
}

/// Inserts a dead letter, or replaces the one at the same position, whose event was sent again.
///
/// The epoch is not part of the key, because the previous version does not know it. No two events have the same number,
/// because the sequence continues after a restore.
pub async fn insert_dead_letter(
    tx: &mut TenantTx,
    webhook: WebhookId,
    event: &StoredEvent,
    attempts: i32,
    error: &str,
) -> Result<(), DbError> {
    let (file_id, version) = event.subject.into_columns();
    let upsert = diesel::insert_into(webhook_deliveries::table)
        .values((
            webhook_deliveries::tenant_id.eq(tx.tenant()),
            webhook_deliveries::webhook_id.eq(webhook),
            webhook_deliveries::position_epoch.eq(i32::from(event.position.epoch)),
            webhook_deliveries::position_xid.eq(Xid(event.position.xid)),
            webhook_deliveries::position_n.eq(position_number(event.position)),
            webhook_deliveries::kind.eq(event.kind),
            webhook_deliveries::file_id.eq(file_id),
            webhook_deliveries::version.eq(version),
            webhook_deliveries::revision.eq(event.revision),
            webhook_deliveries::actor_id.eq(&event.actor_id),
            webhook_deliveries::event_time.eq(event.create_time),
            webhook_deliveries::state.eq(DeliveryState::Dead),
            webhook_deliveries::attempts.eq(attempts),
            webhook_deliveries::last_error.eq(error),
            webhook_deliveries::create_time.eq(now()),
            webhook_deliveries::update_time.eq(now()),
        ))
        .on_conflict((
            webhook_deliveries::tenant_id,
            webhook_deliveries::webhook_id,
            webhook_deliveries::position_xid,
            webhook_deliveries::position_n,
        ))
        .do_update()
        .set((
            webhook_deliveries::position_epoch.eq(excluded(webhook_deliveries::position_epoch)),
            webhook_deliveries::kind.eq(excluded(webhook_deliveries::kind)),
            webhook_deliveries::file_id.eq(excluded(webhook_deliveries::file_id)),
            webhook_deliveries::version.eq(excluded(webhook_deliveries::version)),
            webhook_deliveries::revision.eq(excluded(webhook_deliveries::revision)),
            webhook_deliveries::actor_id.eq(excluded(webhook_deliveries::actor_id)),
            webhook_deliveries::event_time.eq(excluded(webhook_deliveries::event_time)),
            webhook_deliveries::state.eq(excluded(webhook_deliveries::state)),
            webhook_deliveries::attempts.eq(excluded(webhook_deliveries::attempts)),
            webhook_deliveries::last_error.eq(excluded(webhook_deliveries::last_error)),
            webhook_deliveries::create_time.eq(excluded(webhook_deliveries::create_time)),
            webhook_deliveries::update_time.eq(excluded(webhook_deliveries::update_time)),
        ));
    query("insert dead letter", upsert).execute(tx.connection()?).await.map(|_| ())
}

/// Returns failed deliveries of a webhook before a position, newest event first.
pub async fn list(
    tx: &mut TenantTx,
    webhook: WebhookId,
    before: Option<EventPosition>,
    limit: i64,
) -> Result<Vec<Delivery>, DbError> {
    let before = before.unwrap_or(EventPosition::MAX);
    let position = (
        webhook_deliveries::position_epoch,
        webhook_deliveries::position_xid,
        webhook_deliveries::position_n,
    );
    let before = (i32::from(before.epoch), Xid(before.xid), position_number(before));
    let page = of_webhook!(tx, webhook)
        .filter(position.into_sql::<Record<(Integer, Xid8, BigInt)>>().lt(before))
        .order((
            webhook_deliveries::position_epoch.desc(),
            webhook_deliveries::position_xid.desc(),
            webhook_deliveries::position_n.desc(),
        ))
        .limit(limit)
        .select(Row::as_select());
    let rows: Vec<Row> = query("list webhook deliveries", page).load(tx.connection()?).await?;
    rows.into_iter().map(Row::into_delivery).collect()
}

/// Returns the deliveries of a webhook whose redelivery was requested, oldest first.
pub async fn list_pending(
    tx: &mut TenantTx,
    webhook: WebhookId,
    limit: i64,
) -> Result<Vec<Delivery>, DbError> {
    let page = of_webhook!(tx, webhook)
        .filter(webhook_deliveries::state.eq(literal!(DeliveryState::Waiting)))
        .order((
            webhook_deliveries::position_epoch,
            webhook_deliveries::position_xid,
            webhook_deliveries::position_n,
        ))
        .limit(limit)
        .select(Row::as_select());
    let rows: Vec<Row> = query("list pending deliveries", page).load(tx.connection()?).await?;
    rows.into_iter().map(Row::into_delivery).collect()
}

/// Sets the state of a failed delivery. Returns `None` if it does not exist.
///
/// `attempt` is the error of another attempt, and increments the number of attempts.
pub async fn set_state(
    tx: &mut TenantTx,
    webhook: WebhookId,
    position: EventPosition,
    state: DeliveryState,
    attempt: Option<&str>,
) -> Result<Option<Delivery>, DbError> {
    let delivery = of_webhook!(tx, webhook)
        .filter(webhook_deliveries::position_epoch.eq(i32::from(position.epoch)))
        .filter(webhook_deliveries::position_xid.eq(Xid(position.xid)))
        .filter(webhook_deliveries::position_n.eq(position_number(position)));
    let update = diesel::update(delivery)
        .set((
            webhook_deliveries::state.eq(state),
            webhook_deliveries::attempts.eq(webhook_deliveries::attempts + i32::from(attempt.is_some())),
            attempt.map(|error| webhook_deliveries::last_error.eq(error)),
            webhook_deliveries::update_time.eq(now()),
        ))
        .returning(Row::as_returning());
    let row: Option<Row> = query("update webhook delivery", update).first(tx.connection()?).await?;
    row.map(Row::into_delivery).transpose()
}

/// Deletes failed deliveries that are older than the given number of days. Returns their number.
pub async fn delete_expired(tx: &mut SystemTx, age_days: u32) -> Result<usize, DbError> {
    let expired = webhook_deliveries::table
        .across_tenants()
        .filter(webhook_deliveries::create_time.lt(now_minus(days(age_days))));
    query("delete expired deliveries", diesel::delete(expired)).execute(tx.connection()?).await
}
