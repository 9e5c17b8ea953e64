//! Gives a user or a group a permission on a file.

use serde::{Deserialize, Serialize};

use super::{Grant, begin_change, check_grant_count, check_has_members, is_unlimited};
use crate::{
    app::{
        App, Denial, Error, Resource,
        access::{AccessRule, Operation, check_access},
        audit,
        idempotency::{self, RequestClaim},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        events::{self, Event, EventKind},
        file_grants::{self, NewGrant, Wanted},
        file_locks,
        idempotency_keys::Method,
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        event_position::EventPosition,
        file::WrongState,
        ids::{FileId, GrantId, RequestId},
        permission::Permission,
        violations::Violations,
    },
};

/// A request to give a permission.
#[derive(Debug, Clone)]
pub struct GrantRequest {
    pub file: FileId,
    /// The user, service or group; see `domain::principal`.
    pub principal: String,
    pub permission: Permission,
    /// `None` if the grant does not expire.
    pub expire_time: Option<Timestamp>,
    /// The idempotency key, which makes retries safe.
    pub request_id: Option<RequestId>,
}

/// The grant after a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrantResponse {
    pub grant: Grant,
    /// The position of its event; `None` if nothing had to change.
    pub event: Option<EventPosition>,
}

/// Inserts a grant, or replaces its permission and expiry.
///
/// # Errors
/// Returns `Invalid`, `NotFound`, `NotAllowed`, `FileDeleted`, `TenantPersonal` or `TooManyGrants`.
pub async fn grant_access(app: &App, caller: &Caller, request: GrantRequest) -> Result<GrantResponse, Error> {
    let id = request.file;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let granted = grant_in_tx(app, &mut tx, caller, &request).await;
    match tx.finish(granted).await {
        Err(error @ Error::NotAllowed(_)) => {
            Err(audit::record_denial(app, caller, AuditAction::AccessGrant, Some(id), error).await)
        }
        outcome => outcome,
    }
}

async fn grant_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &GrantRequest,
) -> Result<GrantResponse, Error> {
    app.owners.check_primary()?;
    let fields = serde_json::to_vec(&(&request.principal, request.permission, request.expire_time));
    let payload = [
        caller.actor.id.clone().into_bytes(),
        request.file.as_uuid().into_bytes().to_vec(),
        fields.map_err(Error::internal)?,
    ];
    let claim = idempotency::claim_request(app, tx, request.request_id, Method::GrantAccess, &payload);
    let attempt = match claim.await? {
        RequestClaim::Replay(response) => {
            idempotency::check_files_visible(tx, caller, &[request.file]).await?;
            return Ok(response);
        }
        RequestClaim::New(attempt) => attempt,
    };
    let found = file_locks::get_for_update(tx, request.file).await?;
    let found = found.ok_or(Error::NotFound(Resource::File))?;
    let rule = check_access(caller, &found, Operation::Grant(request.permission))?;
    check_has_members(caller)?;
    if found.file.trash.is_some() {
        return Err(WrongState::Deleted.into());
    }
    let now = tx.now().await?;
    if request.expire_time.is_some_and(|time| time <= now) {
        return Err(Violations::one("expire_time", "must be in the future").into());
    }
    let response = put_grant(app, tx, caller, request, Allowed { rule, now }).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &response).await?;
    }
    Ok(response)
}

/// The rule that allows a request, and the time of its transaction.
struct Allowed {
    rule: AccessRule,
    now: Timestamp,
}

/// Returns the grant that the request needs: the present one if it suffices, or a new or changed one.
async fn put_grant(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: &GrantRequest,
    Allowed { rule, now }: Allowed,
) -> Result<GrantResponse, Error> {
    let present = file_grants::find_direct(tx, request.file, &request.principal).await?;
    let source_id = match is_unlimited(rule) {
        true => None,
        false => match &present {
            Some(present) if present.created_by != caller.actor.id && present.is_valid(now) => {
                return keep(present, request);
            }
            present => Some(find_source(tx, caller, request, present.as_ref()).await?),
        },
    };
    if let Some(present) = &present
        && (present.permission, present.expire_time, present.source_id)
            == (request.permission, request.expire_time, source_id)
    {
        return Ok(GrantResponse { grant: present.clone(), event: None });
    }
    if present.is_none() {
        check_grant_count(tx, request.file, 1).await?;
    }
    let file = begin_change(tx, request.file).await?;
    let new = NewGrant {
        id: GrantId::from_uuid(app.ids.uuid()),
        principal: request.principal.clone(),
        permission: request.permission,
        share_id: None,
        source_id,
        expire_time: request.expire_time,
    };
    let stored = file_grants::put(tx, file.id, &[new], &caller.actor.id).await?;
    let grant = stored.into_iter().next().ok_or_else(|| Error::internal("grant was not stored"))?;
    let mut entry = audit::new_entry(caller, AuditAction::AccessGrant).for_version(file.id, file.version);
    entry.details = serde_json::json!({
        "principal": grant.principal, "permission": grant.permission, "expire_time": grant.expire_time,
    });
    audit_entries::insert(tx, &[entry]).await?;
    events::insert(tx, &[Event::for_file(EventKind::FileGrantAdded, &file, &caller.actor.id)]).await?;
    Ok(GrantResponse { grant, event: tx.last_event() })
}

/// Returns the present grant, which another person gave, if it includes the requested one.
fn keep(present: &Grant, request: &GrantRequest) -> Result<GrantResponse, Error> {
    let lasts = match (present.expire_time, request.expire_time) {
        (None, _) => true,
        (Some(present), Some(requested)) => present >= requested,
        (Some(_), None) => false,
    };
    match lasts && present.permission >= request.permission {
        true => Ok(GrantResponse { grant: present.clone(), event: None }),
        false => Err(Error::NotAllowed(Denial::ChangesOtherGrant)),
    }
}

/// Returns the caller's grant that includes the requested one.
async fn find_source(
    tx: &mut TenantTx,
    caller: &Caller,
    request: &GrantRequest,
    replaced: Option<&Grant>,
) -> Result<GrantId, Error> {
    let replaced: Vec<GrantId> = replaced.iter().map(|grant| grant.id).collect();
    let wanted =
        Wanted { permission: request.permission, expire_time: request.expire_time, replaced: &replaced };
    let source = file_grants::find_source(tx, request.file, &caller.principals(), wanted).await?;
    source.map(|source| source.id).ok_or(Error::NotAllowed(Denial::WidensGrant))
}
