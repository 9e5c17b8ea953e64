//! Creates a share.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{
    Expiry, Recorded, RequestClaim, SealedShare, ShareWithToken, Source, begin_change, check_share_type,
    claim_request, find_source, passwords::HashedPassword, recipient_principals, record_change,
    record_if_denied, replay, store_response,
};
use crate::{
    admission::Holder,
    app::{App, Error, Resource, access, grants::check_grant_count},
    crypto::share_token::ShareToken,
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        events::EventKind,
        file_grants::{self, NewGrant},
        file_locks,
        idempotency_keys::Method,
        shares::{self, NewShare},
        versions,
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        ids::{FileId, GrantId, RequestId, ShareId},
        permission::Permission,
        share::{SHARES_PER_FILE_MAX, Share, ShareType},
        share_terms::{ShareTerms, TermsContext, check_password},
        violations::Violations,
    },
};

/// A request to create a share.
#[derive(Debug, Serialize)]
pub struct ShareRequest {
    pub file: FileId,
    pub share_type: ShareType,
    /// `None` means DOWNLOAD.
    pub permission: Option<Permission>,
    #[serde(skip)]
    pub password: Option<SecretString>,
    pub expire_time: Option<Timestamp>,
    pub max_downloads: Option<i64>,
    pub pinned_version: Option<i32>,
    pub note: String,
    pub users: Vec<String>,
    pub group: String,
    #[serde(skip)]
    pub request_id: Option<RequestId>,
}

/// Creates a share of a file. Returns the token of a link, which is shown only here.
///
/// # Errors
/// Returns `Invalid` with every violation, `NotFound`, `NotAllowed`, `FileDeleted`, `FileNotAvailable`,
/// `FileRetained`, `TenantPersonal`, `TooManyShares` or `TooManyGrants`.
pub async fn create_share(
    app: &App,
    caller: &Caller,
    request: ShareRequest,
) -> Result<ShareWithToken, Error> {
    let password = match &request.password {
        Some(password) => {
            check_password(password.expose_secret())?;
            let holder = Holder::of_caller(caller);
            Some(app.passwords.hash(holder, password.clone(), request.request_id).await?)
        }
        None => None,
    };
    let file = request.file;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let created = create_in_tx(app, &mut tx, caller, request, password).await;
    let created = tx.finish(created).await;
    record_if_denied(app, caller, AuditAction::ShareCreate, Some(file), created)
        .await?
        .reveal(app, caller.tenant_id())
}

async fn create_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: ShareRequest,
    password: Option<HashedPassword>,
) -> Result<SealedShare, Error> {
    let fingerprint = password.as_ref().and_then(|password| password.fingerprint);
    let payload = (&request, fingerprint);
    let claim = claim_request(app, tx, caller, request.request_id, Method::CreateShare, &payload).await?;
    let attempt = match claim {
        RequestClaim::Replay(response) => return replay(tx, caller, response).await,
        RequestClaim::New(attempt) => attempt,
    };
    let found = file_locks::get_for_update(tx, request.file).await?.ok_or(Error::NotFound(Resource::File))?;
    if !access::can_see(caller, &found) {
        return Err(Error::NotFound(Resource::File));
    }
    let now = tx.now().await?;
    let expiry = Expiry {
        time: request.expire_time.or_else(|| default_expiry(request.share_type, now)),
        is_default: request.expire_time.is_none(),
    };
    let mut terms = into_terms(request, password.is_some(), expiry.time);
    let rules = caller.tenant.policy.link_rules(&found.file.category);
    terms.check(TermsContext { now, create_time: now, sets_expiry: true, rules })?;
    let source = find_source(tx, caller, &found, terms.permission, expiry, None).await?;
    terms.expire_time = source.expire_time;
    check_share_type(caller, &found.file, terms.share_type)?;
    found.file.check_readable()?;
    check_version(tx, found.file.id, terms.pinned_version).await?;
    check_count(tx, found.file.id).await?;
    let password = password.map(|password| password.stored);
    let created = insert_share(app, tx, caller, found.file.id, &terms, password.as_deref(), source).await?;
    store_response(tx, attempt, created).await
}

