//! Changes what people wrote about a file.

use super::{Changed, Claimed, claim_with, conclude, filled, note_with};
use crate::{
    app::{
        App, Error,
        access::{can_administer, can_show_to},
    },
    db::{
        TenantTx, Viewer,
        audit_entries::AuditAction,
        events::{Event, EventKind},
        file_readers, file_tags, files,
        idempotency_keys::Method,
    },
    domain::{
        caller::Caller,
        file::{File, WrongState},
        file_update::FileUpdate,
        ids::{FileId, RequestId},
    },
};

/// What to change.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// Which file.
    pub file: FileId,
    /// The new values.
    pub update: FileUpdate,
    /// The etag that the file must still have, or empty.
    pub etag: String,
    /// Makes a retry safe.
    pub request_id: Option<RequestId>,
}

/// Changes what people wrote about a file. Its content, its version and its state stay as they are.
///
/// # Errors
/// `Invalid` with every violation, `NotFound`, `NotAllowed`, `FileDeleted`, `EtagMismatch`.
pub async fn update(app: &App, caller: &Caller, request: UpdateRequest) -> Result<Changed<File>, Error> {
    let id = request.file;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::caller(caller)).await?;
    let updated = run(app, &mut tx, caller, request).await;
    super::recorded(app, caller, AuditAction::FileUpdate, id, tx.finish(updated).await).await
}

async fn run(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: UpdateRequest,
) -> Result<Changed<File>, Error> {
    let said = serde_json::to_vec(&(&request.update, &request.etag)).map_err(Error::internal)?;
    let attempt = (request.request_id, Method::UpdateFile, said);
    let (file, attempt) = match claim_with(app, tx, caller, request.file, attempt).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    // Behind the look for an answer: a retry is answered as the first time, though time has passed since.
    let update = request.update.check(&caller.tenant.policy, app.clock.now())?;
    if file.trash.is_some() {
        return Err(WrongState::Deleted.into());
    }
    if !request.etag.is_empty() && request.etag != file.etag() {
        return Err(Error::EtagMismatch);
    }
    update.check_ends(&file)?;
    // As with governed locks elsewhere: whoever may write may promise more. Taking a promise back is for admins, because it
    // was perhaps not made to the owner; the audit log tells of both.
    if update.shortens_retention(&file, app.clock.now()) && can_administer(caller).is_err() {
        return Err(Error::NotAllowed(
            "only the tenant's admins may let a file go before its retain_until_time",
        ));
    }
    if let Some(visibility) = update.visibility {
        can_show_to(caller, &file, visibility)?;
    }
    let updated = write(tx, caller, file, update).await?;
    conclude(tx, attempt, updated).await
}

async fn write(tx: &mut TenantTx, caller: &Caller, file: File, update: FileUpdate) -> Result<File, Error> {
    let (is_renamed, tags) =
        (update.name.as_ref().is_some_and(|name| *name != file.name), update.tags.clone());
    let details = serde_json::json!({ "fields": update.field_names() });
    let updated = files::update(tx, &update.apply(file.clone()), &caller.actor.id).await?;
    if is_renamed {
        file_readers::set_name(tx, updated.id, &updated.name).await?;
    }
    if let Some(tags) = tags {
        file_tags::replace(tx, updated.id, &tags).await?;
    }
    // Whoever loses sight of the file by it hears of it too.
    let event = Event::of(EventKind::FileUpdated, &updated, &caller.actor.id).seen_before(&file);
    note_with(tx, caller, event, (AuditAction::FileUpdate, details)).await?;
    Ok(filled(tx, updated).await?)
}
