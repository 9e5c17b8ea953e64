//! Standard input and output as unbuffered asynchronous files.

use std::os::fd::AsFd;

use tokio::fs::File;

use super::failure::Failure;

/// Opens standard input.
pub(super) fn stdin() -> Result<File, Failure> {
    open(std::io::stdin(), "read standard input")
}

/// Opens standard output.
pub(super) fn stdout() -> Result<File, Failure> {
    open(std::io::stdout(), "write to standard output")
}

/// Duplicates the descriptor, so that dropping the file does not close the stream.
fn open(stream: impl AsFd, action: &str) -> Result<File, Failure> {
    let descriptor = stream.as_fd().try_clone_to_owned().map_err(Failure::local_io(action))?;
    Ok(File::from_std(descriptor.into()))
}
