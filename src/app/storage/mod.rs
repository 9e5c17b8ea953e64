//! Operations on providers, storage classes, and the deletion of unreferenced blobs.

pub mod apply_storage_class;
mod copy;
pub mod delete_due_blobs;
pub mod init;
pub mod move_blobs;
pub(in crate::app) mod relocation;
pub mod status;
