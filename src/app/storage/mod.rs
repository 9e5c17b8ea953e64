//! Operations on providers, storage classes, and the deletion of unreferenced blobs.

pub mod apply_storage_class;
pub mod breakers;
mod copy;
mod count_pending;
pub mod delete_due_blobs;
pub(in crate::app) mod delete_objects;
pub mod init;
pub mod integrity_summary;
pub mod move_blobs;
pub(in crate::app) mod relocation;
pub mod repair;
pub mod replicate;
pub mod status;
