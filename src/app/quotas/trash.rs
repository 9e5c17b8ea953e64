//! Adds the bytes in the trash to the error of an exceeded quota, and hides the usage of other users from it.

use crate::{
    app::{App, Error, UserQuotaShortage},
    db::{Viewer, quotas},
    domain::caller::{Caller, Role},
};

/// Adds the bytes of files in the trash that the caller may see to the error of an exceeded quota, if purging
/// them would free bytes. Removes the usage of another user, unless the caller is an admin. Returns other outcomes unchanged. Every use case that stores bytes passes its outcome
/// through this function.
pub(in crate::app) async fn explain_shortage<T>(
    app: &App,
    caller: &Caller,
    outcome: Result<T, Error>,
) -> Result<T, Error> {
    match outcome {
        Err(Error::QuotaBytes(mut shortage))
            if shortage.trash_bytes.is_none() && caller.tenant.policy.trash.counts_against_quota =>
        {
            match sum_trash(app, caller).await {
                Ok(bytes) => shortage.trash_bytes = Some(bytes),
                // The caller still gets the other figures.
                Err(error) => tracing::warn!(%error, "failed to sum up trash"),
            }
            Err(Error::QuotaBytes(shortage))
        }
        outcome => outcome.map_err(|error| hide_usage(caller, error)),
    }
}

/// Removes the usage of another user from an error, unless the caller is an admin. The owner of a file can be another
/// user than the caller who changes it.
pub(super) fn hide_usage(caller: &Caller, error: Error) -> Error {
    match error {
        Error::UserQuota(shortage) if caller.role < Role::Admin && shortage.user_id != caller.actor.id => {
            Error::UserQuota(Box::new(UserQuotaShortage { usage: None, ..*shortage }))
        }
        error => error,
    }
}

async fn sum_trash(app: &App, caller: &Caller) -> Result<i64, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let bytes = quotas::sum_trash(&mut tx).await;
    Ok(tx.finish(bytes).await?)
}
