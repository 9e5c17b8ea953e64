//! An upload that was created before its bytes, and can be gone on with until it is committed or given up.

use super::{
    clock::Timestamp,
    ids::{FileId, UploadId},
    sql_enum::sql_enum,
};

sql_enum! {
    /// The state of an upload.
    UploadState {
        /// It holds its reservation.
        Open = 1 => "open",
        /// It became a file.
        Committed = 2 => "committed",
        /// It was given up.
        Aborted = 3 => "aborted",
    }
}

/// An upload, as those see it who may go on with it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// Open, or committed. One that was given up is not shown any more.
    pub state: UploadState,
    /// What the file is to be called.
    pub name: String,
    /// How many bytes it will have, where that was said.
    pub size_bytes: Option<u64>,
    /// The size of its parts: every part has it but the last.
    pub part_size_bytes: u64,
    /// How many bytes are in the store, from the first on without a gap: where to go on.
    pub persisted_size_bytes: u64,
    /// Who created it, and goes on with it.
    pub created_by: String,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it is given up, unless more bytes come before.
    pub expire_time: Timestamp,
    /// The file that it became.
    pub file: Option<FileId>,
}
