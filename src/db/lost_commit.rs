//! Resolves commits whose response was lost.
//!
//! If a connection breaks after COMMIT was sent, the transaction may or may not have been committed. PostgreSQL
//! reports the outcome for a transaction id. A server that crashed may assign the id of a lost transaction to
//! another one, so the outcome "committed" is only trusted if a row that the transaction wrote exists.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    Database, DbError, DbErrorKind, TransactionOutcome, audit_entries, blobs,
    evidence::{Evidence, WrittenRow},
};
use crate::admission::Holder;

/// The time limit for looking up the outcome. It is shorter than the default deadline of a unary call, so that
/// its caller gets the result.
const WAIT_MAX: Duration = Duration::from_secs(6);

/// The first pause between two attempts. Each subsequent pause is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The maximum pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Database {
    /// Looks up the outcome of a transaction whose COMMIT failed with `lost`.
    ///
    /// # Errors
    /// Returns `lost` if the transaction was not committed, `OutcomeUnknown` if the lookup does not succeed in
    /// time.
    pub(super) async fn resolve_commit(
        &self,
        evidence: &Evidence,
        has_request_id: bool,
        lost: DbError,
    ) -> Result<(), DbError> {
        // The server reported these, so the transaction was rolled back.
        if matches!(lost.kind, DbErrorKind::Constraint(_) | DbErrorKind::Contended) {
            return Err(lost);
        }
        match timeout(WAIT_MAX, self.wait_for_outcome(evidence)).await {
            Ok(TransactionOutcome::Committed) => Ok(()),
            Ok(_) => Err(lost),
            Err(_elapsed) => Err(DbError { kind: DbErrorKind::OutcomeUnknown { has_request_id }, ..lost }),
        }
    }

    async fn wait_for_outcome(&self, evidence: &Evidence) -> TransactionOutcome {
        let mut pause = PAUSE_MIN;
        loop {
            match self.find_outcome(evidence).await {
                Ok(TransactionOutcome::InProgress) => {
                    tracing::info!("transaction of a lost COMMIT is still in progress")
                }
                Ok(outcome) => return outcome,
                Err(error) => tracing::info!(%error, "failed to look up the outcome of a lost COMMIT"),
            }
            sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn find_outcome(&self, evidence: &Evidence) -> Result<TransactionOutcome, DbError> {
        let mut tx = self.system_tx_for(Holder::of_tenant(evidence.tenant)).await?;
        let outcome = tx.transaction_outcome(&evidence.transaction).await?;
        let (tenant, transaction) = (evidence.tenant, &evidence.transaction);
        let is_written = match evidence.row {
            Some(WrittenRow::AuditEntry(time)) => {
                audit_entries::is_written(&mut tx, tenant, time, transaction).await?
            }
            Some(WrittenRow::Blob(blob)) => blobs::exists(&mut tx, tenant, blob).await?,
            None => true,
        };
        // A read-only transaction. `SystemTx::commit` would make this function call itself.
        tx.send_commit().await?;
        Ok(verified_outcome(outcome, is_written))
    }
}

/// Returns the outcome of a transaction whose id has the reported one. If its row is missing, the id is that of another
/// transaction by now.
fn verified_outcome(reported: TransactionOutcome, is_written: bool) -> TransactionOutcome {
    match reported {
        TransactionOutcome::Committed if !is_written => TransactionOutcome::Aborted,
        reported => reported,
    }
}

#[cfg(test)]
mod tests {
    use super::{TransactionOutcome::*, *};

    #[test]
    fn committed_id_counts_only_with_its_row() {
        for (reported, is_written, expected) in [
            (Committed, true, Committed),
            (Committed, false, Aborted),
            (Aborted, true, Aborted),
            (Aborted, false, Aborted),
            (InProgress, true, InProgress),
            (InProgress, false, InProgress),
        ] {
            assert_eq!(verified_outcome(reported, is_written), expected, "{reported:?} {is_written}");
        }
    }
}
