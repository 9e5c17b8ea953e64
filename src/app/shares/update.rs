//! Changes the terms of a share.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{
    Expiry, LockedShare, Recorded, RequestClaim, Source, begin_change, check_not_revoked, claim_request,
    create::put_recipients, find_source, load_recipients, lock_share, passwords::HashedPassword,
    recipient_principals, record_change, record_if_denied, replay, store_response,
};
use crate::{
    admission::Holder,
    app::{App, Error, preconditions::check_etag},
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        events::EventKind,
        file_grants,
        files::VisibleFile,
        idempotency_keys::Method,
        shares::{self, ShareChanges, StoredShare},
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        ids::{RequestId, ShareId},
        permission::Permission,
        share::{Share, ShareType},
        share_terms::{ShareTerms, TermsContext, check_password},
        violations::Violations,
    },
};

/// New terms of a share. Absent fields are unchanged.
#[derive(Debug, Default, Serialize)]
pub struct ShareEdit {
    pub permission: Option<Permission>,
    /// The new password, or `None` to remove it.
    #[serde(skip)]
    pub password: Option<Option<SecretString>>,
    pub expire_time: Option<Option<Timestamp>>,
    pub max_downloads: Option<Option<i64>>,
    pub note: Option<String>,
    pub users: Option<Vec<String>>,
    pub group: Option<String>,
}

impl ShareEdit {
    /// Returns the names of the fields that are set.
    fn field_names(&self) -> Vec<&'static str> {
        let set = [
            ("permission", self.permission.is_some()),
            ("password", self.password.is_some()),
            ("expire_time", self.expire_time.is_some()),
            ("max_downloads", self.max_downloads.is_some()),
            ("note", self.note.is_some()),
            ("user_ids", self.users.is_some()),
            ("group_id", self.group.is_some()),
        ];
        set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
    }

    /// Returns whether the change gives access, so that the caller needs the permission to give it.
    fn gives_access(&self) -> bool {
        self.permission.is_some()
            || self.password.is_some()
            || self.expire_time.is_some()
            || self.max_downloads.is_some()
            || self.users.is_some()
            || self.group.is_some()
    }

    /// Returns the terms of a share after the change.
    fn apply(&self, share: &Share) -> ShareTerms {
        let is_group = share.share_type == ShareType::Group;
        let group = || share.recipients.first().filter(|_| is_group).cloned().unwrap_or_default();
        let users =
            || if share.share_type == ShareType::Users { share.recipients.clone() } else { Vec::new() };
        ShareTerms {
            share_type: share.share_type,
            permission: self.permission.unwrap_or(share.permission),
            has_password: self.password.as_ref().map_or(share.has_password, Option::is_some),
            expire_time: self.expire_time.unwrap_or(share.expire_time),
            max_downloads: self.max_downloads.unwrap_or(share.max_downloads),
            pinned_version: share.pinned_version,
            note: self.note.clone().unwrap_or_else(|| share.note.clone()),
            users: self.users.clone().unwrap_or_else(users),
            group: self.group.clone().unwrap_or_else(group),
        }
    }
}

/// A request to change a share.
#[derive(Debug)]
pub struct ShareUpdate {
    pub id: ShareId,
    pub edit: ShareEdit,
    /// The expected etag of the share. Empty means no check.
    pub if_etag: String,
    pub request_id: Option<RequestId>,
}

/// Changes the terms of a share. A new password or permission ends the grants of visitors.
///
/// # Errors
/// Returns `Invalid` with every violation, `NotFound`, `NotAllowed`, `EtagMismatch`, `ShareRevoked` or `TooManyGrants`.
pub async fn update_share(app: &App, caller: &Caller, update: ShareUpdate) -> Result<Share, Error> {
    let password = match &update.edit.password {
        Some(Some(password)) => {
            check_password(password.expose_secret())?;
            let holder = Holder::of_caller(caller);
            Some(app.passwords.hash(holder, password.clone(), update.request_id).await?)
        }
        _ => None,
    };
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let updated = update_in_tx(app, &mut tx, caller, update, password).await;
    record_if_denied(app, caller, AuditAction::ShareUpdate, None, tx.finish(updated).await).await
}

