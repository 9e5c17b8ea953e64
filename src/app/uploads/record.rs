//! The row of an upload that is created before its bytes, whichever way these will come.

use super::open::insert;
use crate::{
    app::{
        App, Error, audit,
        idempotency::{self, Begun},
    },
    db::{
        TenantTx,
        audit_entries::{self, AuditAction},
        idempotency_keys::Method,
        resumable_uploads,
        uploads::{NewUpload, Resumable},
    },
    domain::{caller::Caller, digest::Digest, upload::Upload, upload_spec::CheckedSpec},
};

/// Answers the upload, and whether it is this one: with the same request id another may have been first.
pub(super) async fn record(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    row: NewUpload,
    spec: &CheckedSpec,
) -> Result<(Upload, bool), Error> {
    let payload = payload(caller, spec, row.is_direct);
    let attempt = match idempotency::begin(app, tx, spec.request_id, Method::CreateUpload, &payload).await? {
        Begun::Replay(upload) => return Ok((upload, false)),
        Begun::Fresh(attempt) => attempt,
    };
    let mut entry = audit::entry(caller, AuditAction::UploadCreate, None);
    entry.details = serde_json::json!({ "upload_id": row.id });
    audit_entries::insert(tx, &[entry]).await?;
    insert(tx, &row).await?;
    let stored = resumable_uploads::get(tx, row.id).await?;
    let upload = stored.ok_or_else(|| Error::internal("a created upload is not there"))?.upload;
    if let Some(attempt) = attempt {
        attempt.record(tx, &upload).await?;
    }
    Ok((upload, true))
}

/// What it takes to go on with it.
pub(super) fn resumable(spec: &CheckedSpec, part_size_bytes: u64) -> Result<Resumable, Error> {
    let part_size_bytes = i64::try_from(part_size_bytes).map_err(Error::internal)?;
    Ok(Resumable { spec: serde_json::to_value(spec).map_err(Error::internal)?, part_size_bytes })
}

/// What stands for this upload when its request id comes again.
pub(super) fn payload(caller: &Caller, spec: &CheckedSpec, is_direct: bool) -> [Vec<u8>; 2] {
    let said = spec.sha256.unwrap_or_else(|| Digest::of(&[]));
    let fingerprint = spec.fingerprint(&caller.actor.id, said);
    let door = if is_direct { " direct" } else { "" };
    let rest = format!("{:?} {}{door}", spec.size_bytes, spec.sha256.is_some());
    [fingerprint.as_bytes().to_vec(), rest.into_bytes()]
}
