//! Admits an upload before its first byte: looks up an earlier response, checks the spec, the scan rule and the
//! quota, resolves the rules for the content, and chooses the location of the new blob.
//!
//! The next stage is `receive`.

use std::sync::Arc;

use super::error::{check_fits_parts, check_size, count_refusal};
use crate::{
    admission::Holder,
    app::{
        App, Error,
        access::{Operation, require_access},
        audit, idempotency,
        preconditions::{check_etag, check_version_count},
        restore::label::seal_label,
    },
    db::{
        TenantTx, Viewer, admission_data::AdmissionData, audit_entries::AuditAction, blobs::Blob, credits,
        files, idempotency_keys::StoredResponse, resumable_uploads::StoredUpload,
    },
    domain::{
        caller::{ActorKind, Caller},
        clock::Timestamp,
        digest::ObjectHashes,
        file::File,
        file_fields::check_retain_limit,
        ids::{BlobId, FileId, RequestId},
        object_key::ObjectKey,
        object_label::{ObjectLabel, PrivateLabel},
        policy::{FileSizeLimits, Policy, ScanRule},
        quota::Quota,
        upload_destination::{ContentRules, Destination, DestinationKind, NewVersion, UploadOwner},
        upload_spec::{CheckedSpec, ResolvedSpec, UploadSpec},
        violations::Violations,
    },
    storage::{ObjectStorage, PartLayout, PutOptions},
};

/// The result of the checks before the first byte.
pub(super) enum Admission {
    /// The bytes may be received.
    Admitted(Box<AdmittedUpload>),
    /// The request id already has a response.
    Replay { spec: Box<CheckedSpec>, stored: StoredResponse },
}

/// An upload whose bytes may be received.
pub(super) struct AdmittedUpload {
    pub(super) spec: ResolvedSpec,
    pub(super) target: Target,
    pub(super) basis: AdmissionBasis,
}

/// The quota with which an upload was admitted. It determines when the content is checked.
pub(super) enum AdmissionBasis {
    /// The quota was read for this upload. The content is checked while its bytes arrive.
    CurrentQuota(FileSizeLimits),
    /// The quota was cached, and the database was not read. The commit looks up an earlier response and checks
    /// the quota. Only a file that is too large for its media kind is rejected after its bytes were received,
    /// unless it was committed before.
    CachedQuota(Arc<Quota>),
}

/// Admits an upload, or finds the response of an earlier attempt.
///
/// # Errors
/// Returns the errors of [`check_credits`], [`check_admission`] and [`resolve_spec`].
pub(super) async fn admit_upload(app: &App, caller: &Caller, spec: UploadSpec) -> Result<Admission, Error> {
    // An invalid id is reported later, together with all other violations.
    let request_id = spec.request_id.parse::<RequestId>().ok();
    // A retry with a digest gets its response at the first message, so the request id is looked up before the
    // bytes arrive.
    let has_lookup = request_id.is_some() && spec.sha256.is_some();
    let credits = check_credits(app, caller).await;
    if !has_lookup
        && credits.is_ok()
        && let Some(quota) = cached_quota(app, caller, &spec).await
        && let Ok(checked) = check_admission(app, caller, spec.clone(), &quota)
        && let Some(rules) = unrestricted_rules(&caller.tenant.policy, &checked)
    {
        let spec = ResolvedSpec { checked, rules };
        return admit_with(app, caller, spec, AdmissionBasis::CachedQuota(quota));
    }
    let admission = read_admission_data(app, caller, request_id).await?;
    // A retry gets the stored response, even if the time, the limits or the quota have changed since.
    if let Some(stored) = admission.response {
        let spec = spec.check(&caller.tenant.policy, Timestamp::MIN_UTC)?;
        return Ok(Admission::Replay { spec: Box::new(spec), stored });
    }
    credits?;
    let spec = check_admission(app, caller, spec, &admission.quota);
    let spec = spec.inspect_err(|error| count_refusal(&app.metrics, error))?;
    let spec = resolve_spec(app, caller, spec).await?;
    admit_with(app, caller, spec, AdmissionBasis::CurrentQuota(admission.quota.file_size_max_bytes))
}

