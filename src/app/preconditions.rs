//! Preconditions: the one comparison of `if_etag` with the etag of a resource, and the limit of versions.

use super::{App, Error};
use crate::{
    db::{TenantTx, versions},
    domain::ids::FileId,
};

/// Checks a request's `if_etag` against the etag of the resource, whose row the caller has locked. An empty `if_etag`
/// matches every etag.
///
/// # Errors
/// Returns `EtagMismatch` if they differ.
pub(super) fn check_etag(if_etag: &str, etag: &str) -> Result<(), Error> {
    if if_etag.is_empty() || if_etag == etag { Ok(()) } else { Err(Error::EtagMismatch) }
}

/// Checks that a file may have another version. Exact if the file is locked.
///
/// # Errors
/// Returns `TooManyVersions` if not.
pub(super) async fn check_version_count(app: &App, tx: &mut TenantTx, file: FileId) -> Result<(), Error> {
    let version_count_max = app.limits.uploads.versions_per_file_max;
    let count = versions::count(tx, file, i64::from(version_count_max)).await?;
    if count < version_count_max as usize {
        Ok(())
    } else {
        Err(Error::TooManyVersions { version_count_max })
    }
}
