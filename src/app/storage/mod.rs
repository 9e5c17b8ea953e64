//! What operators do with the providers, the classes of storage that bytes are kept in, and what is left to clean up after it.

mod copy;
pub mod init;
pub mod move_blobs;
pub mod reap_strays;
mod relocation;
pub mod settle_class;
pub mod status;

/// An error with its causes: it goes to an operator.
fn explained(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
