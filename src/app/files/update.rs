//! Changes what people wrote about a file, and where they filed it: see `recategorize` for what another category means.

use super::{
    Changed, Claimed, FileChange, claim_with, conclude, filled, note_with,
    recategorize::{self, Readers},
};
use crate::{
    app::{
        App, Error,
        access::{Sight, can_administer, can_show_to},
    },
    db::{
        DbError, TenantTx, Viewer,
        audit_entries::AuditAction,
        events::{Event, EventKind},
        file_readers, file_tags, files,
        idempotency_keys::Method,
    },
    domain::{
        caller::Caller,
        file::{File, WrongState},
        file_update::FileUpdate,
        policy::Policy,
        violations::Violations,
    },
};

/// What to change.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// Which file.
    pub change: FileChange,
    /// The new values.
    pub update: FileUpdate,
}

/// Changes what people wrote about a file. Its content, its version and its state stay as they are.
///
/// # Errors
/// `Invalid` with every violation, `NotFound`, `NotAllowed`, `FileDeleted`, `EtagMismatch`.
pub async fn update(app: &App, caller: &Caller, request: UpdateRequest) -> Result<Changed<File>, Error> {
    let id = request.change.file;
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
    let said = serde_json::to_vec(&request.update).map_err(Error::internal)?;
    let attempt = (Method::UpdateFile, said);
    let (file, attempt) = match claim_with(app, tx, caller, &request.change, attempt).await? {
        Claimed::Answered(answer) => return Ok(answer),
        Claimed::Ours(file, attempt) => (*file, attempt),
    };
    // Behind the look for an answer: a retry is answered as the first time, though time has passed since.
    let policy = &caller.tenant.policy;
    let update = checked(app, tx, policy, &file, request.update).await?;
    if file.trash.is_some() {
        return Err(WrongState::Deleted.into());
    }
    update.check_ends(&file)?;
    // As with governed locks elsewhere: whoever may write may promise more. Taking a promise back is for admins, because it
    // was perhaps not made to the owner; the audit log tells of both.
    if update.shortens_retention(&file, app.clock.now()) && can_administer(caller).is_err() {
        return Err(Error::NotAllowed(
            "only the tenant's admins may let a file go before its retain_until_time",
        ));
    }
    let readers = match update.new_category(&file) {
        Some(category) => Some(recategorize::readers(tx, policy, &file, category).await?),
        None => None,
    };
    if update.visibility.is_some() || readers.is_some() {
        let sight = Sight {
            visibility: update.visibility.unwrap_or(file.visibility),
            gained: readers.as_ref().map(|readers| readers.gained.as_slice()).unwrap_or_default(),
            is_granted: readers.as_ref().is_some_and(|readers| readers.includes(caller)),
        };
        can_show_to(caller, &file, sight)?;
    }
    let updated = write(tx, caller, file, (update, readers)).await?;
    conclude(tx, attempt, updated).await
}

/// The update as it is to be made, when nothing is wrong with it. A new category brings its visibility along.
async fn checked(
    app: &App,
    tx: &mut TenantTx,
    policy: &Policy,
    file: &File,
    update: FileUpdate,
) -> Result<FileUpdate, Error> {
    let mut wrong = Violations::new();
    let mut update = update.check(policy, app.clock.now(), &mut wrong);
    if let Some(category) = update.new_category(file).filter(|new| policy.categories.contains_key(*new)) {
        let name = update.name.as_ref().unwrap_or(&file.name);
        recategorize::check(tx, policy, (file, name), category, &mut wrong).await?;
        let visibility = policy.visibility_in(category, file);
        if visibility != file.visibility {
            update.visibility.get_or_insert(visibility);
        }
    }
    wrong.into_result()?;
    Ok(update)
}

async fn write(
    tx: &mut TenantTx,
    caller: &Caller,
    file: File,
    (update, readers): (FileUpdate, Option<Readers>),
) -> Result<File, Error> {
    let (is_renamed, tags) =
        (update.name.as_ref().is_some_and(|name| *name != file.name), update.tags.clone());
    let mut details = serde_json::json!({ "fields": update.field_names() });
    let moved = update.new_category(&file).map(str::to_owned).zip(readers);
    if let Some((category, readers)) = &moved {
        details["category"] = serde_json::json!({ "from": file.category, "to": category });
        // Before the row: whoever sees the file only as one of them sees what comes of it.
        file_readers::insert(tx, file.id, &readers.gained).await?;
    }
    let updated = files::update(tx, &update.apply(file.clone()), &caller.actor.id).await;
    let updated = updated.map_err(of_category)?;
    let lost = moved.as_ref().map(|(_, readers)| readers.lost.clone()).unwrap_or_default();
    if moved.is_some() {
        file_readers::delete_some(tx, updated.id, &lost).await?;
    }
    if is_renamed {
        file_readers::set_name(tx, updated.id, &updated.name).await?;
    }
    if let Some(tags) = tags {
        file_tags::replace(tx, updated.id, &tags).await?;
    }
    // Whoever loses sight of the file by it hears of it too.
    let event = Event::of(EventKind::FileUpdated, &updated, &caller.actor.id).seen_before(&file);
    note_with(tx, caller, event.taken_from(lost), (AuditAction::FileUpdate, details)).await?;
    if moved.is_some() {
        recategorize::count(tx, &file, &updated).await?;
    }
    Ok(filled(tx, updated).await?)
}

/// A category that was removed meanwhile is told of under the name that it has here.
fn of_category(error: DbError) -> Error {
    match error.into() {
        Error::Invalid(wrong) => Error::Invalid(wrong.about("file.category")),
        error => error,
    }
}
