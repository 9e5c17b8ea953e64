//! Audit entries of use cases. Changes write theirs in their own transaction; disclosures are written in groups and are
//! durable before the first byte leaves; denials stand by themselves.

use async_trait::async_trait;

use super::{App, Error, group::Batch};
use crate::{
    db::{
        Database, Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
    },
    domain::{
        caller::Caller,
        ids::{FileId, TenantId},
    },
};

/// An entry about what a caller does to a version of a file.
pub(super) fn entry(caller: &Caller, action: AuditAction, file: Option<(FileId, i32)>) -> AuditEntry {
    let (file, version) = file.unzip();
    AuditEntry {
        actor: caller.actor.clone(),
        origin: caller.origin.clone(),
        action,
        is_allowed: true,
        file,
        version,
        details: serde_json::json!({}),
    }
}

/// Records that a caller was not allowed to do something, and answers why.
pub(super) async fn denied(
    app: &App,
    caller: &Caller,
    action: AuditAction,
    file: Option<FileId>,
    why: Error,
) -> Error {
    let entry = AuditEntry {
        is_allowed: false,
        file,
        details: serde_json::json!({ "reason": why.to_string() }),
        ..entry(caller, action, None)
    };
    match write(&app.db, caller.tenant_id(), &[entry]).await {
        Ok(()) => why,
        // A denial that cannot be recorded is not answered as if it were: the caller may try again.
        Err(error) => error,
    }
}

/// Records that a caller's role did not let it call a method at all, and answers why.
pub async fn call_denied(app: &App, caller: &Caller, method: &str, why: Error) -> Error {
    let mut entry = entry(caller, AuditAction::Call, None);
    entry.is_allowed = false;
    entry.details = serde_json::json!({ "method": method, "reason": why.to_string() });
    write(&app.db, caller.tenant_id(), &[entry]).await.err().unwrap_or(why)
}

async fn write(db: &Database, tenant: TenantId, entries: &[AuditEntry]) -> Result<(), Error> {
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    let outcome = audit_entries::insert(&mut tx, entries).await;
    tx.finish(outcome).await.map_err(Error::from)
}

/// Writes disclosures of one tenant together.
pub(super) struct Disclosures {
    db: Database,
}

impl Disclosures {
    pub(super) fn new(db: Database) -> Self {
        Self { db }
    }
}

#[async_trait]
impl Batch for Disclosures {
    type Item = AuditEntry;
    type Outcome = Result<(), Error>;

    async fn run(&self, tenant: TenantId, items: Vec<AuditEntry>) -> Vec<Result<(), Error>> {
        let mut outcomes = Vec::with_capacity(items.len());
        match write(&self.db, tenant, &items).await {
            Ok(()) => outcomes.resize_with(items.len(), || Ok(())),
            Err(Error::DatabaseUnavailable(error)) => {
                outcomes.resize_with(items.len(), || Err(Error::DatabaseUnavailable(error.clone())));
            }
            // One by one, so that an entry that cannot be written holds back its own disclosure only.
            Err(_) => {
                for item in items {
                    outcomes.push(write(&self.db, tenant, &[item]).await);
                }
            }
        }
        outcomes
    }
}
