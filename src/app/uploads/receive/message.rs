//! The messages of an upload after its spec.

use std::any::Any;

use bytes::Bytes;

use crate::app::uploads::UploadStreamOrder;

/// A message of an upload stream after its spec.
#[derive(Debug)]
pub enum UploadMessage {
    /// A chunk of the file.
    Chunk {
        /// The offset in the file, in bytes.
        offset: i64,
        data: Bytes,
        /// The CRC32C of `data`, if the client sent it.
        crc32c: Option<u32>,
    },
    /// The end of the file.
    Finish {
        /// The size of the file.
        size_bytes: i64,
        /// The SHA-256 of the file, if the client sent it.
        sha256: Option<Vec<u8>>,
    },
    /// A message that is not allowed here.
    OutOfOrder(UploadStreamOrder),
}

/// A part of an upload as received.
#[derive(Debug)]
pub struct PartMessage {
    /// The offset in the file, in bytes.
    pub offset: i64,
    pub data: Bytes,
    /// The CRC32C of `data`, if the client sent it.
    pub crc32c: Option<u32>,
    /// Holds the memory of `data` in the budget of decoded messages. Dropped when the budget of the buffers
    /// counts it.
    pub held: Option<Box<dyn Any + Send>>,
}

/// The client's request to complete an upload.
#[derive(Debug)]
pub struct Completion {
    /// The size of the file. Optional for a direct upload, whose size was declared.
    pub size_bytes: Option<i64>,
    /// The raw SHA-256 of the file.
    pub sha256: Option<Vec<u8>>,
    /// The parts of a direct upload.
    pub parts: Vec<CompletedPart>,
}

/// A part of a direct upload, as the client names it. Neither field is checked.
#[derive(Debug)]
pub struct CompletedPart {
    pub number: i32,
    /// The etag that the store returned for the part.
    pub etag: String,
}