async fn update_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    update: ShareUpdate,
    password: Option<HashedPassword>,
) -> Result<Share, Error> {
    let ShareUpdate { id, edit, if_etag, request_id } = update;
    let fingerprint = password.as_ref().and_then(|password| password.fingerprint);
    let payload = (&id, &edit, edit.field_names(), &if_etag, fingerprint);
    let attempt = match claim_request(app, tx, caller, request_id, Method::UpdateShare, &payload).await? {
        RequestClaim::Replay(response) => return replay(tx, caller, response).await,
        RequestClaim::New(attempt) => attempt,
    };
    let LockedShare { file, stored } = lock_share(tx, caller, id).await?;
    check_etag(&if_etag, &stored.share.etag())?;
    check_not_revoked(&stored.share)?;
    let mut terms = edit.apply(&stored.share);
    check_terms(tx, caller, &file, &stored.share, &edit, &terms).await?;
    let source = match edit.gives_access() {
        true => {
            let expiry = Expiry { time: terms.expire_time, is_default: false };
            Some(find_source(tx, caller, &file, terms.permission, expiry, Some(id)).await?)
        }
        false => None,
    };
    if let Some(source) = &source {
        terms.expire_time = source.expire_time;
    }
    let changes = changes(&stored, &edit, &terms, password, source.as_ref());
    let file = begin_change(tx, stored.share.file).await?;
    let mut share = shares::update(tx, id, &changes).await?.share;
    let removed = change_recipients(app, tx, caller, &share, &edit, &terms).await?;
    load_recipients(tx, std::slice::from_mut(&mut share)).await?;
    let (action, kind) = (AuditAction::ShareUpdate, EventKind::FileShareUpdated);
    let details = serde_json::json!({ "fields": edit.field_names(), "recipients": share.recipients });
    record_change(tx, caller, Recorded { action, kind, details, file: &file, share: &share, removed })
        .await?;
    store_response(tx, attempt, share).await
}

async fn check_terms(
    tx: &mut TenantTx,
    caller: &Caller,
    file: &VisibleFile,
    share: &Share,
    edit: &ShareEdit,
    terms: &ShareTerms,
) -> Result<(), Error> {
    terms.check(TermsContext {
        now: tx.now().await?,
        create_time: share.create_time,
        sets_expiry: edit.expire_time.is_some(),
        rules: caller.tenant.policy.link_rules(&file.file.category),
    })?;
    let count = share.download_count;
    match edit.max_downloads.flatten().filter(|max| *max < count) {
        Some(max) => {
            let problem = format!("is {max}; the share has {count} downloads already; revoke it to end it");
            Err(Violations::one("share.max_downloads", problem).into())
        }
        None => Ok(()),
    }
}

/// Returns the columns to change.
fn changes(
    stored: &StoredShare,
    edit: &ShareEdit,
    terms: &ShareTerms,
    password: Option<HashedPassword>,
    source: Option<&Source>,
) -> ShareChanges {
    // The grants of visitors end with their password, and are counted for one permission.
    let ends_grants = edit.password.is_some() || terms.permission != stored.share.permission;
    ShareChanges {
        permission: edit.permission,
        password_hash: edit.password.as_ref().map(|_| password.map(|password| password.stored)),
        expire_time: source.map(|_| terms.expire_time),
        max_downloads: edit.max_downloads,
        note: edit.note.clone(),
        source_grant_id: source.map(|source| source.grant),
        secret_revision: ends_grants.then_some(stored.secret_revision + 1),
    }
}

/// Changes the grants of the recipients. Returns the principals that lost their permission.
async fn change_recipients(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    share: &Share,
    edit: &ShareEdit,
    terms: &ShareTerms,
) -> Result<Vec<String>, Error> {
    if share.share_type.is_link() || !edit.gives_access() {
        return Ok(Vec::new());
    }
    let removed = shares::list_other_grants(tx, share.id, &recipient_principals(terms)).await?;
    let deleted = file_grants::delete(tx, share.file, &removed).await?;
    put_recipients(app, tx, caller, share, terms).await?;
    Ok(deleted.into_iter().map(|grant| grant.principal).collect())
}
