//! Makes the objects of purged files, and those that were replaced, due for deletion.

use super::{get, operator_entry};
use crate::{
    app::{
        App, Error,
        idempotency::{self, RequestClaim},
        storage::relocation::READERS_HOURS,
    },
    db::{
        TenantTx, Viewer,
        audit_entries::{self, AuditAction},
        blobs,
        idempotency_keys::Method,
        stray_objects,
    },
    domain::{
        caller::Operator,
        ids::{RequestId, TenantId},
    },
};

/// The maximum number of objects of purged files, and of replaced objects, that one call makes due.
const OBJECTS_MAX: i64 = 10_000;

/// The bytes that were made due for deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReclaimedBytes {
    pub object_count: i64,
    pub bytes: i64,
    /// Whether the deletion of further objects is scheduled for later; call again.
    pub has_more: bool,
}

/// Makes the bytes of purged files of a tenant due for deletion now, instead of after the blob deletion delay, and
/// objects that archiving or a move replaced as soon as no download can have them open. A database that is restored
/// to an earlier time does not find them any more.
///
/// # Errors
/// Returns `NotFound`.
pub async fn reclaim_tenant(
    app: &App,
    operator: &Operator,
    id: TenantId,
    request_id: Option<RequestId>,
) -> Result<ReclaimedBytes, Error> {
    get::get_tenant(app, operator, id).await?;
    let mut tx = app.db.platform_tx(id, &Viewer::system()).await?;
    let reclaimed = reclaim_in_tx(app, &mut tx, operator, request_id).await;
    tx.finish(reclaimed).await
}

async fn reclaim_in_tx(
    app: &App,
    tx: &mut TenantTx,
    operator: &Operator,
    request_id: Option<RequestId>,
) -> Result<ReclaimedBytes, Error> {
    let payload = [operator.id().into_bytes()];
    let attempt =
        match idempotency::claim_request(app, tx, request_id, Method::ReclaimTenant, &payload).await? {
            RequestClaim::Replay(response) => return Ok(response),
            RequestClaim::New(attempt) => attempt,
        };
    let (blob_count, blob_bytes) = blobs::make_scheduled_due(tx, OBJECTS_MAX).await?;
    let (original_count, original_bytes) =
        stray_objects::make_originals_due(tx, READERS_HOURS, OBJECTS_MAX).await?;
    let reclaimed = ReclaimedBytes {
        object_count: blob_count + original_count,
        bytes: blob_bytes + original_bytes,
        has_more: blob_count == OBJECTS_MAX || original_count == OBJECTS_MAX,
    };
    let ReclaimedBytes { object_count, bytes, .. } = reclaimed;
    let details = serde_json::json!({ "object_count": object_count, "bytes": bytes });
    audit_entries::insert(tx, &[operator_entry(operator, AuditAction::TenantReclaim, details)]).await?;
    if let Some(attempt) = attempt {
        attempt.record_response(tx, &reclaimed).await?;
    }
    Ok(reclaimed)
}
