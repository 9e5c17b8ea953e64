//! An upload that is created before its bytes are sent, and can be resumed until it is committed or
//! abandoned.

use super::{
    clock::Timestamp,
    ids::{FileId, UploadId},
    sql_enum::sql_enum,
};

sql_enum! {
    /// The state of an upload.
    UploadState {
        /// The upload holds a reservation.
        Open = 1 => "open",
        /// The upload became a file.
        Committed = 2 => "committed",
        /// The upload was abandoned.
        Abandoned = 3 => "abandoned",
    }
}

/// An upload as shown to its creator and to admins.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Upload {
    pub id: UploadId,
    /// `Open` or `Committed`. Abandoned uploads are not shown.
    pub state: UploadState,
    /// The name of the future file; `None` for a new version of an existing file.
    pub name: Option<String>,
    /// The declared size of the file in bytes, if any.
    pub size_bytes: Option<u64>,
    /// The size of every part except the last, which may be smaller.
    pub part_size_bytes: u64,
    /// The number of bytes in the store, from the first one up to the first gap. The client resumes here.
    pub persisted_size_bytes: u64,
    /// The id of the creator, who alone may resume it.
    pub created_by: String,
    pub create_time: Timestamp,
    /// When the upload is abandoned unless more bytes arrive before.
    pub expire_time: Timestamp,
    /// The file, if the upload was committed.
    pub file: Option<FileId>,
}
