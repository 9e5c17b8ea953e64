//! Transactions across tenants, with the role `strongroom_system`. Only few functions use them: the tenant
//! directory, the checks of `fsck`, and background work that finds due rows.

use std::time::Duration;

use diesel::{
    QueryableByName,
    sql_types::{Nullable, Text},
};
use diesel_async::{AsyncPgConnection, pooled_connection::deadpool::Object};

use super::{
    DbError,
    pool::Connection,
    statement::statement,
    tenant_tx::{TransactionId, append_transaction_settings, begin_with, commit},
};
use crate::domain::clock::Timestamp;

/// The outcome of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionOutcome {
    Committed,
    Aborted,
    InProgress,
}

#[derive(QueryableByName)]
struct StatusRow {
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
}

/// A transaction across tenants.
pub struct SystemTx {
    connection: Option<Connection>,
}

impl SystemTx {
    pub(super) async fn begin(
        mut connection: Connection,
        statement_timeout: Duration,
        now: Option<Timestamp>,
    ) -> Result<Self, DbError> {
        let mut begin = "BEGIN; SELECT set_config('app.tenant_id', '', true)".to_owned();
        append_transaction_settings(&mut begin, statement_timeout, now);
        begin_with(&mut connection, &begin).await?;
        Ok(Self { connection: Some(connection) })
    }

    /// Commits the transaction. The error `Unavailable` means that the outcome is unknown.
    pub async fn commit(mut self) -> Result<(), DbError> {
        match self.connection.take() {
            Some(connection) => commit(connection).await,
            None => Err(DbError::corrupt("commit transaction", "the transaction has ended")),
        }
    }

    /// Returns the outcome of a transaction whose COMMIT got no response.
    pub async fn transaction_outcome(&mut self, id: &TransactionId) -> Result<TransactionOutcome, DbError> {
        let row: StatusRow =
            statement("get transaction outcome", "SELECT pg_xact_status({}::xid8)::text AS status")
                .bind::<Text, _>(id.0.clone())
                .one(self.connection()?)
                .await?;
        Ok(match row.status.as_deref() {
            Some("committed") => TransactionOutcome::Committed,
            Some("in progress") => TransactionOutcome::InProgress,
            _ => TransactionOutcome::Aborted,
        })
    }

    pub(super) fn connection(&mut self) -> Result<&mut AsyncPgConnection, DbError> {
        self.connection
            .as_deref_mut()
            .ok_or_else(|| DbError::corrupt("use transaction", "the transaction has ended"))
    }
}

impl Drop for SystemTx {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}
