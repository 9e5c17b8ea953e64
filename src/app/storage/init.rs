//! Initialises a provider and checks that it is usable.

use crate::{
    app::Error,
    storage::{InitOptions, InitStep, ObjectStorage},
};

/// The result of initialising a provider.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct InitialisedProvider {
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
pub async fn initialise_provider(
    store: &dyn ObjectStorage,
    options: &InitOptions,
) -> Result<InitialisedProvider, Error> {
    let report = store.initialise(options).await?;
    store.check().await?;
    Ok(InitialisedProvider { provider: store.provider().to_owned(), steps: report.steps })
}
