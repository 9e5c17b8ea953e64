//! Preconditions: the one comparison of `if_etag` with the etag of a resource.

use super::Error;

/// Checks a request's `if_etag` against the etag of the resource, whose row the caller has locked. An empty `if_etag`
/// matches every etag.
///
/// # Errors
/// Returns `EtagMismatch` if they differ.
pub(super) fn check_etag(if_etag: &str, etag: &str) -> Result<(), Error> {
    if if_etag.is_empty() || if_etag == etag { Ok(()) } else { Err(Error::EtagMismatch) }
}
