//! The identity of the database, and the owner markers that it wrote to its stores. See
//! [`crate::domain::store_owner`].

use diesel::{
    ExpressionMethods as _, QueryDsl as _, Queryable, QueryableByName, Selectable, SelectableHelper as _,
    sql_types::{Text, Timestamptz, Uuid as SqlUuid},
};
use uuid::Uuid;

use super::{
    DbError, SystemTx,
    schema::store_beats,
    sql::{now, query, statement},
};
use crate::domain::{
    clock::Timestamp,
    ids::InstallationId,
    store_owner::{DatabaseIdentity, OwnerBeat},
};

#[derive(QueryableByName)]
struct IdentityRow {
    #[diesel(sql_type = SqlUuid)]
    id: InstallationId,
    #[diesel(sql_type = Text)]
    incarnation: String,
    #[diesel(sql_type = Timestamptz)]
    server_start_time: Timestamp,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = store_beats, check_for_backend(diesel::pg::Pg))]
struct BeatRow {
    epoch: i64,
    beat: i64,
    token: Uuid,
}

impl From<BeatRow> for OwnerBeat {
    fn from(BeatRow { epoch, beat, token }: BeatRow) -> Self {
        Self { epoch, beat, token }
    }
}

/// Returns the identity of the database. Fails on a server in recovery.
pub async fn get_identity(tx: &mut SystemTx) -> Result<DatabaseIdentity, DbError> {
    // Functions of the server.
    let row: IdentityRow = statement(
        "read database identity",
        "SELECT id, app.event_incarnation() AS incarnation, pg_postmaster_start_time() AS server_start_time
         FROM installations",
    )
    .one(tx.connection()?)
    .await?;
    let IdentityRow { id, incarnation, server_start_time } = row;
    Ok(DatabaseIdentity { installation_id: id, incarnation, server_start_time })
}

/// Returns the newest beat of a store, or `None` if this database never wrote a marker to it.
pub async fn find_newest(tx: &mut SystemTx, provider: &str) -> Result<Option<OwnerBeat>, DbError> {
    let newest = store_beats::table
        .filter(store_beats::provider.eq(provider))
        .order((store_beats::epoch.desc(), store_beats::beat.desc()))
        .limit(1)
        .select(BeatRow::as_select());
    let row: Option<BeatRow> = query("find newest store beat", newest).first(tx.connection()?).await?;
    Ok(row.map(OwnerBeat::from))
}

/// Returns the time of the newest beat of a store, or `None` if this database never wrote a marker to it.
pub async fn find_newest_time(tx: &mut SystemTx, provider: &str) -> Result<Option<Timestamp>, DbError> {
    let newest = store_beats::table
        .filter(store_beats::provider.eq(provider))
        .order((store_beats::epoch.desc(), store_beats::beat.desc()))
        .limit(1)
        .select(store_beats::create_time);
    query("find time of newest store beat", newest).first(tx.connection()?).await
}

/// Returns the provider for which this database recorded a beat, or `None` if it did not. The token of a beat is
/// random, so no two providers have the same one.
pub async fn find_provider(tx: &mut SystemTx, beat: &OwnerBeat) -> Result<Option<String>, DbError> {
    let recorded = store_beats::table
        .filter(store_beats::epoch.eq(beat.epoch))
        .filter(store_beats::beat.eq(beat.beat))
        .filter(store_beats::token.eq(beat.token))
        .select(store_beats::provider);
    query("find store beat", recorded).first(tx.connection()?).await
}

/// Records a beat whose marker will be written. Returns false if another process recorded a beat with this
/// number.
pub async fn insert(tx: &mut SystemTx, provider: &str, beat: &OwnerBeat) -> Result<bool, DbError> {
    let insert = diesel::insert_into(store_beats::table)
        .values((
            store_beats::provider.eq(provider),
            store_beats::epoch.eq(beat.epoch),
            store_beats::beat.eq(beat.beat),
            store_beats::token.eq(beat.token),
            store_beats::create_time.eq(now()),
        ))
        .on_conflict_do_nothing();
    query("insert store beat", insert).execute(tx.connection()?).await.map(|inserted| inserted > 0)
}

/// Deletes the beats of an epoch that precede `beat` by `kept` or more. Those of earlier epochs remain: a
/// store whose directory was not mounted for a while has a marker of one.
pub async fn delete_old(
    tx: &mut SystemTx,
    provider: &str,
    beat: &OwnerBeat,
    kept: i64,
) -> Result<(), DbError> {
    let old = diesel::delete(store_beats::table)
        .filter(store_beats::provider.eq(provider))
        .filter(store_beats::epoch.eq(beat.epoch))
        .filter(store_beats::beat.le(beat.beat.saturating_sub(kept)));
    query("delete old store beats", old).execute(tx.connection()?).await.map(|_| ())
}
