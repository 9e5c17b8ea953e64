//! Exchanges the token of a share for a grant.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    ShareVisitor, VisitorError,
    attempts::{NO_TENANT, count_unknown_token, settle_password_attempt, take_password_attempt},
    find::{FoundShare, find_share},
    grant::Grant,
    log, start_lookup,
};
use crate::{
    admission::Holder,
    app::{App, Error, Resource},
    crypto::share_token::ShareToken,
    db::{share_visits::ShareKey, versions},
    domain::{
        access_log::AccessAction, clock::Timestamp, digest::Digest, file::ContentState,
        permission::Permission, share::PASSWORD_CHARACTERS,
    },
};

/// A request of a visitor.
#[derive(Debug)]
pub struct ResolveShareRequest {
    pub token: SecretString,
    /// Empty means none.
    pub password: SecretString,
}

/// The file of a share, as a visitor sees it.
#[derive(Debug)]
pub struct ResolvedShare {
    pub name: String,
    /// The version that the share serves now.
    pub version: i32,
    pub size_bytes: u64,
    pub mime_type: String,
    pub permission: Permission,
    pub expire_time: Option<Timestamp>,
    /// The permission to download the file once.
    pub grant: SecretString,
    pub grant_expire_time: Timestamp,
}

/// Exchanges a token, and the password of its share if there is one, for the description of the file and a grant.
///
/// Grants are not counted before they are used.
///
/// # Errors
/// Returns `NotFound` alike for a token that is unknown, malformed, or of a closed share; `PasswordRequired`,
/// `PasswordWrong` or `AttemptsExhausted`.
pub async fn resolve_share(
    app: &Arc<App>,
    visitor: ShareVisitor,
    request: ResolveShareRequest,
) -> Result<ResolvedShare, Error> {
    // A task, because a transaction that a disconnect interrupts costs its connection, and a counted attempt must be
    // settled.
    let lookup = start_lookup(app).await?;
    let (app, tasks) = (Arc::clone(app), app.tasks.clone());
    let resolving = tasks.spawn(async move {
        let found = find_open_share(&app, &visitor, request.token).await?;
        drop(lookup);
        visitor.admission.admit(found.holder())?;
        app.rates.count_visitor(found.stored.share.id)?;
        check_password(&app, &visitor, &found, request.password).await?;
        grant_access(&app, &visitor, &found).await
    });
    resolving.await.map_err(Error::internal)?
}

/// Finds the share of a token. The visitor is not verified before it returns one.
async fn find_open_share(
    app: &App,
    visitor: &ShareVisitor,
    token: SecretString,
) -> Result<FoundShare, Error> {
    let token = token.expose_secret();
    let parsed = ShareToken::parse(token).ok();
    // A malformed token costs the same: it is looked up too.
    let (tenant, digest) = match &parsed {
        Some(parsed) => (parsed.tenant(), parsed.digest()),
        None => (NO_TENANT, Digest::compute(token.as_bytes())),
    };
    let mut tx = app.db.visitor_tx(tenant, Holder::of_visitor(visitor.address)).await?;
    let found = find_share(&mut tx, ShareKey::Token(digest)).await;
    let found = tx.finish(found).await?;
    let Some(found) = found else { return Err(count_unknown_token(app, visitor).await) };
    match found.closed_reason() {
        Some(reason) => Err(refuse_closed(app, visitor, &found, reason).await),
        None => Ok(found),
    }
}

/// Logs an attempt with the token of a closed share, and returns the same error as for an unknown token.
async fn refuse_closed(app: &App, visitor: &ShareVisitor, found: &FoundShare, reason: &str) -> Error {
    let error = count_unknown_token(app, visitor).await;
    if !matches!(error, Error::NotFound(_)) {
        return error;
    }
    let entry = log::entry(visitor, found, AccessAction::Resolve, Some(reason));
    log::write_denial(app, visitor, found, entry).await.err().unwrap_or(error)
}

async fn check_password(
    app: &App,
    visitor: &ShareVisitor,
    found: &FoundShare,
    password: SecretString,
) -> Result<(), Error> {
    let Some(stored) = found.stored.password_hash.clone() else { return Ok(()) };
    if password.expose_secret().is_empty() {
        return Err(VisitorError::PasswordRequired.into());
    }
    take_password_attempt(app, visitor, found).await?;
    // One of another length is not hashed.
    let is_possible = PASSWORD_CHARACTERS.contains(&password.expose_secret().chars().count());
    let verified = match is_possible {
        true => app.passwords.verify(found.holder(), password, stored).await,
        false => Ok(false),
    };
    settle_password_attempt(app, visitor, found, matches!(verified, Ok(false))).await?;
    if verified? {
        return Ok(());
    }
    let entry = log::entry(visitor, found, AccessAction::Resolve, Some("password is wrong"));
    log::write_denial(app, visitor, found, entry).await?;
    Err(VisitorError::PasswordWrong.into())
}

async fn grant_access(app: &App, visitor: &ShareVisitor, found: &FoundShare) -> Result<ResolvedShare, Error> {
    let (share, file) = (&found.stored.share, &found.file);
    let number = share.pinned_version.unwrap_or(file.version);
    let grant = Grant::new(app, found);
    let mut tx = app.db.visitor_tx(found.tenant, found.holder()).await?;
    let read = async {
        let version = versions::get(&mut tx, file.id, number).await?;
        let version = version.filter(|version| version.content_state == ContentState::Available);
        let version = version.ok_or(Error::NotFound(Resource::Share))?;
        let mut entry = log::entry(visitor, found, AccessAction::Resolve, None);
        entry.version = Some(number);
        log::write_uncounted(&mut tx, visitor, found, entry).await?;
        Ok::<_, Error>(version)
    }
    .await;
    let version = tx.finish(read).await?;
    Ok(ResolvedShare {
        name: file.name.clone(),
        version: number,
        size_bytes: version.blob.size_bytes,
        mime_type: version.mime_type,
        permission: share.permission,
        expire_time: share.expire_time,
        grant: grant.seal(app)?.into(),
        grant_expire_time: grant.expire_time,
    })
}
