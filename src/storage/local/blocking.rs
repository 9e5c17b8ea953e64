//! Runs file system operations on the blocking threads of tokio.

use super::super::{StorageError, StorageErrorKind};

/// Runs a blocking function on a blocking thread.
pub(super) async fn run_blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StorageError::new(StorageErrorKind::Other, operation).with_source(error)),
    }
}
