//! Begins an import: who may, and from where.

use std::sync::Arc;

use super::source::Source;
use crate::{
    app::{App, Credentials, Error, access},
    domain::{caller::Caller, clock::Timestamp, violations::Violations},
    storage::ForeignWalk,
};

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The name of a configured source.
    pub source: String,
    /// Whether nothing is to be changed.
    pub is_dry: bool,
}

/// An import under way.
pub struct Import {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
    pub(super) options: ImportOptions,
    pub(super) source: Source,
    valid_until: Option<Timestamp>,
}

/// The keys of a prefix, in order.
pub struct Objects(ForeignWalk);

/// Begins an import. It ends when the caller's credentials do.
///
/// # Errors
/// `NotAllowed`; `NotFound` where this tenant has no such source; `StorageUnavailable` where a directory is away.
pub async fn begin(
    app: &Arc<App>,
    caller: Caller,
    options: ImportOptions,
    valid_until: Option<Timestamp>,
) -> Result<Import, Error> {
    access::can_administer(&caller)?;
    let source = app.limits.imports.source_for(&options.source, caller.tenant_id(), caller.tenant.kind);
    let place = &source.ok_or(Error::NotFound("import source"))?.place;
    let source = Source::open(app, &options.source, place).await?;
    Ok(Import { app: Arc::clone(app), caller, options, source, valid_until })
}

impl Import {
    /// Whether who began it may still go on.
    ///
    /// # Errors
    /// `Unauthenticated`.
    pub fn check_credentials(&self) -> Result<(), Error> {
        match self.valid_until {
            Some(until) if self.app.clock.now() >= until => {
                let why =
                    "the token has expired; run the import again with a new one, nothing is imported twice"
                        .to_owned();
                Err(Error::Unauthenticated(Credentials::Invalid(why)))
            }
            _ => Ok(()),
        }
    }

    /// The objects whose keys begin with this text.
    ///
    /// # Errors
    /// `Invalid` where the source has no keys.
    pub fn objects(&self, prefix: &str) -> Result<Objects, Error> {
        match &self.source {
            Source::Store(store) => Ok(Objects(store.walk(prefix))),
            Source::Web(_) => {
                let wrong = "this source has URLs and no keys: name each file by its `url`";
                Err(Violations::one("item.object_prefix", wrong).into())
            }
        }
    }
}

impl Objects {
    /// The next key, until there is none.
    ///
    /// # Errors
    /// `StorageUnavailable` where the source cannot be listed to its end.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        self.0.next().await.map_err(Error::StorageUnavailable)
    }
}
