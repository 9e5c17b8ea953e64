//! Starts an import: checks the permission and opens the source.

use std::sync::Arc;

use super::source::Source;
use crate::{
    app::{App, Error, InvalidCredentials, Resource, access, uploads::admit::check_credits},
    domain::{caller::Caller, clock::Timestamp, violations::Violations},
    storage::{SourceEntry, SourceKeys},
};

/// The options of an import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The name of a configured source.
    pub source: String,
    /// Whether to only check what would be imported.
    pub is_dry_run: bool,
}

/// An open source, and the caller who imports from it.
pub(super) struct Import {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
    pub(super) options: ImportOptions,
    pub(super) source: Source,
    valid_until: Option<Timestamp>,
}

/// The keys of a prefix, in ascending order.
pub(super) struct ObjectKeys(SourceKeys);

/// Starts an import. It ends when the caller's credentials expire.
///
/// # Errors
/// Returns `NotAllowed` if the caller is not an admin, `NotFound` if this tenant has no such source, `CreditsExhausted`
/// if storage has a price and the caller has no credits, and `StorageUnavailable` if the directory is unreachable.
pub(super) async fn start_import(
    app: &Arc<App>,
    caller: Caller,
    options: ImportOptions,
    valid_until: Option<Timestamp>,
) -> Result<Import, Error> {
    access::check_is_admin(&caller)?;
    app.owners.check_primary()?;
    let source = app.limits.imports.source_for(&options.source, caller.tenant_id(), caller.tenant.kind);
    let location = &source.ok_or(Error::NotFound(Resource::ImportSource))?.location;
    check_credits(app, &caller).await?;
    let source = Source::open(app, &options.source, location).await?;
    Ok(Import { app: Arc::clone(app), caller, options, source, valid_until })
}

impl Import {
    /// Checks that the caller's credentials have not expired.
    ///
    /// # Errors
    /// Returns `Unauthenticated` if they have.
    pub(super) fn check_credentials(&self) -> Result<(), Error> {
        match self.valid_until {
            Some(until) if self.app.clock.now() >= until => {
                Err(Error::Unauthenticated(InvalidCredentials::ExpiredDuringImport.into()))
            }
            _ => Ok(()),
        }
    }

    /// Lists the keys that begin with a prefix.
    ///
    /// # Errors
    /// Returns `Invalid` if the source has no keys.
    pub(super) fn list_keys(&self, prefix: &str) -> Result<ObjectKeys, Error> {
        match &self.source {
            Source::Store(store) => Ok(ObjectKeys(store.list_keys(prefix))),
            Source::Web(_) => {
                let problem = "the source has URLs and no keys; set the `url` of each file";
                Err(Violations::one("item.object_prefix", problem).into())
            }
        }
    }
}

impl ObjectKeys {
    /// Returns the next entry, or `None` after the last one.
    ///
    /// # Errors
    /// Returns `StorageUnavailable` if the source cannot be listed to its end.
    pub(super) async fn next(&mut self) -> Result<Option<SourceEntry>, Error> {
        self.0.next().await.map_err(Error::StorageUnavailable)
    }
}
