//! What a client's stream carries behind the spec.

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
