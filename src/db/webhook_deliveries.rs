//! Failed deliveries of events to webhooks: dead letters and redeliveries.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    event_stream::StoredEvent,
    events::{EventKind, parse_position},
    sql::statement,
    webhooks::position_number,
};
use crate::domain::{
    clock::Timestamp,
    event_position::EventPosition,
    ids::{FileId, WebhookId},
    webhook::DeliveryState,
};

const COLUMNS: &str =
    "position_xid::text AS xid, position_n, kind, file_id, version, actor_id, event_time, state, attempts,
    last_error, create_time, update_time";

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

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    xid: String,
    #[diesel(sql_type = BigInt)]
    position_n: i64,
    #[diesel(sql_type = SmallInt)]
    kind: i16,
    #[diesel(sql_type = SqlUuid)]
    file_id: Uuid,
    #[diesel(sql_type = Integer)]
    version: i32,
    #[diesel(sql_type = Text)]
    actor_id: String,
    #[diesel(sql_type = Timestamptz)]
    event_time: Timestamp,
    #[diesel(sql_type = SmallInt)]
    state: i16,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Text)]
    last_error: String,
    #[diesel(sql_type = Timestamptz)]
    create_time: Timestamp,
    #[diesel(sql_type = Timestamptz)]
    update_time: Timestamp,
}

impl Row {
    fn into_delivery(self) -> Result<Delivery, DbError> {
        const OPERATION: &str = "read webhook delivery";
        let corrupt = |what| DbError::corrupt(OPERATION, what);
        Ok(Delivery {
            event: StoredEvent {
                position: parse_position(OPERATION, &self.xid, self.position_n)?,
                kind: EventKind::from_stored(self.kind),
                file: FileId::from_uuid(self.file_id),
                version: self.version,
                actor_id: self.actor_id,
                create_time: self.event_time,
            },
            state: DeliveryState::from_number(self.state).ok_or_else(|| corrupt("state"))?,
            attempts: self.attempts,
            last_error: self.last_error,
            create_time: self.create_time,
            update_time: self.update_time,
        })
    }
}

/// Inserts a dead letter, or replaces the one at the same position.
///
/// A row at the same position is from another incarnation of the database, or from an event that was sent
/// again after the incarnation changed.
pub async fn insert_dead_letter(
    tx: &mut TenantTx,
    webhook: WebhookId,
    event: &StoredEvent,
    attempts: i32,
    error: &str,
) -> Result<(), DbError> {
    statement(
        "insert dead letter",
        "INSERT INTO webhook_deliveries (tenant_id, webhook_id, position_xid, position_n, kind, file_id, version, actor_id,
            event_time, state, attempts, last_error, create_time, update_time)
         VALUES ($1, $2, $3::xid8, $4, $5, $6, $7, $8, $9, 1, $10, $11, app.now(), app.now())
         ON CONFLICT (tenant_id, webhook_id, position_xid, position_n) DO UPDATE SET kind = excluded.kind,
            file_id = excluded.file_id, version = excluded.version, actor_id = excluded.actor_id,
            event_time = excluded.event_time, state = excluded.state, attempts = excluded.attempts,
            last_error = excluded.last_error, create_time = excluded.create_time, update_time = excluded.update_time",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(webhook.as_uuid())
    .bind::<Text, _>(event.position.xid.to_string())
    .bind::<BigInt, _>(position_number(event.position))
    .bind::<SmallInt, _>(event.kind.number())
    .bind::<SqlUuid, _>(event.file.as_uuid())
    .bind::<Integer, _>(event.version)
    .bind::<Text, _>(event.actor_id.clone())
    .bind::<Timestamptz, _>(event.create_time)
    .bind::<Integer, _>(attempts)
    .bind::<Text, _>(error.to_owned())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Returns failed deliveries of a webhook before a position, newest event first.
pub async fn list(
    tx: &mut TenantTx,
    webhook: WebhookId,
    before: Option<EventPosition>,
    limit: i64,
) -> Result<Vec<Delivery>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM webhook_deliveries
         WHERE tenant_id = $1 AND webhook_id = $2
           AND ($3::text IS NULL OR (position_xid, position_n) < ($4::text::xid8, $5))
         ORDER BY position_xid DESC, position_n DESC LIMIT $6"
    );
    let xid = before.map(|before| before.xid.to_string());
    let rows: Vec<Row> = statement("list webhook deliveries", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(webhook.as_uuid())
        .bind::<Nullable<Text>, _>(xid.clone())
        .bind::<Nullable<Text>, _>(xid)
        .bind::<Nullable<BigInt>, _>(before.map(position_number))
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(Row::into_delivery).collect()
}

/// Returns the deliveries of a webhook whose redelivery was requested, oldest first.
pub async fn list_pending(
    tx: &mut TenantTx,
    webhook: WebhookId,
    limit: i64,
) -> Result<Vec<Delivery>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM webhook_deliveries WHERE tenant_id = $1 AND webhook_id = $2 AND state = 2
         ORDER BY position_xid, position_n LIMIT $3"
    );
    let rows: Vec<Row> = statement("list pending deliveries", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(webhook.as_uuid())
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
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
    let sql = format!(
        "UPDATE webhook_deliveries SET state = $1, attempts = attempts + $2, last_error = coalesce($3, last_error),
            update_time = app.now()
         WHERE tenant_id = $4 AND webhook_id = $5 AND position_xid = $6::xid8 AND position_n = $7
         RETURNING {COLUMNS}"
    );
    let row: Option<Row> = statement("update webhook delivery", sql)
        .bind::<SmallInt, _>(state.number())
        .bind::<Integer, _>(i32::from(attempt.is_some()))
        .bind::<Nullable<Text>, _>(attempt.map(str::to_owned))
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(webhook.as_uuid())
        .bind::<Text, _>(position.xid.to_string())
        .bind::<BigInt, _>(position_number(position))
        .first(tx.connection()?)
        .await?;
    row.map(Row::into_delivery).transpose()
}

/// Deletes failed deliveries that are older than the given number of days. Returns their number.
pub async fn delete_expired(tx: &mut SystemTx, days: u32) -> Result<usize, DbError> {
    statement(
        "delete expired deliveries",
        "DELETE FROM webhook_deliveries WHERE create_time < app.now() - make_interval(days => $1)",
    )
    .bind::<Integer, _>(i32::try_from(days).unwrap_or(i32::MAX))
    .execute(tx.connection()?)
    .await
}
