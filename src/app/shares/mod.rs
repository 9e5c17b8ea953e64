//! Shares of files: links for visitors without an account, and permissions for recipients in the tenant.
//!
//! The recipients of a share are rows of `file_grants`, which the one access rule reads. A link has a token and an
//! optional password; both are stored as hashes. Each change locks the file before the share.

mod create;
mod get;
mod passwords;
mod revoke;
mod rotate;
mod update;

pub use self::{
    create::{ShareRequest, create_share},
    get::{ListSharesRequest, ShareList, SharePage, get_share, list_shares},
    passwords::PasswordHashing,
    revoke::revoke_share,
    rotate::rotate_share_token,
    update::{ShareEdit, ShareUpdate, update_share},
};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    App, Denial, Error, Resource,
    access::{self, AccessRule, Operation},
    audit,
    grants::check_has_members,
    idempotency::{self, Attempt, RequestClaim},
};
use crate::{
    crypto::share_token::ShareToken,
    db::{
        DbError, TenantTx,
        audit_entries::{self, AuditAction},
        events::{self, Event, EventKind},
        file_grants::{self, Wanted},
        file_locks,
        files::{self, VisibleFile},
        idempotency_keys::Method,
        shares::{self, StoredShare},
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        file::File,
        ids::{FileId, GrantId, RequestId, ShareId, TenantId},
        permission::Permission,
        principal::{self, PrincipalKind, parse_principal},
        share::{Share, ShareType},
        share_terms::ShareTerms,
    },
};

/// A share with its token, which is shown only once. Shares with recipients have none.
#[derive(Debug)]
pub struct ShareWithToken {
    pub share: Share,
    pub token: Option<SecretString>,
}

/// A [`ShareWithToken`] as stored under a request id, with the token sealed.
#[derive(Debug, Serialize, Deserialize)]
struct SealedShare {
    share: Share,
    sealed_token: Option<String>,
}

impl SealedShare {
    fn seal(app: &App, tenant: TenantId, share: Share, token: Option<&ShareToken>) -> Result<Self, Error> {
        let purpose = sealing_purpose(tenant, share.id);
        let seal =
            |token: &ShareToken| app.page_tokens.seal(&purpose, token.text().expose_secret().as_bytes());
        let sealed_token = token.map(seal).transpose().map_err(Error::internal)?;
        Ok(Self { share, sealed_token })
    }

    fn reveal(self, app: &App, tenant: TenantId) -> Result<ShareWithToken, Error> {
        let purpose = sealing_purpose(tenant, self.share.id);
        let open = |sealed: String| {
            let opened = app.page_tokens.open(&purpose, &sealed).map_err(Error::internal)?;
            String::from_utf8(opened).map(SecretString::from).map_err(Error::internal)
        };
        let token = self.sealed_token.map(open).transpose()?;
        Ok(ShareWithToken { share: self.share, token })
    }
}

/// Returns the sealing purpose of a token: one share of one tenant.
fn sealing_purpose(tenant: TenantId, share: ShareId) -> Vec<u8> {
    [b"share token ".as_slice(), tenant.as_uuid().as_bytes(), share.as_uuid().as_bytes()].concat()
}

/// Claims the request id of a mutation, or returns the stored response of an earlier attempt.
async fn claim_request<T: DeserializeOwned>(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request_id: Option<RequestId>,
    method: Method,
    request: &impl Serialize,
) -> Result<RequestClaim<T>, Error> {
    app.owners.check_primary()?;
    let request = serde_json::to_vec(request).map_err(Error::internal)?;
    let payload = [caller.actor.id.clone().into_bytes(), request];
    idempotency::claim_request(app, tx, request_id, method, &payload).await
}

/// A stored response that names a file.
trait OfFile {
    fn file(&self) -> FileId;
}

impl OfFile for Share {
    fn file(&self) -> FileId {
        self.file
    }
}

impl OfFile for SealedShare {
    fn file(&self) -> FileId {
        self.share.file
    }
}