fn admit_with(
    app: &App,
    caller: &Caller,
    spec: ResolvedSpec,
    basis: AdmissionBasis,
) -> Result<Admission, Error> {
    let target = new_target(app, caller, &spec)?;
    Ok(Admission::Admitted(Box::new(AdmittedUpload { spec, target, basis })))
}

/// Returns the recently cached quota if the file is known to be small.
async fn cached_quota(app: &App, caller: &Caller, spec: &UploadSpec) -> Option<Arc<Quota>> {
    // A version has to read its file anyway, so it can read the quota in the same round trip.
    spec.file_id.is_empty().then_some(())?;
    let part_size_bytes = i64::try_from(app.limits.uploads.part_size_bytes).unwrap_or(i64::MAX);
    spec.size_bytes.filter(|size| *size <= part_size_bytes)?;
    app.quota_cache.get(caller.tenant_id()).await
}

/// Returns the rules for a new file if its category allows all types. Otherwise the allowed types may have
/// changed since a first attempt whose stored response was not looked up yet.
fn unrestricted_rules(policy: &Policy, spec: &CheckedSpec) -> Option<ContentRules> {
    match &spec.destination {
        Destination::NewFile(file) => Some(file.content_rules(policy)).filter(|rules| rules.types.is_any()),
        Destination::NewVersion(_) => None,
    }
}

pub(in crate::app) async fn read_admission_data(
    app: &App,
    caller: &Caller,
    request_id: Option<RequestId>,
) -> Result<AdmissionData, Error> {
    let (tenant, viewer) = (caller.tenant_id(), Viewer::from_caller(caller));
    let hours = idempotency::retention_hours(app);
    let admission = app.db.read_admission_data(tenant, &viewer, request_id, hours).await?;
    app.quota_cache.insert(&admission.quota).await;
    Ok(admission)
}

/// Checks that the caller has credits, if storage has a price. Services are never rejected. The credits are not
/// reserved: the storage of a day costs what the user has, and never more.
///
/// # Errors
/// Returns `CreditsExhausted` for a user without credits.
pub(in crate::app) async fn check_credits(app: &App, caller: &Caller) -> Result<(), Error> {
    if !needs_credits(caller) {
        return Ok(());
    }
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let checked = check_credits_in_tx(&mut tx, caller).await;
    tx.finish(checked).await
}

/// Does the same as [`check_credits`] in a transaction.
pub(in crate::app) async fn check_credits_in_tx(tx: &mut TenantTx, caller: &Caller) -> Result<(), Error> {
    if !needs_credits(caller) {
        return Ok(());
    }
    let balance = credits::get(tx, &caller.actor.id).await?.map_or(0, |credits| credits.balance);
    if balance > 0 { Ok(()) } else { Err(Error::CreditsExhausted { balance, required: 1 }) }
}

fn needs_credits(caller: &Caller) -> bool {
    caller.tenant.metering.gib_day_credits > 0 && caller.actor.kind == ActorKind::User
}

/// Checks the spec, the scan rule and the quota before any bytes are received.
pub(in crate::app) fn check_admission(
    app: &App,
    caller: &Caller,
    mut spec: UploadSpec,
    quota: &Quota,
) -> Result<CheckedSpec, Error> {
    let until = spec.retain_until_time;
    add_retain_violations(caller, until, app.clock.now(), &mut spec.parse_violations);
    let spec = spec.check(&caller.tenant.policy, app.clock.now())?;
    check_scan_rule(app, caller)?;
    check_quota(quota, &spec)?;
    check_fits_parts(spec.size_bytes.unwrap_or_default(), stream_layout(app))?;
    Ok(spec)
}

/// Adds a violation if the policy does not let the caller retain a file for so long. Depends on the role, so it
/// does not apply to a retry, which gets the stored response.
fn add_retain_violations(
    caller: &Caller,
    until: Option<Timestamp>,
    now: Timestamp,
    violations: &mut Violations,
) {
    let days_max = caller.tenant.policy.retain.days_max(caller.role);
    check_retain_limit("spec.retain_until_time", until, days_max, now, violations);
}

