//! Operations on providers, storage classes, and the deletion of unreferenced blobs.

pub mod apply_storage_class;
mod copy;
pub mod delete_due_blobs;
pub mod init;
pub mod move_blobs;
mod relocation;
pub mod status;

/// Formats an error with all of its causes, for an operator.
fn format_error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
