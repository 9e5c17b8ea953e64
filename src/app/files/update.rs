//! Updates the metadata of a file. See `recategorize` for the effects of a new category.

use super::{
    FileChange, MutationResponse, MutationStart, begin_mutation_with_payload, finish_mutation,
    load_file_details,
    recategorize::{self, ReaderChanges},
    record_change_with_details,
};
use crate::{
    app::{
        App, Denial, Error,
        access::{VisibilityChange, check_is_admin, check_visibility_change, is_owner_or_admin},
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
        file::{File, FileState, WrongState},
        file_update::FileUpdate,
        violations::Violations,
    },
};

/// A request to update a file.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    pub change: FileChange,
    pub update: FileUpdate,
}

/// Updates the metadata of a file. Its content, version and state do not change.
///
/// # Errors
/// Returns `Invalid` with every violation, `NotFound`, `NotAllowed`, `FileDeleted` or `EtagMismatch`, and
/// `FileNotAvailable` if the record is damaged.
pub async fn update_file(
    app: &App,
    caller: &Caller,
    request: UpdateRequest,
) -> Result<MutationResponse<File>, Error> {
    let id = request.change.file;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let updated = update_in_tx(app, &mut tx, caller, request).await;
    super::record_if_denied(app, caller, AuditAction::FileUpdate, id, tx.finish(updated).await).await
}

async fn update_in_tx(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    request: UpdateRequest,
) -> Result<MutationResponse<File>, Error> {
    let fields = serde_json::to_vec(&request.update).map_err(Error::internal)?;
    let start =
        begin_mutation_with_payload(app, tx, caller, &request.change, Method::UpdateFile, fields).await?;
    let (file, attempt) = match start {
        MutationStart::Replay(response) => return Ok(response),
        MutationStart::Locked(file, attempt) => (*file, attempt),
    };
    // Check only after the lookup of the request id: a retry gets the first response, even if the checks
    // would fail now.
    let policy = &caller.tenant.policy;
    // A retention also binds the owner, so other members must not set it, even if they may write the file.
    if request.update.changes_retention(&file) && !is_owner_or_admin(caller, &file) {
        return Err(Error::NotAllowed(Denial::SetsRetention));
    }
    let update = check_update(app, tx, caller, &file, request.update).await?;
    if file.trash.is_some() {
        return Err(WrongState::Deleted.into());
    }
    if file.has_damaged_record() {
        // The update would replace the parts that cannot be read.
        return Err(Error::for_file_state(FileState::Error));
    }
    update.check_end_times(&file)?;
    // As in the governance mode of object locks, the owner may extend the retention within the limit of the
    // policy. Only admins may shorten it, because it may protect someone other than the owner. The audit log
    // records both.
    if update.shortens_retention(&file, app.clock.now()) && check_is_admin(caller).is_err() {
        return Err(Error::NotAllowed(Denial::ShortensRetention));
    }
    let readers = match update.new_category(&file) {
        Some(category) => Some(recategorize::compute_readers(tx, policy, &file, category).await?),
        None => None,
    };
    if update.visibility.is_some() || readers.is_some() {
        let change = VisibilityChange {
            visibility: update.visibility.unwrap_or(file.visibility),
            added_readers: readers.as_ref().map(|readers| readers.added.as_slice()).unwrap_or_default(),
            is_policy_reader: readers.as_ref().is_some_and(|readers| readers.includes(caller)),
        };
        check_visibility_change(caller, &file, change)?;
    }
    let updated = apply_update(tx, caller, file, update, readers).await?;
    finish_mutation(tx, attempt, updated).await
}

/// Validates the update. A new category also sets the visibility, unless the update does.
async fn check_update(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    file: &File,
    update: FileUpdate,
) -> Result<FileUpdate, Error> {
    let (policy, now) = (&caller.tenant.policy, app.clock.now());
    let mut violations = Violations::new();
    let mut update = update.without_unchanged_name(file).check(policy, now, &mut violations);
    update.check_retain_limit(file, policy.retain.days_max(caller.role), now, &mut violations);
    if let Some(category) = update.new_category(file).filter(|new| policy.categories.contains_key(*new)) {
        let name = update.name.as_ref().unwrap_or(&file.name);
        recategorize::check_versions(tx, policy, file, name, category, &mut violations).await?;
        let visibility = policy.visibility_in_category(category, file);
        if visibility != file.visibility {
            update.visibility.get_or_insert(visibility);
        }
    }
    violations.into_result()?;
    Ok(update)
}

async fn apply_update(
    tx: &mut TenantTx,
    caller: &Caller,
    file: File,
    update: FileUpdate,
    readers: Option<ReaderChanges>,
) -> Result<File, Error> {
    let (is_renamed, tags) =
        (update.name.as_ref().is_some_and(|name| *name != file.name), update.tags.clone());
    let mut details = serde_json::json!({ "fields": update.field_names() });
    let moved = update.new_category(&file).map(str::to_owned).zip(readers);
    if let Some((category, readers)) = &moved {
        details["category"] = serde_json::json!({ "from": file.category, "to": category });
        // Insert grants before the update. Otherwise the update would not return the row to a caller who sees
        // the file only through a new grant.
        file_readers::insert_by_policy(tx, file.id, &readers.added).await?;
    }
    let updated = files::update(tx, &update.apply(file.clone()), &caller.actor.id).await;
    let updated = updated.map_err(map_category_error)?;
    let removed = moved.as_ref().map(|(_, readers)| readers.removed.clone()).unwrap_or_default();
    if moved.is_some() {
        file_readers::delete_by_policy(tx, updated.id, &removed).await?;
    }
    if is_renamed {
        file_readers::set_name(tx, updated.id, &updated.name).await?;
    }
    if let Some(tags) = tags {
        file_tags::replace(tx, updated.id, &tags).await?;
    }
    // Watchers who can no longer see the file after the update receive the event too.
    let event =
        Event::for_file(EventKind::FileUpdated, &updated, &caller.actor.id).with_former_viewers(&file);
    record_change_with_details(
        tx,
        caller,
        event.with_removed_readers(removed),
        AuditAction::FileUpdate,
        details,
    )
    .await?;
    if moved.is_some() {
        recategorize::move_usage(tx, &file, &updated).await?;
    }
    Ok(load_file_details(tx, updated).await?)
}

/// Adds the field of the request to the error for a category that was deleted from the policy concurrently.
fn map_category_error(error: DbError) -> Error {
    match error.into() {
        Error::Invalid(violations) => Error::Invalid(violations.with_field("file.category")),
        error => error,
    }
}