/// Rejects uploads if the policy requires a scan and no scanner is configured, unless the operator accepts
/// unscanned files.
fn check_scan_rule(app: &App, caller: &Caller) -> Result<(), Error> {
    match caller.tenant.policy.scan {
        ScanRule::Required if !app.limits.scanning.accept_unscanned => Err(Error::ScanRequired),
        ScanRule::Required | ScanRule::WhereConfigured | ScanRule::NotRequired => Ok(()),
    }
}

/// Rejects a file that cannot fit the quota before its bytes are received. The charge in the commit is the
/// final decision.
fn check_quota(quota: &Quota, spec: &CheckedSpec) -> Result<(), Error> {
    let size = spec.size_bytes.unwrap_or_default();
    check_size(size, None, &quota.file_size_max_bytes)?;
    let needed = i64::try_from(size).unwrap_or(i64::MAX);
    let is_at_count =
        quota.file_count_max > 0 && quota.file_count + quota.reserved_file_count >= quota.file_count_max;
    // A version is charged for its bytes but does not count as another file.
    let is_over_count = is_at_count && spec.destination.kind().file_count() > 0;
    if needed > quota.available_bytes() || is_over_count {
        return Err(Error::quota_exceeded(quota, needed));
    }
    Ok(())
}

/// Resolves the rules for the content. For a new version, reads its file and checks it before any bytes are
/// received. The commit checks again under the file's lock, because the file may be deleted in the meantime.
///
/// # Errors
/// Returns `NotFound`, `NotAllowed`, `FileDeleted`, `EtagMismatch`, or `FileNotAvailable` if the file is
/// archived.
pub(super) async fn resolve_spec(
    app: &App,
    caller: &Caller,
    spec: CheckedSpec,
) -> Result<ResolvedSpec, Error> {
    let policy = &caller.tenant.policy;
    let NewVersion { file: id, if_etag } = match &spec.destination {
        Destination::NewFile(file) => {
            return Ok(ResolvedSpec { rules: file.content_rules(policy), checked: spec });
        }
        Destination::NewVersion(version) => version,
    };
    let id = *id;
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let found = load_target_file(app, &mut tx, caller, id, if_etag).await;
    match tx.finish(found).await {
        // The version's objects share the category's key prefix, and the category's rules apply to them.
        Ok(file) => {
            let types = policy.allowed_types(&file.category);
            let rules = ContentRules { category: file.category, types, file_name: file.name };
            Ok(ResolvedSpec { checked: spec, rules })
        }
        Err(error @ Error::NotAllowed(_)) => {
            Err(audit::record_denial(app, caller, AuditAction::FileUpload, Some(id), error).await)
        }
        Err(error) => Err(error),
    }
}

/// Checks again that the caller may see and change the file that an open upload becomes a version of, before
/// the upload accepts bytes, signs URLs or fences another writer. The commit checks it under the file's lock.
///
/// # Errors
/// Returns `NotFound` if the file is hidden from the caller now, and `NotAllowed` if the caller may no longer
/// change it.
pub(super) async fn check_target_again(
    tx: &mut TenantTx,
    caller: &Caller,
    spec: &CheckedSpec,
) -> Result<(), Error> {
    let Destination::NewVersion(NewVersion { file: id, .. }) = &spec.destination else { return Ok(()) };
    require_access(caller, files::get(tx, *id).await?, Operation::Change).map(|_| ())
}

/// Checks that the policy still lets the caller retain the new file of an open upload for so long. The policy or
/// the role may have changed since the upload was admitted.
///
/// # Errors
/// Returns `Invalid`.
pub(super) fn check_retention_again(
    caller: &Caller,
    spec: &CheckedSpec,
    now: Timestamp,
) -> Result<(), Error> {
    let Destination::NewFile(file) = &spec.destination else { return Ok(()) };
    let mut violations = Violations::new();
    add_retain_violations(caller, file.retain_until_time, now, &mut violations);
    Ok(violations.into_result()?)
}

async fn load_target_file(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    id: FileId,
    if_etag: &str,
) -> Result<File, Error> {
    let file = require_access(caller, files::get(tx, id).await?, Operation::Change)?;
    check_etag(if_etag, &file.etag())?;
    file.state().check_accepts_version()?;
    check_version_count(app, tx, id).await?;
    Ok(file)
}

