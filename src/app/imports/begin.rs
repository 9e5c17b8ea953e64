//! Begins an import: who may, and from where.

use std::sync::Arc;

use crate::{
    app::{App, Error, access},
    domain::caller::Caller,
    storage::{Directory, Walk},
};

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The name of a configured directory.
    pub source: String,
    /// Whether nothing is to be changed.
    pub is_dry: bool,
}

/// An import under way.
pub struct Import {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
    pub(super) options: ImportOptions,
    pub(super) directory: Directory,
}

/// The keys of a prefix, in order.
pub struct Objects(Walk);

/// Begins an import.
///
/// # Errors
/// `NotAllowed`; `NotFound` where this tenant has no such source; `StorageUnavailable` where the directory is away.
pub async fn begin(app: &Arc<App>, caller: Caller, options: ImportOptions) -> Result<Import, Error> {
    access::can_administer(&caller)?;
    let path = app.limits.imports.directory_for(&options.source, caller.tenant_id());
    let path = path.ok_or(Error::NotFound("import source"))?;
    let directory = Directory::open(path).await.map_err(Error::StorageUnavailable)?;
    Ok(Import { app: Arc::clone(app), caller, options, directory })
}

impl Import {
    /// The objects whose keys begin with this text.
    pub fn objects(&self, prefix: &str) -> Objects {
        Objects(self.directory.walk(prefix))
    }
}

impl Objects {
    /// The next key, until there is none.
    ///
    /// # Errors
    /// `StorageUnavailable` where the directory cannot be read on.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        self.0.next().await.map_err(Error::StorageUnavailable)
    }
}