fn default_expiry(share_type: ShareType, now: Timestamp) -> Option<Timestamp> {
    (share_type == ShareType::Temporary).then(|| ShareTerms::default_expiry(now)).flatten()
}

fn into_terms(request: ShareRequest, has_password: bool, expire_time: Option<Timestamp>) -> ShareTerms {
    ShareTerms {
        share_type: request.share_type,
        permission: request.permission.unwrap_or(Permission::Download),
        has_password,
        expire_time,
        max_downloads: request.max_downloads,
        pinned_version: request.pinned_version,
        note: request.note,
        users: request.users,
        group: request.group,
    }
}

/// Checks that the version that a link serves exists.
async fn check_version(tx: &mut TenantTx, file: FileId, version: Option<i32>) -> Result<(), Error> {
    let Some(version) = version else { return Ok(()) };
    match versions::get(tx, file, version).await? {
        Some(_) => Ok(()),
        None => Err(Violations::one("share.version", format!("file has no version {version}")).into()),
    }
}

/// Checks that the file may have another share. Revoked and expired ones are deleted first if necessary. Exact, because
/// the file is locked.
async fn check_count(tx: &mut TenantTx, file: FileId) -> Result<(), Error> {
    let is_full = |count| usize::try_from(count).unwrap_or(usize::MAX) >= SHARES_PER_FILE_MAX;
    if !is_full(shares::count_of_file(tx, file).await?) {
        return Ok(());
    }
    shares::delete_closed_of_file(tx, file).await?;
    match is_full(shares::count_of_file(tx, file).await?) {
        true => Err(Error::TooManyShares { share_count_max: SHARES_PER_FILE_MAX }),
        false => Ok(()),
    }
}

async fn insert_share(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    file: FileId,
    terms: &ShareTerms,
    password_hash: Option<&str>,
    source: Source,
) -> Result<SealedShare, Error> {
    let is_link = terms.share_type.is_link();
    let token = is_link.then(|| ShareToken::generate(caller.tenant_id())).transpose();
    let token = token.map_err(Error::internal)?;
    let new = NewShare {
        id: ShareId::from_uuid(app.ids.uuid()),
        file,
        share_type: terms.share_type,
        permission: terms.permission,
        token_hash: token.as_ref().map(ShareToken::digest),
        password_hash,
        pinned_version: terms.pinned_version,
        expire_time: terms.expire_time,
        max_downloads: terms.max_downloads,
        note: &terms.note,
        created_by: &caller.actor.id,
        source_grant: source.grant,
    };
    let file = begin_change(tx, file).await?;
    let mut share = shares::insert(tx, &new).await?.share;
    put_recipients(app, tx, caller, &share, terms).await?;
    super::load_recipients(tx, std::slice::from_mut(&mut share)).await?;
    let details = serde_json::json!({
        "type": share.share_type.as_str(), "permission": share.permission.as_str(), "recipients": share.recipients,
    });
    let (action, kind) = (AuditAction::ShareCreate, EventKind::FileShareCreated);
    let removed = Vec::new();
    record_change(tx, caller, Recorded { action, kind, details, file: &file, share: &share, removed })
        .await?;
    SealedShare::seal(app, caller.tenant_id(), share, token.as_ref())
}

/// Gives the permission of a share to its recipients, or changes it.
pub(super) async fn put_recipients(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    share: &Share,
    terms: &ShareTerms,
) -> Result<(), Error> {
    let grant = |principal| NewGrant {
        id: GrantId::from_uuid(app.ids.uuid()),
        principal,
        permission: terms.permission,
        share_id: Some(share.id.as_uuid()),
        source_id: share.source_grant,
        expire_time: terms.expire_time,
    };
    let grants: Vec<NewGrant> = recipient_principals(terms).into_iter().map(grant).collect();
    if grants.is_empty() {
        return Ok(());
    }
    file_grants::put(tx, share.file, &grants, &caller.actor.id).await?;
    check_grant_count(tx, share.file, 0).await
}
