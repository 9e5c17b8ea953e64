//! An opened object of an import source.

use super::ByteStream;

/// An object of an import source, opened for reading.
pub struct SourceObject {
    /// Size in bytes at the time of opening.
    pub size_bytes: u64,
    /// Content type reported by the source; empty if unknown.
    pub mime_type: String,
    /// The bytes of the object. The stream yields all of them or an error.
    pub body: ByteStream,
}
