//! What an object that is not ours is read as.

use super::ByteStream;

/// An object, opened.
pub struct ForeignObject {
    /// Its size when it was opened.
    pub size_bytes: u64,
    /// What it is said to be; may be empty.
    pub mime_type: String,
    /// Its bytes: all of them, or an error.
    pub body: ByteStream,
}
