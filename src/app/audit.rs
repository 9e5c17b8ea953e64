//! Audit entries of use cases.
//!
//! A change writes its entry in its own transaction. Disclosures are written in batches and are durable
//! before the first byte is sent. Denials are written in a transaction of their own; above a rate they are
//! counted and written together (see `refusals`).

use async_trait::async_trait;

use super::{App, Error, group::BatchHandler};
use crate::{
    db::{
        Database, DbError, TenantTx, Viewer, access_log,
        audit_entries::{self, AuditAction, AuditEntry},
    },
    domain::{
        access_log::AccessEntry,
        caller::Caller,
        ids::{FileId, TenantId},
    },
};

/// Returns an entry about a caller's action.
pub(super) fn new_entry(caller: &Caller, action: AuditAction) -> AuditEntry {
    AuditEntry {
        actor: caller.actor.clone(),
        actor_issuer: None,
        origin: caller.origin.clone(),
        action,
        is_allowed: true,
        file: None,
        version: None,
        details: serde_json::json!({}),
    }
}

/// Records that an action was denied, and returns the error for the caller.
pub(super) async fn record_denial(
    app: &App,
    caller: &Caller,
    action: AuditAction,
    file: Option<FileId>,
    error: Error,
) -> Error {
    let entry = AuditEntry {
        is_allowed: false,
        file,
        details: serde_json::json!({ "reason": error.to_string() }),
        ..new_entry(caller, action)
    };
    record_refusal(app, caller, entry, error).await
}

/// Records that the caller's role does not allow a method, and returns the error for the caller.
pub async fn record_denied_call(app: &App, caller: &Caller, method: &str, error: Error) -> Error {
    let mut entry = new_entry(caller, AuditAction::Call);
    entry.is_allowed = false;
    entry.details = serde_json::json!({ "method": method, "reason": error.to_string() });
    record_refusal(app, caller, entry, error).await
}

/// Writes the entry of a refusal, or counts the refusal if the caller has too many. Returns the error for the
/// caller.
async fn record_refusal(app: &App, caller: &Caller, entry: AuditEntry, error: Error) -> Error {
    if let Err(rate_limited) = app.rates.count_refusal(caller) {
        app.refusals.count(caller, entry);
        return rate_limited;
    }
    // Never report a denial that was not recorded: the caller gets a retryable error instead.
    write_entries(&app.db, caller.tenant_id(), &[entry]).await.err().unwrap_or(error)
}

pub(super) async fn write_entries(
    db: &Database,
    tenant: TenantId,
    entries: &[AuditEntry],
) -> Result<(), Error> {
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    let outcome = audit_entries::insert(&mut tx, entries).await;
    tx.finish(outcome).await.map_err(Error::from)
}

/// The entries about bytes that a caller gets.
#[derive(Debug, Clone)]
pub(super) struct Disclosure {
    /// The entry of the audit log.
    pub(super) entry: AuditEntry,
    /// The entry of the access log of the file.
    pub(super) access: AccessEntry,
}

async fn write_disclosures(
    db: &Database,
    tenant: TenantId,
    disclosures: Vec<Disclosure>,
) -> Result<(), Error> {
    let (entries, accesses): (Vec<AuditEntry>, Vec<AccessEntry>) =
        disclosures.into_iter().map(|Disclosure { entry, access }| (entry, access)).unzip();
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    let outcome = insert_disclosures(&mut tx, &entries, &accesses).await;
    tx.finish(outcome).await.map_err(Error::from)
}

async fn insert_disclosures(
    tx: &mut TenantTx,
    entries: &[AuditEntry],
    accesses: &[AccessEntry],
) -> Result<(), DbError> {
    audit_entries::insert(tx, entries).await?;
    access_log::insert(tx, accesses).await
}

/// Writes the entries of disclosures, in batches per tenant.
pub(super) struct DisclosureWriter {
    db: Database,
}

impl DisclosureWriter {
    pub(super) fn new(db: Database) -> Self {
        Self { db }
    }
}

#[async_trait]
impl BatchHandler for DisclosureWriter {
    type Item = Disclosure;
    type Outcome = Result<(), Error>;

    async fn run_batch(&self, tenant: TenantId, items: Vec<Disclosure>) -> Vec<Result<(), Error>> {
        let mut outcomes = Vec::with_capacity(items.len());
        match write_disclosures(&self.db, tenant, items.clone()).await {
            Ok(()) => outcomes.resize_with(items.len(), || Ok(())),
            Err(Error::DatabaseUnavailable(error)) => {
                outcomes.resize_with(items.len(), || Err(Error::DatabaseUnavailable(error.clone())));
            }
            Err(Error::Overloaded(workload)) => {
                outcomes.resize_with(items.len(), || Err(Error::Overloaded(workload)));
            }
            // Retry one by one, so that an entry that cannot be written fails only its own disclosure.
            Err(_) => {
                for item in items {
                    outcomes.push(write_disclosures(&self.db, tenant, vec![item]).await);
                }
            }
        }
        outcomes
    }
}
