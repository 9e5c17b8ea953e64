//! Uploads one file in a single stream, in three stages: `admit` checks the spec, `receive` receives the bytes,
//! and `commit` makes them durable and the file visible.
//!
//! Read this file first, then the stages in this order.

use std::sync::Arc;

use tracing::Instrument as _;

use super::{
    admit::{Admission, AdmissionBasis, AdmittedUpload, admit_upload, read_admission_data},
    commit::{self, CommittedUpload, check_replay, replay_upload},
    error::{check_size, count_outcome, count_refusal},
    receive::{
        ReceivedStream,
        compare::{CommittedContent, receive_to_compare},
        pace::UploadStream,
        receive_upload,
    },
};
use crate::{
    app::{App, Error, quotas::trash::explain_shortage},
    db::idempotency_keys::StoredResponse,
    domain::{
        caller::Caller,
        upload_spec::{CheckedSpec, ResolvedSpec, UploadSpec},
    },
};

/// Uploads one file. `messages` ends (`None`) when the client's stream ends, whether it completed or broke:
/// only an explicit finish message commits. Dropping the future abandons the upload unless the commit has
/// started.
///
/// # Errors
/// Returns any error that the API documents for `UploadFile`. On error nothing becomes visible and nothing is
/// left behind.
pub async fn upload_file<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: UploadSpec,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: UploadStream,
{
    let uploaded = run_stages(app, caller, spec, messages).await;
    let uploaded = explain_shortage(app, caller, uploaded).await;
    count_outcome(app, &uploaded);
    uploaded
}

async fn run_stages<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: UploadSpec,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: UploadStream,
{
    let admitted = match admit_upload(app, caller, spec).await? {
        Admission::Admitted(admitted) => *admitted,
        Admission::Replay { spec, stored } => {
            return compare_and_replay(app, caller, &spec, stored, messages).await;
        }
    };
    let received = receive_upload(app, caller, &admitted, messages).await?;
    if let Some(committed) = check_limits_after_receipt(app, caller, &admitted, &received).await? {
        return Ok(committed);
    }
    store_and_commit(app, caller, admitted.spec, received).await
}

/// Runs the last stage in a separate task, so that a client that disconnects now does not undo the upload.
pub(super) async fn store_and_commit(
    app: &Arc<App>,
    caller: &Caller,
    spec: ResolvedSpec,
    received: ReceivedStream,
) -> Result<CommittedUpload, Error> {
    let (app, caller) = (Arc::clone(app), caller.clone());
    let tasks = app.tasks.clone();
    let finishing = async move { commit::store_and_commit(&app, &caller, spec, received).await };
    tasks.spawn(finishing.in_current_span()).await.map_err(Error::internal)?
}

/// Checks the size of a file that was admitted with a cached quota, whose limits may have changed. Returns the
/// stored response if the file is too large for its media kind but was committed before.
async fn check_limits_after_receipt(
    app: &App,
    caller: &Caller,
    AdmittedUpload { spec, basis, .. }: &AdmittedUpload,
    received: &ReceivedStream,
) -> Result<Option<CommittedUpload>, Error> {
    let AdmissionBasis::CachedQuota(quota) = basis else { return Ok(None) };
    let (size_bytes, kind) = (received.content.size_bytes, Some(received.content.kind));
    if check_size(size_bytes, kind, &quota.file_size_max_bytes).is_ok() {
        return Ok(None);
    }
    let admission = read_admission_data(app, caller, spec.checked.request_id).await?;
    if let Some(stored) = admission.response {
        let payload = spec.checked.fingerprint(&caller.actor.id, Some(received.sha256));
        return check_replay(app, caller, replay_upload(stored, payload)?).await.map(Some);
    }
    let fits = check_size(size_bytes, kind, &admission.quota.file_size_max_bytes);
    fits.inspect_err(|error| count_refusal(&app.metrics, error))?;
    Ok(None)
}

/// Returns the stored response to a retry. If the spec has no digest, the bytes are read to the end and
/// compared, but not stored.
async fn compare_and_replay<S>(
    app: &Arc<App>,
    caller: &Caller,
    spec: &CheckedSpec,
    stored: StoredResponse,
    messages: S,
) -> Result<CommittedUpload, Error>
where
    S: UploadStream,
{
    let sha256 = match spec.sha256 {
        Some(sha256) => sha256,
        None => receive_to_compare(app, caller, spec, messages).await?,
    };
    let payload = spec.fingerprint(&caller.actor.id, Some(sha256));
    let committed = check_replay(app, caller, replay_upload(stored, payload)?).await?;
    if let Some(size_bytes) = spec.size_bytes {
        CommittedContent::from(&committed).check(size_bytes, None)?;
    }
    Ok(committed)
}
