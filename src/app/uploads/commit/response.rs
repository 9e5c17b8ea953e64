//! The response of a committed upload: the file, the quota, the warnings and the event.
//!
//! It is stored under the request id without the values that the commit determines, and a retry gets it again.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::super::{admit::read_admission_data, receive::content::ContentSummary};
use crate::{
    app::{
        App, Error, Resource,
        idempotency::{check_files_visible, replay_response},
    },
    db::{
        Viewer,
        commit::StoredUploadResponse,
        committed_file::{CommitTimes, CommittedContent, FileRecord},
        finished_upload::FinishedDestination,
        idempotency_keys::{Method, StoredResponse},
    },
    domain::{
        caller::Caller,
        digest::{Digest, Hasher},
        event_position::EventPosition,
        file::{File, VersionContent},
        ids::{RequestId, TenantId, UploadId},
        quota::{QuotaFigures, QuotaLevel, QuotaState},
    },
};

/// The size in bytes above which an upload returns a large-file warning.
const LARGE_FILE_BYTES: u64 = 10 * 1024 * 1024;

/// The file of an upload that is durable and visible.
#[derive(Debug, Clone)]
pub struct CommittedUpload {
    pub file: File,
    /// The tenant's quota after the upload.
    pub quota: QuotaState,
    /// Warnings about the content and the quota.
    pub warnings: Vec<Warning>,
    /// The position of the upload's event in the tenant's event stream.
    pub event: EventPosition,
}

/// A non-fatal problem with an upload.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Warning {
    /// A machine-readable code.
    pub code: WarningCode,
    /// A human-readable message.
    pub message: String,
}

/// The codes of warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum WarningCode {
    /// The file is larger than 10 MiB.
    LargeFile,
    /// Usage is above the quota's warning threshold.
    QuotaWarning,
    /// Usage is above the quota's critical threshold.
    QuotaCritical,
    /// The detected content type differs from the declared one.
    TypeCorrected,
}

/// A [`CommittedUpload`] without the values that the commit determines: the record of a file that gets a
/// version, the times and the quota.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UncommittedUpload<'a> {
    pub(super) tenant: TenantId,
    pub(super) destination: Cow<'a, FinishedDestination>,
    pub(super) content: Cow<'a, VersionContent>,
    pub(super) created_by: Cow<'a, str>,
    pub(super) warnings: Cow<'a, [Warning]>,
}

impl UncommittedUpload<'_> {
    pub(super) fn into_committed(
        self,
        times: CommitTimes,
        file_record: Option<Box<FileRecord>>,
        quota: QuotaFigures,
    ) -> Result<CommittedUpload, Error> {
        let event = times.event;
        let committed = CommittedContent {
            tenant: self.tenant,
            file: self.destination.file_id(),
            created_by: self.created_by.into_owned(),
            content: self.content.into_owned(),
            times,
        };
        let file = match (self.destination.into_owned(), file_record) {
            (FinishedDestination::NewFile { owner_id, record, .. }, None) => {
                committed.into_new_file(owner_id, *record)
            }
            (FinishedDestination::NewVersion { .. }, Some(record)) => committed.into_existing_file(*record),
            (FinishedDestination::NewFile { .. }, Some(_))
            | (FinishedDestination::NewVersion { .. }, None) => {
                return Err(Error::internal("file record does not match the destination of the upload"));
            }
        };
        let quota = quota.state();
        let mut warnings = self.warnings.into_owned();
        warnings.extend(quota_warning(&quota));
        Ok(CommittedUpload { file, quota, warnings, event })
    }
}

/// Returns the response stored under the request id.
///
/// # Errors
/// Returns `RequestIdReused` if the stored payload differs.
pub(in crate::app::uploads) fn replay_upload(
    stored: StoredResponse,
    payload: Digest,
) -> Result<CommittedUpload, Error> {
    let stored: StoredUploadResponse<UncommittedUpload<'static>> =
        replay_response(stored, Method::UploadFile, payload)?;
    stored.response.into_committed(stored.times, stored.file_record, stored.quota)
}

/// Returns the response of an earlier attempt, if the caller may still see its file.
///
/// # Errors
/// Returns `NotFound` if not.
pub(in crate::app::uploads) async fn check_replay(
    app: &App,
    caller: &Caller,
    upload: CommittedUpload,
) -> Result<CommittedUpload, Error> {
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let checked = check_files_visible(&mut tx, caller, &[upload.file.id]).await;
    tx.finish(checked).await?;
    Ok(upload)
}

/// Returns the stored response without comparing the payload.
fn read_response(stored: StoredResponse) -> Result<CommittedUpload, Error> {
    let payload = stored.payload;
    replay_upload(stored, payload)
}

/// Returns the stored response of a committed upload.
///
/// # Errors
/// Returns `NotFound` if no response is stored for this upload, or if its file is hidden from the caller now.
pub(in crate::app::uploads) async fn replay_committed_upload(
    app: &App,
    caller: &Caller,
    id: UploadId,
) -> Result<CommittedUpload, Error> {
    let admission = read_admission_data(app, caller, Some(commit_request_id(id))).await?;
    let upload = read_response(admission.response.ok_or(Error::NotFound(Resource::Upload))?)?;
    check_replay(app, caller, upload).await
}

/// Returns the request id under which an upload is committed.
///
/// It is a digest of the upload's id and not the id itself, because callers have the id and could use it for
/// another request. It is a UUIDv8, which no client library generates.
pub(in crate::app::uploads) fn commit_request_id(id: UploadId) -> RequestId {
    let mut hasher = Hasher::default();
    hasher.field(b"commit of upload");
    hasher.field(id.as_uuid().as_bytes());
    let digest = hasher.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    RequestId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// Returns the warnings about the content.
pub(super) fn content_warnings(declared_mime_type: &str, content: &ContentSummary) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if content.size_bytes > LARGE_FILE_BYTES {
        warnings.push(Warning {
            code: WarningCode::LargeFile,
            message: "large file: upload may take a while".to_owned(),
        });
    }
    if content.mime_type.is_corrected {
        let message =
            format!("declared as {declared_mime_type}, detected as {}", content.mime_type.mime_type);
        warnings.push(Warning { code: WarningCode::TypeCorrected, message });
    }
    warnings
}

/// Returns the warning about the quota after the upload, if any.
fn quota_warning(quota: &QuotaState) -> Option<Warning> {
    let code = match quota.level {
        QuotaLevel::Ok => return None,
        QuotaLevel::Warning => WarningCode::QuotaWarning,
        QuotaLevel::Critical | QuotaLevel::Full => WarningCode::QuotaCritical,
    };
    let message =
        format!("{} of {} bytes of the tenant's quota are used", quota.used_bytes, quota.limit_bytes);
    Some(Warning { code, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_stored_by_earlier_versions_can_be_read() {
        let stored = serde_json::json!({ "NewVersion": {
            "version": { "file": "0198c0de-1111-7000-8000-0000000000a2", "if_etag": "" },
            "category": "documents",
            "may_write_all": false,
        } });
        let read: FinishedDestination = serde_json::from_value(stored.clone()).unwrap();
        assert!(matches!(read, FinishedDestination::NewVersion { .. }));
        assert_eq!(serde_json::to_value(read).unwrap(), stored);
    }
}
