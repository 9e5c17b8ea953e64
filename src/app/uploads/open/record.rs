//! Inserts the row of an upload that is created before its bytes, for both direct and proxied uploads.

use super::insert_upload;
use crate::{
    app::{
        App, Error, audit,
        idempotency::{self, RequestClaim},
        uploads::{UploadError, error::OpenUploadScope},
    },
    db::{
        TenantTx,
        audit_entries::{self, AuditAction},
        idempotency_keys::Method,
        resumable_uploads,
        uploads::{NewUpload, ResumableFields},
    },
    domain::{
        caller::Caller,
        upload::Upload,
        upload_spec::{CheckedSpec, ResolvedSpec},
    },
};

/// Inserts the upload with its audit entry and its idempotency key.
///
/// Returns the upload and whether it is new: an earlier request with the same request id may already have
/// created one.
pub(in crate::app::uploads) async fn insert_resumable_upload(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    row: NewUpload,
    spec: &ResolvedSpec,
) -> Result<(Upload, bool), Error> {
    let payload = idempotency_payload(caller, &spec.checked, row.is_direct);
    let attempt =
        match idempotency::claim_request(app, tx, spec.checked.request_id, Method::CreateUpload, &payload)
            .await?
        {
            RequestClaim::Replay(upload) => return Ok((upload, false)),
            RequestClaim::New(attempt) => attempt,
        };
    let mut entry = audit::new_entry(caller, AuditAction::UploadCreate);
    entry.details = serde_json::json!({ "upload_id": row.id });
    audit_entries::insert(tx, &[entry]).await?;
    insert_upload(tx, &row).await?;
    check_open_count(app, tx, &row.created_by).await?;
    let stored = resumable_uploads::get(tx, row.id).await?;
    let upload = stored.ok_or_else(|| Error::internal("created upload not found"))?.upload;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &upload).await?;
    }
    Ok((upload, true))
}

/// Checks the number of open uploads, including the one that this transaction inserted. The transaction has
/// updated the quota, so it holds the lock on its row: concurrent transactions are counted one after another, and
/// the limits are exact.
async fn check_open_count(app: &App, tx: &mut TenantTx, created_by: &str) -> Result<(), Error> {
    let limits = &app.limits.uploads;
    for (scope, creator, upload_count_max) in [
        (OpenUploadScope::Caller, Some(created_by), limits.open_per_caller_max),
        (OpenUploadScope::Tenant, None, limits.open_per_tenant_max),
    ] {
        let open = resumable_uploads::count_open(tx, creator, i64::from(upload_count_max) + 1).await?;
        if open > upload_count_max as usize {
            return Err(UploadError::TooManyOpen { scope, upload_count_max }.into());
        }
    }
    Ok(())
}

/// Returns the columns that are needed to resume the upload.
pub(in crate::app::uploads) fn resumable_columns(
    spec: &ResolvedSpec,
    part_size_bytes: u64,
) -> Result<ResumableFields, Error> {
    let part_size_bytes = i64::try_from(part_size_bytes).map_err(Error::internal)?;
    Ok(ResumableFields { spec: serde_json::to_value(spec).map_err(Error::internal)?, part_size_bytes })
}

/// Returns the payload that identifies this upload under its request id.
pub(in crate::app::uploads) fn idempotency_payload(
    caller: &Caller,
    spec: &CheckedSpec,
    is_direct: bool,
) -> [Vec<u8>; 2] {
    let fingerprint = spec.fingerprint(&caller.actor.id, spec.sha256);
    let suffix = if is_direct { " direct" } else { "" };
    let rest = format!("{:?}{suffix}", spec.size_bytes);
    [fingerprint.as_bytes().to_vec(), rest.into_bytes()]
}
