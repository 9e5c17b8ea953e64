//! Transactions that can access the rows of one tenant only.
//!
//! BEGIN and the context settings are sent in one tracked round trip, so that cancellation cannot leave a
//! transaction without its tenant context. Strings from callers are hex-encoded, so none is spliced into SQL.
//! A transaction that is dropped before `commit` removes its connection from the pool and closes it: the
//! server rolls back immediately and releases all locks.

use std::{fmt::Write as _, time::Duration};

use diesel_async::{AnsiTransactionManager, AsyncPgConnection, TransactionManager};
use serde::{Deserialize, Serialize};
use tracing::{Instrument as _, info_span};

use super::{
    Database, DbError,
    evidence::{Evidence, TransactionId, WrittenRow},
    pool::Connection,
    sql::{now, pg_current_xact_id, query},
};
use crate::{
    admission::{CallerKey, Holder},
    domain::{
        caller::{Caller, Role},
        clock::Timestamp,
        event_position::EventPosition,
        ids::TenantId,
        policy::WriteRule,
    },
};

/// The identity that row-level security compares with the owner, the audience and the readers of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Viewer {
    user_id: String,
    audience_min: i16,
    principals: Vec<String>,
}

/// The audiences of files: those visible to the owner and admins only, to managers, and to everyone in the
/// tenant.
pub(super) const AUDIENCES: [i16; 3] = [1, 2, 3];

impl Viewer {
    /// Creates the viewer for a caller, from its role, its id and its groups.
    pub fn from_caller(caller: &Caller) -> Self {
        let audience_min = match caller.role {
            Role::Admin => AUDIENCES[0],
            Role::Manager => AUDIENCES[1],
            Role::Member => AUDIENCES[2],
        };
        Self { user_id: caller.actor.id.clone(), audience_min, principals: caller.principals() }
    }

    /// Creates the viewer for commits and jobs, which see all files of the tenant.
    pub fn system() -> Self {
        Self { user_id: String::new(), audience_min: AUDIENCES[0], principals: Vec::new() }
    }

    /// Returns whether the viewer may change files that others own, under a policy with this rule.
    pub fn can_write_all(&self, rule: WriteRule) -> bool {
        self.audience_min == AUDIENCES[0] || rule == WriteRule::Members
    }

    /// Returns the holder of connections for this viewer.
    pub(super) fn holder(&self, tenant: TenantId) -> Holder {
        Holder::new(tenant, CallerKey::of_user(&self.user_id))
    }

    pub(super) fn user_id(&self) -> &str {
        &self.user_id
    }

    pub(super) fn audience_min(&self) -> i16 {
        self.audience_min
    }

    pub(super) fn principals(&self) -> &[String] {
        &self.principals
    }
}

/// A transaction of one tenant.
pub struct TenantTx {
    connection: Option<Connection>,
    tenant: TenantId,
    last_event: Option<EventPosition>,
    db: Database,
    evidence: Option<Evidence>,
    has_request_id: bool,
}

impl TenantTx {
    pub(super) async fn begin(
        db: Database,
        mut connection: Connection,
        tenant: TenantId,
        viewer: &Viewer,
    ) -> Result<Self, DbError> {
        let principals: Vec<String> = viewer.principals.iter().map(hex::encode).collect();
        let mut begin = format!(
            "BEGIN; SELECT set_config('app.tenant_id', '{tenant}', true), \
             set_config('app.user_id', '{}', true), set_config('app.audience_min', '{}', true), \
             set_config('app.principals', '{}', true)",
            hex::encode(&viewer.user_id),
            viewer.audience_min,
            principals.join(","),
        );
        append_transaction_settings(&mut begin, db.statement_timeout, db.now_override());
        begin_with(&mut connection, &begin).await?;
        let (last_event, evidence, has_request_id) = (None, None, false);
        Ok(Self { connection: Some(connection), tenant, last_event, db, evidence, has_request_id })
    }

    /// Returns the tenant whose rows this transaction can access.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Returns the time of this transaction, by the database's clock.
    pub async fn now(&mut self) -> Result<Timestamp, DbError> {
        query("read the clock", diesel::select(now())).one(self.connection()?).await
    }

