//! Credits: the balances and the ledger. Each statement that changes a balance also inserts its entry, so a balance
//! always equals the sum of the entries, in every snapshot.

use diesel::{
    ExpressionMethods as _, IntoSql as _, QueryDsl as _, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    sql_types::{BigInt, Record, SmallInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::{credit_balances, credit_entries},
    sql::{OfTenant as _, Operation, SqlText, query, statement},
};
use crate::domain::{
    caller::{Actor, ActorKind},
    clock::Timestamp,
    credits::{BALANCE_MAX, CreditBalance, CreditEntry},
};

/// A new entry of a ledger.
#[derive(Debug, Clone, Copy)]
pub struct NewCreditEntry<'a> {
    pub user_id: &'a str,
    /// The number of credits, always positive.
    pub amount: i64,
    pub reason: &'a str,
    pub reference: &'a str,
    pub actor: &'a Actor,
}

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = credit_entries, check_for_backend(diesel::pg::Pg))]
struct EntryRow {
    user_id: String,
    number: i64,
    amount: i64,
    balance_after: i64,
    reason: String,
    reference: String,
    actor_kind: ActorKind,
    actor_id: String,
    create_time: Timestamp,
}

impl From<EntryRow> for CreditEntry {
    fn from(row: EntryRow) -> Self {
        Self {
            user_id: row.user_id,
            number: row.number,
            amount: row.amount,
            balance_after: row.balance_after,
            reason: row.reason,
            reference: row.reference,
            actor: Actor { kind: row.actor_kind, id: row.actor_id },
            create_time: row.create_time,
        }
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = credit_balances, check_for_backend(diesel::pg::Pg))]
struct BalanceRow {
    user_id: String,
    balance: i64,
    entry_count: i64,
    update_time: Timestamp,
}

impl From<BalanceRow> for CreditBalance {
    fn from(row: BalanceRow) -> Self {
        let BalanceRow { user_id, balance, entry_count, update_time } = row;
        Self { user_id, balance, entry_count, update_time: Some(update_time) }
    }
}

/// Adds credits to a user, and returns the entry. Returns `None`, and changes nothing, if the balance would exceed
/// its maximum.
pub async fn add(tx: &mut TenantTx, new: NewCreditEntry<'_>) -> Result<Option<CreditEntry>, DbError> {
    // Two changes in one statement.
    let add = statement(
        "add credits",
        "WITH changed AS (
             INSERT INTO credit_balances AS b (tenant_id, user_id, balance, entry_count, update_time)
             VALUES ($1, $2, $3, 1, app.now())
             ON CONFLICT (tenant_id, user_id) DO UPDATE
             SET balance = b.balance + $3, entry_count = b.entry_count + 1, update_time = app.now()
             WHERE b.balance + $3 <= $8
             RETURNING b.balance, b.entry_count
         )
         INSERT INTO credit_entries (tenant_id, user_id, number, amount, balance_after, reason, reference, actor_kind,
                                     actor_id, create_time)
         SELECT $1, $2, c.entry_count, $3, c.balance, $4, $5, $6, $7, app.now() FROM changed AS c
         RETURNING user_id, number, amount, balance_after, reason, reference, actor_kind, actor_id, create_time",
    );
    let row: Option<EntryRow> =
        bind_entry(tx, add, new).bind::<BigInt, _>(BALANCE_MAX).first(tx.connection()?).await?;
    Ok(row.map(CreditEntry::from))
}

/// Deducts credits of a user, and returns the entry. Returns `None`, and changes nothing, if the user has too few.
pub async fn deduct(tx: &mut TenantTx, new: NewCreditEntry<'_>) -> Result<Option<CreditEntry>, DbError> {
    // Two changes in one statement.
    let deduct = statement(
        "deduct credits",
        "WITH changed AS (
             UPDATE credit_balances SET balance = balance - $3, entry_count = entry_count + 1, update_time = app.now()
             WHERE tenant_id = $1 AND user_id = $2 AND balance >= $3
             RETURNING balance, entry_count
         )
         INSERT INTO credit_entries (tenant_id, user_id, number, amount, balance_after, reason, reference, actor_kind,
                                     actor_id, create_time)
         SELECT $1, $2, c.entry_count, -$3, c.balance, $4, $5, $6, $7, app.now() FROM changed AS c
         RETURNING user_id, number, amount, balance_after, reason, reference, actor_kind, actor_id, create_time",
    );
    let row: Option<EntryRow> = bind_entry(tx, deduct, new).first(tx.connection()?).await?;
    Ok(row.map(CreditEntry::from))
}

fn bind_entry(tx: &TenantTx, to: Operation<SqlText>, new: NewCreditEntry<'_>) -> Operation<SqlText> {
    to.bind::<SqlUuid, _>(tx.tenant())
        .bind::<Text, _>(new.user_id.to_owned())
        .bind::<BigInt, _>(new.amount)
        .bind::<Text, _>(new.reason.to_owned())
        .bind::<Text, _>(new.reference.to_owned())
        .bind::<SmallInt, _>(new.actor.kind)
        .bind::<Text, _>(new.actor.id.clone())
}

/// Returns the balance of a user, or `None` if the user has no entries.
pub async fn get(tx: &mut TenantTx, user_id: &str) -> Result<Option<CreditBalance>, DbError> {
    let balance = credit_balances::table
        .of(tx.tenant())
        .filter(credit_balances::user_id.eq(user_id))
        .select(BalanceRow::as_select());
    let row: Option<BalanceRow> = query("read credits", balance).first(tx.connection()?).await?;
    Ok(row.map(CreditBalance::from))
}

/// Returns the balance of a user, and locks it until the transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, user_id: &str) -> Result<Option<CreditBalance>, DbError> {
    let balance = credit_balances::table
        .of(tx.tenant())
        .filter(credit_balances::user_id.eq(user_id))
        .select(BalanceRow::as_select())
        .for_update();
    let row: Option<BalanceRow> = query("lock credits", balance).first(tx.connection()?).await?;
    Ok(row.map(CreditBalance::from))
}

/// Returns the entries of a user before a number, the newest first.
pub async fn list_entries(
    tx: &mut TenantTx,
    user_id: &str,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<CreditEntry>, DbError> {
    let page = credit_entries::table
        .of(tx.tenant())
        .filter(credit_entries::user_id.eq(user_id))
        .filter(credit_entries::number.lt(before.unwrap_or(i64::MAX)))
        .order(credit_entries::number.desc())
        .limit(limit)
        .select(EntryRow::as_select());
    let rows: Vec<EntryRow> = query("list credit entries", page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(CreditEntry::from).collect())
}

/// Returns the entries of all users after an entry, ordered by user and number.
pub async fn list_after(
    tx: &mut TenantTx,
    after: Option<&CreditEntry>,
    limit: i64,
) -> Result<Vec<CreditEntry>, DbError> {
    let position = (credit_entries::user_id, credit_entries::number);
    let after = after.map_or((String::new(), 0), |entry| (entry.user_id.clone(), entry.number));
    let page = credit_entries::table
        .of(tx.tenant())
        .filter(position.into_sql::<Record<(Text, BigInt)>>().gt(after))
        .order(position)
        .limit(limit)
        .select(EntryRow::as_select());
    let rows: Vec<EntryRow> = query("list exported credit entries", page).load(tx.connection()?).await?;
    Ok(rows.into_iter().map(CreditEntry::from).collect())
}
