//! Uploads that are created before their bytes, and can be gone on with until they are committed, given up, or silent for too
//! long. What is recorded of them is enough for any replica to go on; whoever sends takes the upload over, and fences
//! whoever did before.

pub mod cancel;
pub mod complete;
pub mod create;
pub mod get;
pub mod list;
pub mod resume;
pub mod upload_part;
