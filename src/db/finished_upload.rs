//! A finished upload, as the commit takes it.

use serde::{Deserialize, Serialize};

use super::{
    Viewer, audit_entries::AuditEntry, blobs::Blob, idempotency_keys::RequestKey, uploads::UploadLease,
};
use crate::domain::{
    block_checksums::BlockChecksums,
    file::VersionContent,
    ids::FileId,
    upload_destination::{NewFile, NewVersion},
};

/// A finished upload that is ready to be committed as a file or a version.
#[derive(Debug)]
pub struct FinishedUpload<'a, A> {
    pub destination: &'a FinishedDestination,
    /// The content. Its size and digest are those of the blob.
    pub content: &'a VersionContent,
    /// The id of the uploader.
    pub created_by: &'a str,
    /// The permissions of the uploader. The commit checks again that the uploader may see and change the file
    /// that gets a version.
    pub uploader: &'a Viewer,
    /// The description of the change in this version.
    pub change_description: &'a str,
    pub blob: &'a Blob,
    /// The checksums of its blocks, if it has several and its bytes are verified.
    pub block_checksums: Option<&'a BlockChecksums>,
    /// The audit entry of the upload. The commit adds the file and the version.
    pub audit: &'a AuditEntry,
    /// The lease of the upload's reservation, if it has one. The commit converts the reservation into usage.
    pub lease: Option<UploadLease>,
    /// The id and the payload of the request, if the response is stored under a request id.
    pub request: Option<RequestKey>,
    /// The response, without the parts that the commit adds. Stored under the request id as a
    /// [`StoredUploadResponse`](super::commit::StoredUploadResponse).
    pub response: A,
}

/// The file or version that a finished upload becomes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FinishedDestination {
    /// A new file.
    NewFile {
        id: FileId,
        owner_id: String,
        /// The record of the file. The commit sets its times.
        record: Box<NewFile>,
    },
    /// A new version of an existing file.
    NewVersion {
        version: NewVersion,
        /// The category of the file when its content was checked.
        category: String,
        /// Whether the uploader may change files that other users own.
        may_write_all: bool,
        /// The maximum number of versions of a file. Not part of stored responses.
        #[serde(skip, default)]
        version_count_max: u32,
    },
}

impl FinishedDestination {
    /// Returns the id of the file.
    pub fn file_id(&self) -> FileId {
        match self {
            Self::NewFile { id, .. } => *id,
            Self::NewVersion { version, .. } => version.file,
        }
    }
}
