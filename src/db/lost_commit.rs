//! Resolves commits whose response was lost.
//!
//! A connection that breaks after COMMIT was sent says nothing about the transaction: it may have committed or not.
//! PostgreSQL knows the outcome by the number of the transaction. A server that crashed may give the number of a lost
//! transaction to another one, so "committed" counts only together with a row that the transaction wrote.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Database, DbError, DbErrorKind, Outcome, TransactionId, audit_entries, blobs};
use crate::domain::{
    clock::Timestamp,
    ids::{BlobId, TenantId},
};

/// How long the outcome is looked for. Less than the default deadline of a unary call, so that its caller learns the
/// outcome.
const WAIT_MAX: Duration = Duration::from_secs(6);

/// The first pause between two attempts. Each following one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A row that exists only if the transaction has committed.
#[derive(Debug, Clone, Copy)]
pub enum WrittenRow {
    /// Its audit entry of this time. Every mutation writes one.
    AuditEntry(Timestamp),
    /// The blob of an upload.
    Blob(BlobId),
}

/// The knowledge about a transaction that its commit can be checked with.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    pub(super) transaction: TransactionId,
    pub(super) tenant: TenantId,
    /// Absent for a transaction that wrote nothing that its caller must know of.
    pub(super) row: Option<WrittenRow>,
}

impl Database {
    /// Converts the error of a COMMIT into the outcome of the transaction.
    ///
    /// # Errors
    /// `lost` if the transaction was not committed; `OutcomeUnknown` if the database cannot be asked in time.
    pub(super) async fn resolve_commit(
        &self,
        evidence: &Evidence,
        has_request_id: bool,
        lost: DbError,
    ) -> Result<(), DbError> {
        // These come from the server, so the transaction was rolled back.
        if matches!(lost.kind, DbErrorKind::Constraint(_) | DbErrorKind::Contended) {
            return Err(lost);
        }
        match timeout(WAIT_MAX, self.ask_until_known(evidence)).await {
            Ok(Outcome::Committed) => Ok(()),
            Ok(_) => Err(lost),
            Err(_elapsed) => Err(DbError { kind: DbErrorKind::OutcomeUnknown { has_request_id }, ..lost }),
        }
    }

    async fn ask_until_known(&self, evidence: &Evidence) -> Outcome {
        let mut pause = PAUSE_MIN;
        loop {
            match self.outcome(evidence).await {
                Ok(Outcome::InProgress) => tracing::info!("lost commit is still in progress"),
                Ok(outcome) => return outcome,
                Err(error) => tracing::info!(%error, "failed to read the outcome of a lost commit"),
            }
            sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn outcome(&self, evidence: &Evidence) -> Result<Outcome, DbError> {
        let mut tx = self.system_tx().await?;
        let outcome = tx.outcome(&evidence.transaction).await?;
        let (tenant, transaction) = (evidence.tenant, &evidence.transaction);
        let is_written = match evidence.row {
            Some(WrittenRow::AuditEntry(time)) => {
                audit_entries::is_written(&mut tx, tenant, time, transaction).await?
            }
            Some(WrittenRow::Blob(blob)) => blobs::exists(&mut tx, tenant, blob).await?,
            None => true,
        };
        // It wrote nothing. Committing through `SystemTx` would make this function call itself.
        tx.end().await?;
        Ok(if outcome == Outcome::Committed && !is_written { Outcome::Aborted } else { outcome })
    }
}
