//! The grants of visitors, and how their downloads are counted. Every count is one conditional statement, so that it is
//! exact however many processes count at once. The row of a grant is locked before that of its share.

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, NullableExpressionMethods as _, QueryDsl as _,
    Queryable, sql_types::BigInt,
};
use uuid::Uuid;

use super::{
    DbError, SystemTx, TenantTx,
    schema::{share_grants, shares},
    sql::{OfTenant as _, now, query, statement},
};
use crate::domain::{clock::Timestamp, ids::ShareId};

/// A part of a file to serve with a grant.
#[derive(Debug, Clone, Copy)]
pub struct GrantUse {
    pub id: Uuid,
    pub share: ShareId,
    pub expire_time: Timestamp,
    /// The bytes to reserve.
    pub bytes: i64,
}

/// What a use of a share counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UseKind {
    View,
    Download,
}

/// A grant with a new reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct ReservedGrant {
    /// Whether it was counted before.
    pub is_counted: bool,
    /// What the sharer has paid for it.
    pub paid_credits: i64,
}

/// The maximum of what a grant serves.
#[derive(Debug, Clone, Copy)]
pub struct GrantLimits {
    pub bytes_max: i64,
    /// The maximum number of requests.
    pub uses_max: i32,
}

/// Reserves bytes and a request of a grant, unless it then exceeds a limit. Returns `None` without a reservation.
pub async fn reserve(
    tx: &mut TenantTx,
    used: &GrantUse,
    limits: GrantLimits,
) -> Result<Option<ReservedGrant>, DbError> {
    let insert = diesel::insert_into(share_grants::table)
        .values((
            share_grants::tenant_id.eq(tx.tenant()),
            share_grants::id.eq(used.id),
            share_grants::share_id.eq(used.share),
            share_grants::expire_time.eq(used.expire_time),
        ))
        .on_conflict_do_nothing();
    query("insert share grant", insert).execute(tx.connection()?).await?;
    let grant = share_grants::table
        .of(tx.tenant())
        .filter(share_grants::id.eq(used.id))
        .filter((share_grants::served_bytes + used.bytes).le(limits.bytes_max))
        .filter(share_grants::use_count.lt(limits.uses_max));
    let reserve = diesel::update(grant)
        .set((
            share_grants::served_bytes.eq(share_grants::served_bytes + used.bytes),
            share_grants::use_count.eq(share_grants::use_count + 1),
        ))
        .returning((share_grants::is_counted, share_grants::paid_credits));
    query("reserve bytes of share grant", reserve).first(tx.connection()?).await
}

/// Counts a grant, unless the share is closed, has another secret, or has served as many downloads as it may. Returns
/// whether it was counted.
pub async fn count(
    tx: &mut TenantTx,
    used: &GrantUse,
    secret_revision: i64,
    kind: UseKind,
) -> Result<bool, DbError> {
    let open = shares::table
        .of(tx.tenant())
        .filter(shares::id.eq(used.share))
        .filter(shares::secret_revision.eq(secret_revision))
        .filter(shares::revoke_time.is_null())
        .filter(shares::expire_time.is_null().or(shares::expire_time.gt(now().nullable())));
    let counted = match kind {
        UseKind::Download => {
            let remaining = shares::max_downloads
                .is_null()
                .or(shares::download_count.nullable().lt(shares::max_downloads));
            let update = diesel::update(open.filter(remaining)).set((
                shares::download_count.eq(shares::download_count + 1),
                shares::last_access_time.eq(now().nullable()),
            ));
            query("count download of share", update).execute(tx.connection()?).await?
        }
        UseKind::View => {
            let update = diesel::update(open).set((
                shares::view_count.eq(shares::view_count + 1),
                shares::last_access_time.eq(now().nullable()),
            ));
            query("count view of share", update).execute(tx.connection()?).await?
        }
    };
    if counted == 0 {
        return Ok(false);
    }
    let grant = share_grants::table.of(tx.tenant()).filter(share_grants::id.eq(used.id));
    let update = diesel::update(grant).set(share_grants::is_counted.eq(true));
    query("mark share grant as counted", update).execute(tx.connection()?).await?;
    Ok(true)
}

/// Records what the sharer has paid for a grant.
pub async fn set_paid(tx: &mut TenantTx, id: Uuid, credits: i64) -> Result<(), DbError> {
    let grant = share_grants::table.of(tx.tenant()).filter(share_grants::id.eq(id));
    let update = diesel::update(grant).set(share_grants::paid_credits.eq(credits));
    query("set credits of share grant", update).execute(tx.connection()?).await.map(|_| ())
}

/// Releases reserved bytes that were not sent.
pub async fn release(tx: &mut TenantTx, id: Uuid, bytes: i64) -> Result<(), DbError> {
    let grant = share_grants::table.of(tx.tenant()).filter(share_grants::id.eq(id));
    let update = diesel::update(grant).set(share_grants::served_bytes.eq(share_grants::served_bytes - bytes));
    query("release bytes of share grant", update).execute(tx.connection()?).await.map(|_| ())
}

/// Releases the reservation of a request that sent no byte, and uncounts the grant if no other request has sent or may
/// send any. Returns what the sharer has paid for a grant that was uncounted, which must be refunded.
pub async fn undo(tx: &mut TenantTx, used: &GrantUse, kind: UseKind) -> Result<i64, DbError> {
    let only_use = share_grants::table
        .of(tx.tenant())
        .filter(share_grants::id.eq(used.id))
        .filter(share_grants::is_counted)
        .filter(share_grants::served_bytes.eq(used.bytes));
    let update = diesel::update(only_use)
        .set((share_grants::served_bytes.eq(0_i64), share_grants::is_counted.eq(false)))
        .returning(share_grants::paid_credits);
    let uncounted: Option<i64> = query("uncount share grant", update).first(tx.connection()?).await?;
    let Some(paid_credits) = uncounted else {
        return release(tx, used.id, used.bytes).await.map(|()| 0);
    };
    let share = shares::table.of(tx.tenant()).filter(shares::id.eq(used.share));
    match kind {
        UseKind::Download => {
            let share = share.filter(shares::download_count.gt(0_i64));
            let update = diesel::update(share).set(shares::download_count.eq(shares::download_count - 1));
            query("uncount download of share", update).execute(tx.connection()?).await
        }
        UseKind::View => {
            let share = share.filter(shares::view_count.gt(0_i64));
            let update = diesel::update(share).set(shares::view_count.eq(shares::view_count - 1));
            query("uncount view of share", update).execute(tx.connection()?).await
        }
    }
    .map(|_| paid_credits)
}

/// Deletes up to `limit` grants that have expired. Returns their number.
pub async fn delete_expired(tx: &mut SystemTx, limit: i64) -> Result<usize, DbError> {
    // A limited deletion.
    statement(
        "delete expired share grants",
        "DELETE FROM share_grants AS g USING (
            SELECT e.tenant_id, e.id FROM share_grants AS e WHERE e.expire_time < app.now()
            ORDER BY e.expire_time LIMIT $1) AS expired
         WHERE g.tenant_id = expired.tenant_id AND g.id = expired.id",
    )
    .bind::<BigInt, _>(limit)
    .execute(tx.connection()?)
    .await
}
