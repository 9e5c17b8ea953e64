//! Initializes a provider and checks that it is usable.

use crate::{
    app::Error,
    storage::{InitOptions, InitStep, ObjectStorage},
};

/// The result of initializing a provider.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct InitializedProvider {
    /// The name of the provider.
    pub provider: String,
    /// The steps, in order.
    pub steps: Vec<InitStep>,
}

/// Creates missing parts of the store, then writes and reads a test object, so that missing permissions are
/// found here and not by the first upload.
///
/// # Errors
/// Returns an error if the store is unreachable or denies access.
pub async fn initialize_provider(
    store: &dyn ObjectStorage,
    options: &InitOptions,
) -> Result<InitializedProvider, Error> {
    let report = store.initialize(options).await?;
    store.check().await?;
    Ok(InitializedProvider { provider: store.provider().to_owned(), steps: report.steps })
}
