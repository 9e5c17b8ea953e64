//! Transactions across tenants, with the role `strongroom_system`. Only few functions use them: the tenant
//! directory, the checks of `fsck`, and background work that finds due rows.

use diesel_async::AsyncPgConnection;

use super::{
    Database, DbError,
    evidence::{Evidence, TransactionId, WrittenRow},
    pool::Connection,
    sql::{clock_timestamp, current_setting, pg_xact_status, query},
    tenant_tx::{append_transaction_settings, begin_with, commit},
};
use crate::domain::{clock::Timestamp, ids::TenantId};

/// The outcome of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionOutcome {
    Committed,
    Aborted,
    InProgress,
}

/// A transaction across tenants.
pub struct SystemTx {
    connection: Option<Connection>,
    db: Database,
    evidence: Option<Evidence>,
    has_request_id: bool,
}

impl SystemTx {
    pub(super) async fn begin(db: Database, mut connection: Connection) -> Result<Self, DbError> {
        let mut begin = "BEGIN; SELECT set_config('app.tenant_id', '', true)".to_owned();
        append_transaction_settings(&mut begin, db.statement_timeout, db.now_override());
        begin_with(&mut connection, &begin).await?;
        Ok(Self { connection: Some(connection), db, evidence: None, has_request_id: false })
    }

    /// Notes that the transaction has a request id, so that a retry finds its outcome.
    pub fn note_request_id(&mut self) {
        self.has_request_id = true;
    }

    /// Notes the id of this transaction and a row that it wrote for a tenant.
    pub(super) fn note_written(&mut self, transaction: TransactionId, tenant: TenantId, row: WrittenRow) {
        self.evidence = Some(Evidence { transaction, tenant, row: Some(row) });
    }

    /// Commits the transaction, as [`TenantTx::commit`](super::TenantTx::commit) does.
    pub async fn commit(mut self) -> Result<(), DbError> {
        let (db, evidence, has_request_id) = (self.db.clone(), self.evidence.take(), self.has_request_id);
        match (self.send_commit().await, evidence) {
            (Err(lost), Some(evidence)) => db.resolve_commit(&evidence, has_request_id, lost).await,
            (ended, _) => ended,
        }
    }

    /// Sends COMMIT. After `Unavailable` the outcome is unknown.
    pub(super) async fn send_commit(mut self) -> Result<(), DbError> {
        match self.connection.take() {
            Some(connection) => commit(connection).await,
            None => Err(DbError::corrupt("commit transaction", "the transaction has ended")),
        }
    }

    /// Returns the current time by the database's clock, also under a test clock.
    pub(super) async fn wall_clock_time(&mut self) -> Result<Timestamp, DbError> {
        query("measure the clock", diesel::select(clock_timestamp())).one(self.connection()?).await
    }

    /// Returns whether the transaction rejects writes.
    pub(super) async fn is_read_only(&mut self) -> Result<bool, DbError> {
        let setting = diesel::select(current_setting("transaction_read_only"));
        let setting: String = query("check for writes", setting).one(self.connection()?).await?;
        Ok(setting == "on")
    }

    /// Returns the outcome of a transaction whose COMMIT got no response.
    pub async fn transaction_outcome(&mut self, id: &TransactionId) -> Result<TransactionOutcome, DbError> {
        let status = diesel::select(pg_xact_status(id.0));
        let status: Option<String> = query("get transaction outcome", status).one(self.connection()?).await?;
        Ok(match status.as_deref() {
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
            connection.discard();
        }
    }
}
