//! Transfers the files of one user to another, for example when the owner leaves.

use crate::{
    app::{
        App, Error, access, audit,
        idempotency::{self, RequestClaim},
        quotas::charge::charge_users,
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction, AuditEntry},
        events::{self, Event},
        file_locks,
        file_owners::{self, OwnedFile},
        idempotency_keys::Method,
        quotas::{QuotaDelta, UserDelta},
    },
    domain::{
        caller::Caller,
        event_position::EventPosition,
        ids::{FileId, RequestId},
        text::{self, EXTERNAL_ID_CHARACTERS_MAX},
        violations::Violations,
    },
};

/// The default and maximum number of files of one call. Each file adds an audit entry and an event to the
/// transaction.
const FILES_DEFAULT: i32 = 500;
const FILES_MAX: i32 = 1_000;

/// A request to transfer files.
#[derive(Debug, Clone)]
pub struct TransferRequest {
    /// The id of the current owner.
    pub from_user: String,
    /// The id of the new owner.
    pub to_user: String,
    /// The maximum number of files to transfer; 0 means the default.
    pub limit: i32,
    /// Whether to count the files without transferring them.
    pub is_dry_run: bool,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// The result of one call, and the remaining work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TransferResult {
    /// The number of transferred files.
    pub file_count: i64,
    /// The number of files that the previous owner still has.
    pub remaining_file_count: i64,
    /// The bytes of these files.
    pub remaining_bytes: i64,
    /// The position of the last event; `None` if no file was transferred.
    #[serde(default)]
    pub event: Option<EventPosition>,
}

/// Transfers a bounded number of files, including files in the trash, to another user of the tenant. Repeat
/// the call until no files remain. Read grants of other users do not change.
///
/// # Errors
/// Returns `Invalid` with every violation, `NotAllowed`, or `UserQuota` if the files exceed the quota of the new owner.
pub async fn transfer_ownership(
    app: &App,
    caller: &Caller,
    request: TransferRequest,
) -> Result<TransferResult, Error> {
    if let Err(error) = access::check_is_admin(caller) {
        return Err(audit::record_denial(app, caller, AuditAction::OwnershipTransfer, None, error).await);
    }
    let limit = check_request(&request)?;
    app.owners.check_primary()?;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let transferred = transfer_in_tx(app, &mut tx, caller, &request, limit).await;
    tx.finish(transferred).await
}

fn check_request(request: &TransferRequest) -> Result<i32, Violations> {
    let mut violations = Violations::new();
    violations.ok_or_add("from_user_id", text::check_line(&request.from_user, EXTERNAL_ID_CHARACTERS_MAX));
    violations.ok_or_add("to_user_id", text::check_line(&request.to_user, EXTERNAL_ID_CHARACTERS_MAX));
    if request.from_user == request.to_user {
        violations.add("to_user_id", "must differ from from_user_id");
    }
    if request.limit < 0 {
        violations.add("batch_size", "must not be negative; 0 means the default");
    }
    violations.into_result()?;
    Ok(if request.limit == 0 { FILES_DEFAULT } else { request.limit.min(FILES_MAX) })
}

async fn transfer_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &TransferRequest,
    limit: i32,
) -> Result<TransferResult, Error> {
    if request.is_dry_run {
        return transfer_result(tx, &request.from_user, 0).await;
    }
    let payload = [
        caller.actor.id.clone().into_bytes(),
        request.from_user.clone().into_bytes(),
        request.to_user.clone().into_bytes(),
        limit.to_be_bytes().to_vec(),
    ];
    let claim =
        idempotency::claim_request(app, tx, request.request_id, Method::TransferOwnership, &payload).await?;
    let attempt = match claim {
        RequestClaim::Replay(response) => return Ok(response),
        RequestClaim::New(attempt) => attempt,
    };
    let owned = file_locks::lock_of_owner(tx, &request.from_user, limit.into()).await?;
    if !owned.is_empty() {
        let ids: Vec<FileId> = owned.iter().map(|file| file.id).collect();
        file_owners::set_owner(tx, &ids, &request.to_user, &caller.actor.id).await?;
        record_transfers(tx, caller, request, &owned).await?;
        charge_new_owner(tx, request, &ids).await?;
    }
    let count = i64::try_from(owned.len()).unwrap_or(i64::MAX);
    let transferred = transfer_result(tx, &request.from_user, count).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &transferred).await?;
    }
    Ok(transferred)
}

/// Moves the charge of the files to the quota of the new owner.
async fn charge_new_owner(
    tx: &mut TenantTx,
    request: &TransferRequest,
    files: &[FileId],
) -> Result<(), Error> {
    let charged = file_owners::sum_charge(tx, files).await?;
    let users =
        [UserDelta::new(&request.from_user, charged.negated()), UserDelta::new(&request.to_user, charged)];
    charge_users(tx, QuotaDelta::default(), &users).await.map(|_| ())
}

/// Records an audit entry and an event for each file.
async fn record_transfers(
    tx: &mut TenantTx,
    caller: &Caller,
    request: &TransferRequest,
    owned: &[OwnedFile],
) -> Result<(), Error> {
    let details = serde_json::json!({ "from": request.from_user, "to": request.to_user });
    let entry = |file: &OwnedFile| AuditEntry {
        details: details.clone(),
        ..audit::new_entry(caller, AuditAction::OwnershipTransfer).for_version(file.id, file.version)
    };
    audit_entries::insert(tx, &owned.iter().map(entry).collect::<Vec<_>>()).await?;
    let (from, to) = (request.from_user.as_str(), request.to_user.as_str());
    let event = |file: &OwnedFile| Event::for_transfer(file, from, to, &caller.actor.id);
    Ok(events::insert(tx, &owned.iter().map(event).collect::<Vec<_>>()).await?)
}

async fn transfer_result(tx: &mut TenantTx, owner: &str, file_count: i64) -> Result<TransferResult, Error> {
    let (remaining_file_count, remaining_bytes) = file_owners::sum_files(tx, owner).await?;
    Ok(TransferResult { file_count, remaining_file_count, remaining_bytes, event: tx.last_event() })
}
