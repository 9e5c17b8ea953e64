//! A transaction across tenants, with a role of its own that few functions use: the directory of tenants, the checks of
//! `fsck`, and what finds due work.

use diesel::{
    QueryableByName,
    sql_types::{Nullable, Text},
};
use diesel_async::{AsyncPgConnection, pooled_connection::deadpool::Object};

use super::{
    Database, DbError, WrittenRow,
    lost_commit::Evidence,
    pool::Connection,
    statement::statement,
    tenant_tx::{TransactionId, append_limits, begin_with, commit},
};
use crate::domain::ids::TenantId;

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It counts.
    Committed,
    /// It never happened.
    Aborted,
    /// The server is not done with it.
    InProgress,
}

#[derive(QueryableByName)]
struct Status {
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
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
        append_limits(&mut begin, db.statement_timeout, db.now_override());
        begin_with(&mut connection, &begin).await?;
        Ok(Self { connection: Some(connection), db, evidence: None, has_request_id: false })
    }

    /// Notes that the transaction answers a request id: a retry finds out what became of it.
    pub fn note_request_id(&mut self) {
        self.has_request_id = true;
    }

    /// Notes the number of this transaction and a row that it wrote for a tenant.
    pub(super) fn note_written(&mut self, transaction: TransactionId, tenant: TenantId, row: WrittenRow) {
        self.evidence = Some(Evidence { transaction, tenant, row: Some(row) });
    }

    /// Commits, as [`TenantTx::commit`](super::TenantTx::commit) does.
    pub async fn commit(mut self) -> Result<(), DbError> {
        let (db, evidence, has_request_id) = (self.db.clone(), self.evidence.take(), self.has_request_id);
        match (self.end().await, evidence) {
            (Err(lost), Some(evidence)) => db.resolve_commit(&evidence, has_request_id, lost).await,
            (ended, _) => ended,
        }
    }

    /// Commits. `Unavailable` leaves the outcome open.
    pub(super) async fn end(mut self) -> Result<(), DbError> {
        match self.connection.take() {
            Some(connection) => commit(connection).await,
            None => Err(DbError::corrupt("end transaction", "end of it")),
        }
    }

    /// What became of a transaction whose commit was sent and never answered.
    pub async fn outcome(&mut self, id: &TransactionId) -> Result<Outcome, DbError> {
        let row: Status = statement("ask for the outcome", "SELECT pg_xact_status({}::xid8)::text AS status")
            .bind::<Text, _>(id.0.clone())
            .one(self.connection()?)
            .await?;
        Ok(match row.status.as_deref() {
            Some("committed") => Outcome::Committed,
            Some("in progress") => Outcome::InProgress,
            _ => Outcome::Aborted,
        })
    }

    pub(super) fn connection(&mut self) -> Result<&mut AsyncPgConnection, DbError> {
        self.connection.as_deref_mut().ok_or_else(|| DbError::corrupt("use transaction", "end of it"))
    }
}

impl Drop for SystemTx {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}
