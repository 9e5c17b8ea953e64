//! What a client sends of an upload behind its spec.

use bytes::Bytes;

/// One message of an upload, behind its spec.
#[derive(Debug)]
pub enum UploadMessage {
    /// Some bytes.
    Chunk {
        /// Where they belong.
        offset: i64,
        /// The bytes.
        data: Bytes,
        /// Their CRC32C, where the client sent it.
        crc32c: Option<u32>,
    },
    /// All bytes were sent.
    Finish {
        /// How many.
        size_bytes: i64,
        /// Their SHA-256, where the client sent it.
        sha256: Option<Vec<u8>>,
    },
    /// A message that does not belong here, and why.
    OutOfOrder(&'static str),
}

/// A part as it came in.
#[derive(Debug)]
pub struct PartMessage {
    /// Where in the file it begins.
    pub offset: i64,
    /// Its bytes.
    pub data: Bytes,
    /// Their CRC32C, where the client sent it.
    pub crc32c: Option<u32>,
}

/// What the client says at the end.
#[derive(Debug)]
pub struct Completion {
    /// The total number of bytes. Optional for a direct upload, whose size was declared.
    pub size_bytes: Option<i64>,
    /// Their SHA-256, raw.
    pub sha256: Option<Vec<u8>>,
    /// The parts of a direct upload, with their etags.
    pub parts: Vec<(i32, String)>,
}
