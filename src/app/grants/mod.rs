//! Grants: permissions on single files for users and groups. `docs/decisions/0011-grants.md` describes the rule.

mod check;
pub mod delete_expired;
mod grant;
mod list;
mod revoke;

pub use self::{
    check::{AccessQuestion, AccessReport, Subject, check_access},
    grant::{GrantRequest, GrantResponse, grant_access},
    list::{GrantPage, ListGrantsRequest, list_grants},
    revoke::{RevokeRequest, RevokeResponse, revoke_access},
};
pub use crate::db::file_grants::Grant;
use crate::{
    app::{Error, access::AccessRule, audit},
    db::{
        DbError, TenantTx,
        audit_entries::{self, AuditAction},
        events::{self, Event, EventKind},
        file_grants, files,
    },
    domain::{
        caller::{Caller, TenantKind},
        file::File,
        ids::FileId,
    },
};

/// The maximum number of grants of a file, including those of shares. Each change of grants is one transaction that
/// reads those of the file.
pub const GRANTS_PER_FILE_MAX: i64 = 1_000;

/// Checks that access can be given to others in the caller's tenant.
///
/// # Errors
/// Returns `TenantPersonal` in the tenant of one person.
pub(in crate::app) fn check_has_members(caller: &Caller) -> Result<(), Error> {
    match caller.tenant.kind {
        TenantKind::Organization => Ok(()),
        TenantKind::Person => Err(Error::TenantPersonal),
    }
}

/// Checks that a locked file can have this many more grants.
///
/// # Errors
/// Returns `TooManyGrants` if not.
pub(in crate::app) async fn check_grant_count(
    tx: &mut TenantTx,
    file: FileId,
    added: i64,
) -> Result<(), Error> {
    match file_grants::count(tx, file).await?.saturating_add(added) <= GRANTS_PER_FILE_MAX {
        true => Ok(()),
        false => Err(Error::TooManyGrants { grant_count_max: GRANTS_PER_FILE_MAX }),
    }
}

/// Returns whether the rule gives its caller all grants of a file.
fn is_unlimited(rule: AccessRule) -> bool {
    matches!(rule, AccessRule::Owner | AccessRule::Admin)
}

/// Starts a change of the grants of a locked file: its events need a new revision. Returns the file with it.
///
/// Must come before the change, after which the caller may no longer see the file.
async fn begin_change(tx: &mut TenantTx, file: FileId) -> Result<File, DbError> {
    files::increment_revision(tx, file).await
}

/// Records deleted grants of a file: an audit entry, and an event that those who had them receive too.
async fn record_revocation(
    tx: &mut TenantTx,
    caller: &Caller,
    file: &File,
    revoked: Vec<Grant>,
    reason: &str,
) -> Result<(), DbError> {
    let mut entry = audit::new_entry(caller, AuditAction::AccessRevoke).for_version(file.id, file.version);
    let grants: Vec<serde_json::Value> = revoked
        .iter()
        .map(|grant| serde_json::json!({ "principal": grant.principal, "permission": grant.permission }))
        .collect();
    entry.details = serde_json::json!({ "reason": reason, "grants": grants });
    audit_entries::insert(tx, &[entry]).await?;
    let principals = revoked.into_iter().map(|grant| grant.principal).collect();
    let event = Event::for_file(EventKind::FileGrantRemoved, file, &caller.actor.id);
    events::insert(tx, &[event.with_removed_readers(principals)]).await
}
