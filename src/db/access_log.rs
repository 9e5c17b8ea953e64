//! The access log. Entries are written in the transaction that decides about the attempt.

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, Queryable, Selectable, SelectableHelper as _,
    sql_types::{
        Array, BigInt, Bool, Integer, Nullable, Record, SmallInt, Text, Timestamptz, Uuid as SqlUuid,
    },
};

use super::{
    DbError, TenantTx,
    schema::access_log,
    sql::{OfTenant as _, query, statement},
};
use crate::domain::{
    access_log::{AccessAction, AccessEntry, AccessPosition, AccessSubject, ClientOrigin, StoredAccess},
    caller::{Actor, ActorKind, Origin},
    clock::Timestamp,
    ids::{FileId, ShareId},
};

/// Inserts entries with the time of the transaction.
pub async fn insert(tx: &mut TenantTx, entries: &[AccessEntry]) -> Result<(), DbError> {
    let texts = |pick: fn(&AccessEntry) -> &str| {
        entries.iter().map(|entry| pick(entry).to_owned()).collect::<Vec<String>>()
    };
    // An `unnest` batch.
    statement(
        "insert access log entries",
        "INSERT INTO access_log (tenant_id, create_time, file_id, version, share_id, actor_kind, actor_id, call_id,
            address, user_agent, action, is_granted, denial_reason, purpose)
         SELECT $1, app.now(), n.file_id, n.version, n.share_id, n.actor_kind, n.actor_id, n.call_id,
            n.address, n.user_agent, n.action, n.is_granted, n.denial_reason, n.purpose
         FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
            AS n (file_id, version, share_id, actor_kind, actor_id, call_id, address, user_agent, action, is_granted,
                denial_reason, purpose)",
    )
    .bind::<SqlUuid, _>(tx.tenant())
    .bind::<Array<SqlUuid>, _>(entries.iter().map(|entry| entry.file).collect::<Vec<_>>())
    .bind::<Array<Nullable<Integer>>, _>(entries.iter().map(|entry| entry.version).collect::<Vec<_>>())
    .bind::<Array<Nullable<SqlUuid>>, _>(entries.iter().map(|entry| entry.share).collect::<Vec<_>>())
    .bind::<Array<Nullable<SmallInt>>, _>(
        entries.iter().map(|entry| entry.actor.as_ref().map(|actor| actor.kind)).collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(texts(|entry| entry.actor.as_ref().map_or("", |actor| &actor.id)))
    .bind::<Array<Text>, _>(texts(|entry| &entry.client.origin.call_id))
    .bind::<Array<Text>, _>(texts(|entry| &entry.client.origin.address))
    .bind::<Array<Text>, _>(texts(|entry| &entry.client.user_agent))
    .bind::<Array<SmallInt>, _>(entries.iter().map(|entry| entry.action).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(
        entries.iter().map(|entry| entry.denial_reason.is_none()).collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(texts(|entry| entry.denial_reason.as_deref().unwrap_or_default()))
    .bind::<Array<Text>, _>(texts(|entry| &entry.client.purpose))
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = access_log, check_for_backend(diesel::pg::Pg))]
struct Row {
    create_time: Timestamp,
    n: i64,
    file_id: FileId,
    version: Option<i32>,
    share_id: Option<ShareId>,
    actor_kind: Option<ActorKind>,
    actor_id: String,
    call_id: String,
    address: String,
    user_agent: String,
    action: AccessAction,
    is_granted: bool,
    denial_reason: String,
    purpose: String,
}

impl From<Row> for StoredAccess {
    fn from(row: Row) -> Self {
        Self {
            position: AccessPosition { create_time: row.create_time, n: row.n },
            entry: AccessEntry {
                file: row.file_id,
                version: row.version,
                share: row.share_id,
                actor: row.actor_kind.map(|kind| Actor { kind, id: row.actor_id }),
                client: ClientOrigin {
                    origin: Origin { call_id: row.call_id, address: row.address },
                    user_agent: row.user_agent,
                    purpose: row.purpose,
                },
                action: row.action,
                denial_reason: (!row.is_granted).then_some(row.denial_reason),
            },
        }
    }
}

/// The part of the log to read: attempts from `start_time` and before `end`, the newest first.
#[derive(Debug, Clone, Copy)]
pub struct AccessRange {
    pub start_time: Timestamp,
    pub end: AccessPosition,
}

/// Returns attempts in a range, the newest first. The caller has checked that the viewer may read them.
pub async fn list(
    tx: &mut TenantTx,
    subject: AccessSubject,
    range: AccessRange,
    limit: i64,
) -> Result<Vec<StoredAccess>, DbError> {
    let position = (access_log::create_time, access_log::n).into_sql::<Record<(Timestamptz, BigInt)>>();
    let AccessRange { start_time, end } = range;
    let rows = access_log::table
        .of(tx.tenant())
        .filter(access_log::create_time.ge(start_time))
        .filter(position.lt((end.create_time, end.n)))
        .order((access_log::create_time.desc(), access_log::n.desc()))
        .limit(limit)
        .select(Row::as_select());
    let rows: Vec<Row> = match subject {
        AccessSubject::Share(share) => {
            let of_share = rows.filter(access_log::share_id.eq(share));
            query("list access to share", of_share).load(tx.connection()?).await?
        }
        AccessSubject::File(file) => {
            let of_file = rows.filter(access_log::file_id.eq(file));
            query("list access to file", of_file).load(tx.connection()?).await?
        }
    };
    Ok(rows.into_iter().map(StoredAccess::from).collect())
}
