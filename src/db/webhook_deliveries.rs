//! Events that could not be delivered to an endpoint: dead letters, and those that are sent once more.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    event_stream::StoredEvent,
    events::{EventKind, position},
    statement::statement,
    webhooks::number,
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

/// An event that could not be delivered.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The event.
    pub event: StoredEvent,
    /// What became of it.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: i32,
    /// Why the last attempt failed.
    pub last_error: String,
    /// When it was given up.
    pub create_time: Timestamp,
    /// When it was last tried or asked for.
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
    fn read(self) -> Result<Delivery, DbError> {
        const OPERATION: &str = "read webhook delivery";
        let bad = |what| DbError::corrupt(OPERATION, what);
        Ok(Delivery {
            event: StoredEvent {
                position: position(OPERATION, &self.xid, self.position_n)?,
                kind: EventKind::of_row(self.kind),
                file: FileId::from_uuid(self.file_id),
                version: self.version,
                actor_id: self.actor_id,
                create_time: self.event_time,
            },
            state: DeliveryState::from_number(self.state).ok_or_else(|| bad("state"))?,
            attempts: self.attempts,
            last_error: self.last_error,
            create_time: self.create_time,
            update_time: self.update_time,
        })
    }
}

/// Writes a dead letter. One at the same place is of another history of the database, or of an event that was sent again after
/// a change of history: the newer one counts.
pub async fn insert_dead(
    tx: &mut TenantTx,
    webhook: WebhookId,
    event: &StoredEvent,
    (attempts, error): (i32, &str),
) -> Result<(), DbError> {
    statement(
        "insert dead letter",
        "INSERT INTO webhook_deliveries (tenant_id, webhook_id, position_xid, position_n, kind, file_id, version, actor_id,
            event_time, state, attempts, last_error, create_time, update_time)
         VALUES ({}, {}, {}::xid8, {}, {}, {}, {}, {}, {}, 1, {}, {}, app.now(), app.now())
         ON CONFLICT (tenant_id, webhook_id, position_xid, position_n) DO UPDATE SET kind = excluded.kind,
            file_id = excluded.file_id, version = excluded.version, actor_id = excluded.actor_id,
            event_time = excluded.event_time, state = excluded.state, attempts = excluded.attempts,
            last_error = excluded.last_error, create_time = excluded.create_time, update_time = excluded.update_time",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<SqlUuid, _>(webhook.as_uuid())
    .bind::<Text, _>(event.position.xid.to_string())
    .bind::<BigInt, _>(number(event.position))
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

/// A page of an endpoint's failed deliveries, the newest event first.
pub async fn list(
    tx: &mut TenantTx,
    webhook: WebhookId,
    before: Option<EventPosition>,
    limit: i64,
) -> Result<Vec<Delivery>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM webhook_deliveries
         WHERE tenant_id = {{}} AND webhook_id = {{}}
           AND ({{}}::text IS NULL OR (position_xid, position_n) < ({{}}::text::xid8, {{}}))
         ORDER BY position_xid DESC, position_n DESC LIMIT {{}}"
    );
    let xid = before.map(|before| before.xid.to_string());
    let rows: Vec<Row> = statement("list webhook deliveries", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(webhook.as_uuid())
        .bind::<Nullable<Text>, _>(xid.clone())
        .bind::<Nullable<Text>, _>(xid)
        .bind::<Nullable<BigInt>, _>(before.map(number))
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(Row::read).collect()
}

/// The failed deliveries of an endpoint that somebody asked to send again, the oldest first.
pub async fn list_waiting(
    tx: &mut TenantTx,
    webhook: WebhookId,
    limit: i64,
) -> Result<Vec<Delivery>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM webhook_deliveries WHERE tenant_id = {{}} AND webhook_id = {{}} AND state = 2
         ORDER BY position_xid, position_n LIMIT {{}}"
    );
    let rows: Vec<Row> = statement("list waiting deliveries", sql)
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(webhook.as_uuid())
        .bind::<BigInt, _>(limit)
        .load(tx.connection()?)
        .await?;
    rows.into_iter().map(Row::read).collect()
}

/// Gives a failed delivery another state; nothing where there is none. An attempt counts, and says why it failed.
pub async fn set_state(
    tx: &mut TenantTx,
    (webhook, at): (WebhookId, EventPosition),
    state: DeliveryState,
    attempt: Option<&str>,
) -> Result<Option<Delivery>, DbError> {
    let sql = format!(
        "UPDATE webhook_deliveries SET state = {{}}, attempts = attempts + {{}}, last_error = coalesce({{}}, last_error),
            update_time = app.now()
         WHERE tenant_id = {{}} AND webhook_id = {{}} AND position_xid = {{}}::xid8 AND position_n = {{}}
         RETURNING {COLUMNS}"
    );
    let row: Option<Row> = statement("update webhook delivery", sql)
        .bind::<SmallInt, _>(state.number())
        .bind::<Integer, _>(i32::from(attempt.is_some()))
        .bind::<Nullable<Text>, _>(attempt.map(str::to_owned))
        .bind::<SqlUuid, _>(tx.tenant().as_uuid())
        .bind::<SqlUuid, _>(webhook.as_uuid())
        .bind::<Text, _>(at.xid.to_string())
        .bind::<BigInt, _>(number(at))
        .first(tx.connection()?)
        .await?;
    row.map(Row::read).transpose()
}

/// Forgets failed deliveries that are older than so many days; answers how many.
pub async fn delete_old(tx: &mut SystemTx, days: u32) -> Result<usize, DbError> {
    statement(
        "delete old deliveries",
        "DELETE FROM webhook_deliveries WHERE create_time < app.now() - make_interval(days => {})",
    )
    .bind::<Integer, _>(i32::try_from(days).unwrap_or(i32::MAX))
    .execute(tx.connection()?)
    .await
}