/// The location of a new blob.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The store that receives all bytes of the blob.
    pub(super) store: Arc<dyn ObjectStorage>,
    pub(super) blob_id: BlobId,
    /// The server-generated key. It contains no part of the file's name.
    pub(super) key: ObjectKey,
    /// The options of the object. They contain the name of the file only sealed.
    pub(super) options: PutOptions,
    /// Whether the blob becomes a new file or a new version.
    pub(super) destination: DestinationKind,
    /// The user whose quota the blob uses.
    pub(super) owner: UploadOwner,
}

/// Chooses the location of a new blob. Each call returns a new key, so no object is ever overwritten.
pub(super) fn new_target(app: &App, caller: &Caller, spec: &ResolvedSpec) -> Result<Target, Error> {
    app.owners.check_primary()?;
    caller.note_object();
    let blob_id = BlobId::from_uuid(app.ids.uuid());
    let day = app.clock.now().date_naive();
    let key =
        ObjectKey::for_blob(&app.limits.key_prefix, caller.tenant_id(), &spec.rules.category, day, blob_id)
            .map_err(Error::internal)?;
    let options = labeled_options(app, caller, spec, blob_id)?;
    let store = app.stores.primary_for(Holder::of_caller(caller));
    let destination = &spec.checked.destination;
    let owner = owner_of(caller, destination);
    Ok(Target { store, blob_id, key, options, destination: destination.kind(), owner })
}

/// Returns the user whose quota an upload uses.
fn owner_of(caller: &Caller, destination: &Destination) -> UploadOwner {
    match destination {
        Destination::NewFile(record) => {
            let origin = record.import_origin.as_ref();
            UploadOwner::User(origin.map_or(&caller.actor.id, |origin| &origin.owner_id).clone())
        }
        Destination::NewVersion(version) => UploadOwner::OwnerOf(version.file),
    }
}

/// Returns the options of the object of a blob, with a label that describes its file.
fn labeled_options(
    app: &App,
    caller: &Caller,
    ResolvedSpec { checked, rules }: &ResolvedSpec,
    blob: BlobId,
) -> Result<PutOptions, Error> {
    let actor = &caller.actor.id;
    let (file, owner_id) = match owner_of(caller, &checked.destination) {
        UploadOwner::User(owner_id) => (FileId::of_first_blob(blob), owner_id),
        // The label of a version names the uploader.
        UploadOwner::OwnerOf(file) => (file, actor.clone()),
    };
    let label = ObjectLabel {
        file,
        is_first_version: !checked.destination.kind().is_version(),
        create_time: app.clock.now(),
        category: rules.category.clone(),
        sha256: checked.sha256,
        private: PrivateLabel {
            name: rules.file_name.clone(),
            owner_id,
            declared_mime_type: checked.declared_mime_type.clone(),
        },
    };
    let metadata = seal_label(app, caller.tenant_id(), &label)?;
    Ok(PutOptions::for_blob(caller.tenant_id(), Some(actor)).with_metadata(metadata))
}

impl Target {
    /// Returns the location of the blob of a stored upload.
    pub(super) fn from_stored(app: &App, caller: &Caller, stored: &StoredUpload) -> Result<Self, Error> {
        app.owners.check_known(&stored.provider)?;
        Ok(Self {
            store: app.stores.get_for(&stored.provider, Holder::of_caller(caller))?,
            blob_id: stored.blob_id,
            key: stored.key.clone(),
            options: labeled_options(app, caller, &stored.spec, stored.blob_id)?,
            destination: stored.spec.checked.destination.kind(),
            owner: owner_of(caller, &stored.spec.checked.destination),
        })
    }

    /// Returns the blob row for the stored bytes.
    pub(super) fn to_blob(&self, size_bytes: u64, hashes: Option<ObjectHashes>) -> Blob {
        Blob {
            id: self.blob_id,
            provider: self.store.provider().to_owned(),
            key: self.key.clone(),
            size_bytes,
            hashes,
            class: self.options.class,
        }
    }
}

/// Returns the sizes of the parts of an upload in a single stream, whose size may be unknown.
pub(super) fn stream_layout(app: &App) -> PartLayout {
    let uploads = &app.limits.uploads;
    PartLayout::growing(uploads.part_size_bytes as u64, uploads.equal_parts_max)
}
