//! Standard input and output as asynchronous files, without a buffer: bytes travel when they are there.

use std::os::fd::AsFd;

use tokio::fs::File;

use super::failure::Failure;

/// Standard input.
pub(super) fn stdin() -> Result<File, Failure> {
    open(std::io::stdin(), "read standard input")
}

/// Standard output.
pub(super) fn stdout() -> Result<File, Failure> {
    open(std::io::stdout(), "write to standard output")
}

/// Works on a duplicate of the descriptor, so that dropping the file does not close the stream itself.
fn open(stream: impl AsFd, doing: &str) -> Result<File, Failure> {
    let descriptor = stream.as_fd().try_clone_to_owned().map_err(Failure::local(doing))?;
    Ok(File::from_std(descriptor.into()))
}
