//! Makes a provider ready for use, and makes sure that it is.

use crate::{
    app::Error,
    storage::{InitOptions, InitStep, ObjectStorage},
};

/// What a provider has now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Initialised {
    /// Its name.
    pub provider: String,
    /// What was found and done, in order.
    pub steps: Vec<InitStep>,
}

/// Makes what is missing, then writes and reads once: who cannot do that is told here and not by the first upload.
///
/// # Errors
/// When the store does not answer, or does not let us.
pub async fn initialise(store: &dyn ObjectStorage, options: &InitOptions) -> Result<Initialised, Error> {
    let report = store.initialise(options).await?;
    store.check().await?;
    Ok(Initialised { provider: store.provider().to_owned(), steps: report.steps })
}