/// Returns the stored response of an earlier attempt, if the caller still sees its file.
async fn replay<T: OfFile>(tx: &mut TenantTx, caller: &Caller, response: T) -> Result<T, Error> {
    idempotency::check_files_visible(tx, caller, &[response.file()]).await?;
    Ok(response)
}

async fn store_response<T: Serialize>(
    tx: &mut TenantTx,
    attempt: Option<Attempt>,
    response: T,
) -> Result<T, Error> {
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &response).await?;
    }
    Ok(response)
}

/// A share and its file, both locked until the transaction ends.
struct LockedShare {
    file: VisibleFile,
    stored: StoredShare,
}

/// Locks a share and its file. The caller must be the creator of the share, the owner of the file or an admin.
///
/// # Errors
/// Returns `NotFound` if the share is hidden from the caller, and `NotAllowed` if the caller is only a recipient.
async fn lock_share(tx: &mut TenantTx, caller: &Caller, id: ShareId) -> Result<LockedShare, Error> {
    let missing = || Error::NotFound(Resource::Share);
    let found = shares::get(tx, id).await?.ok_or_else(missing)?;
    let file = file_locks::get_for_update(tx, found.share.file).await?.ok_or_else(missing)?;
    let mut stored = shares::get_for_update(tx, id).await?.ok_or_else(missing)?;
    load_recipients(tx, std::slice::from_mut(&mut stored.share)).await?;
    if !access::can_see(caller, &file) {
        return Err(missing());
    }
    if can_manage(caller, &file.file, &stored.share) {
        return Ok(LockedShare { file, stored });
    }
    let is_recipient = is_recipient(tx, caller, &stored.share).await?;
    Err(if is_recipient { Error::NotAllowed(Denial::ChangesOtherShare) } else { missing() })
}

/// Returns whether the caller may change a share: its creator, the owner of the file and admins may.
fn can_manage(caller: &Caller, file: &File, share: &Share) -> bool {
    access::is_owner_or_admin(caller, file) || share.created_by == caller.actor.id
}

/// Returns whether an open share serves the caller.
async fn is_recipient(tx: &mut TenantTx, caller: &Caller, share: &Share) -> Result<bool, Error> {
    let now = tx.now().await?;
    let principals = caller.principals();
    let recipients = shares::list_recipients(tx, &[share.id]).await?.remove(&share.id).unwrap_or_default();
    Ok(share.is_open(now) && recipients.iter().any(|recipient| principals.contains(recipient)))
}