    /// Returns the id of this transaction, for [`SystemTx::transaction_outcome`] if the response to COMMIT is
    /// lost.
    ///
    /// [`SystemTx::transaction_outcome`]: super::SystemTx::transaction_outcome
    pub async fn id(&mut self) -> Result<TransactionId, DbError> {
        let id = diesel::select(pg_current_xact_id());
        query("read transaction id", id).one(self.connection()?).await.map(TransactionId)
    }

    /// Returns the position of the last event that this transaction has inserted.
    pub fn last_event(&self) -> Option<EventPosition> {
        self.last_event
    }

    pub(super) fn note_event(&mut self, position: EventPosition) {
        self.last_event = self.last_event.max(Some(position));
    }

    /// Notes that the transaction has a request id, so that a retry finds its outcome.
    pub fn note_request_id(&mut self) {
        self.has_request_id = true;
    }

    /// Notes the id of this transaction and a row that it wrote, to look up the outcome if the response to the
    /// COMMIT is lost.
    pub fn note_written(&mut self, transaction: TransactionId, row: Option<WrittenRow>) {
        self.evidence = Some(Evidence { transaction, tenant: self.tenant, row });
    }

    /// Commits the transaction, and notifies readers of events in this process. If the response is lost, looks
    /// up the outcome in the database.
    ///
    /// # Errors
    /// Returns `OutcomeUnknown` if the outcome of a mutation cannot be found. `Unavailable` means that a
    /// mutation was not committed; for a transaction that noted nothing, the outcome is open.
    pub async fn commit(mut self) -> Result<(), DbError> {
        let (db, tenant, has_request_id) = (self.db.clone(), self.tenant, self.has_request_id);
        let (has_event, evidence) = (self.last_event.is_some(), self.evidence.take());
        if let Err(lost) = commit(self.into_connection()?).await {
            match evidence {
                Some(evidence) => db.resolve_commit(&evidence, has_request_id, lost).await?,
                None => return Err(lost),
            }
        }
        if has_event {
            db.event_hints.notify(tenant);
        }
        Ok(())
    }

    /// Rolls back the transaction, and returns the connection to the pool.
    pub async fn rollback(self) -> Result<(), DbError> {
        rollback(self.into_connection()?).await
    }

    /// Commits if `result` is `Ok`, rolls back if it is `Err`, and returns it.
    pub async fn finish<T, E: From<DbError>>(self, result: Result<T, E>) -> Result<T, E> {
        match result {
            Ok(value) => self.commit().await.map(|()| value).map_err(E::from),
            Err(error) => {
                // If the rollback fails, the connection is closed, which also rolls back.
                if let Err(rollback_error) = self.rollback().await {
                    tracing::debug!(error = %rollback_error, "failed to roll back transaction");
                }
                Err(error)
            }
        }
    }

    pub(super) fn connection(&mut self) -> Result<&mut AsyncPgConnection, DbError> {
        self.connection
            .as_deref_mut()
            .ok_or_else(|| DbError::corrupt("use transaction", "the transaction has ended"))
    }

    fn into_connection(mut self) -> Result<Connection, DbError> {
        self.connection.take().ok_or_else(|| DbError::corrupt("end transaction", "the transaction has ended"))
    }
}

impl Drop for TenantTx {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.discard();
        }
    }
}

pub(super) fn append_transaction_settings(
    begin: &mut String,
    statement_timeout: Duration,
    now: Option<Timestamp>,
) {
    // Writing to a String cannot fail.
    let _ = write!(begin, ", set_config('statement_timeout', '{}', true)", statement_timeout.as_millis());
    if let Some(now) = now {
        let _ = write!(begin, ", set_config('app.now', '{}', true)", now.to_rfc3339());
    }
}

pub(super) async fn begin_with(connection: &mut Connection, sql: &str) -> Result<(), DbError> {
    AnsiTransactionManager::begin_transaction_sql(&mut **connection, sql)
        .instrument(info_span!("sql", operation = "begin transaction"))
        .await
        .map_err(|error| DbError::from_driver("begin transaction", error))
}

pub(super) async fn commit(mut connection: Connection) -> Result<(), DbError> {
    AnsiTransactionManager::commit_transaction(&mut *connection)
        .instrument(info_span!("sql", operation = "commit transaction"))
        .await
        .map_err(|error| DbError::from_driver("commit transaction", error))
}

pub(super) async fn rollback(mut connection: Connection) -> Result<(), DbError> {
    AnsiTransactionManager::rollback_transaction(&mut *connection)
        .await
        .map_err(|error| DbError::from_driver("roll back transaction", error))
}