/// Adds the recipients of shares, which are rows of another table.
pub(super) async fn load_recipients(tx: &mut TenantTx, shares: &mut [Share]) -> Result<(), DbError> {
    let ids: Vec<ShareId> =
        shares.iter().filter(|share| !share.share_type.is_link()).map(|share| share.id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let mut recipients = shares::list_recipients(tx, &ids).await?;
    for share in shares {
        let principals = recipients.remove(&share.id).unwrap_or_default();
        share.recipients = principals.iter().filter_map(|principal| recipient_id(principal)).collect();
    }
    Ok(())
}

/// Returns the id of a user or group. `None` for the organization.
fn recipient_id(principal: &str) -> Option<String> {
    match parse_principal(principal) {
        PrincipalKind::Caller(id) | PrincipalKind::Group(id) => Some(id.to_owned()),
        PrincipalKind::Organization => None,
    }
}

/// Returns the principals to which the terms give a permission.
fn recipient_principals(terms: &ShareTerms) -> Vec<String> {
    match terms.share_type {
        ShareType::PublicLink | ShareType::Temporary => Vec::new(),
        ShareType::Organization => vec![principal::ORGANIZATION.to_owned()],
        ShareType::Group => vec![principal::group_principal(&terms.group)],
        ShareType::Users => terms.users.iter().map(|user| principal::caller_principal(user)).collect(),
    }
}

/// Checks that the caller may give the permission of a share until its end.
///
/// The owner and admins give any permission. Another caller needs a grant, which becomes the source of the share: the
/// share never exceeds it, and ends with it. If the request names no expiry, the share gets that of the source.
///
/// # Errors
/// Returns `NotFound` or `NotAllowed`.
async fn find_source(
    tx: &mut TenantTx,
    caller: &Caller,
    file: &VisibleFile,
    permission: Permission,
    expiry: Expiry,
    changed: Option<ShareId>,
) -> Result<Source, Error> {
    let rule = access::check_access(caller, file, Operation::Grant(permission))?;
    if matches!(rule, AccessRule::Owner | AccessRule::Admin) {
        return Ok(Source { grant: None, expire_time: expiry.time });
    }
    let (id, principals) = (file.file.id, caller.principals());
    // A share is no source of itself, also not through others.
    let replaced = match changed {
        Some(share) => shares::list_grants(tx, share).await?,
        None => Vec::new(),
    };
    let wanted = |expire_time| Wanted { permission, expire_time, replaced: &replaced };
    let mut found = file_grants::find_source(tx, id, &principals, wanted(expiry.time)).await?;
    if found.is_none() && expiry.is_default {
        let now = tx.now().await?;
        found = file_grants::find_source(tx, id, &principals, wanted(Some(now))).await?;
    }
    let source = found.ok_or(Error::NotAllowed(Denial::WidensGrant))?;
    let expire_time = match (expiry.time, source.expire_time) {
        (Some(wanted), Some(end)) => Some(wanted.min(end)),
        (wanted, end) => wanted.or(end),
    };
    Ok(Source { grant: Some(source.id), expire_time })
}

/// The expiry of a share.
#[derive(Debug, Clone, Copy)]
struct Expiry {
    time: Option<Timestamp>,
    /// Whether the request does not name it, so that it may be reduced to that of the source.
    is_default: bool,
}

/// The grant under which a share is created, and its expiry.
struct Source {
    grant: Option<GrantId>,
    expire_time: Option<Timestamp>,
}

/// Checks that shares of a type are possible for the file.
fn check_share_type(caller: &Caller, file: &File, share_type: ShareType) -> Result<(), Error> {
    if !share_type.is_link() {
        return check_has_members(caller);
    }
    if caller.tenant.policy.link_rules(&file.category).are_forbidden {
        return Err(Error::NotAllowed(Denial::LinksForbidden));
    }
    match &file.hold {
        Some(hold) => Err(Error::FileRetained { until: None, hold: Some(hold.clone()) }),
        None => Ok(()),
    }
}

/// Checks that a share is not revoked.
fn check_not_revoked(share: &Share) -> Result<(), Error> {
    if share.revoke_time.is_some() { Err(Error::ShareRevoked) } else { Ok(()) }
}

/// Starts a change of a share of a locked file: its event needs a new revision. Returns the file with it.
///
/// Must come before the change, after which the caller may no longer see the file.
async fn begin_change(tx: &mut TenantTx, file: FileId) -> Result<File, DbError> {
    files::increment_revision(tx, file).await
}

/// The change of a share to record.
struct Recorded<'a> {
    action: AuditAction,
    kind: EventKind,
    details: serde_json::Value,
    /// The file, from [`begin_change`].
    file: &'a File,
    share: &'a Share,
    /// Principals that lost their permission.
    removed: Vec<String>,
}

/// Records a change of a share: its audit entry, and the event of its file.
async fn record_change(tx: &mut TenantTx, caller: &Caller, change: Recorded<'_>) -> Result<(), Error> {
    let Recorded { action, kind, mut details, file, share, removed } = change;
    details["share_id"] = serde_json::json!(share.id);
    let mut entry = audit::new_entry(caller, action).for_version(file.id, file.version);
    entry.details = details;
    audit_entries::insert(tx, &[entry]).await?;
    let event = Event::for_file(kind, file, &caller.actor.id).with_removed_readers(removed);
    Ok(events::insert(tx, &[event]).await?)
}

/// Records a denied action in the audit log. Passes other outcomes through.
async fn record_if_denied<T>(
    app: &App,
    caller: &Caller,
    action: AuditAction,
    file: Option<FileId>,
    outcome: Result<T, Error>,
) -> Result<T, Error> {
    match outcome {
        Err(error @ Error::NotAllowed(_)) => {
            Err(audit::record_denial(app, caller, action, file, error).await)
        }
        outcome => outcome,
    }
}
