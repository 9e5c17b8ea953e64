//! Page sizes and page tokens of lists. A token is sealed for its tenant, so that callers can neither read
//! nor forge it.

use serde::{Serialize, de::DeserializeOwned};

use super::{App, Error};
use crate::domain::{caller::Caller, violations::Violations};

/// Returns the page size to use: 0 means the default, and larger values are capped at the maximum.
///
/// # Errors
/// Returns `Invalid` if the requested size is negative.
pub(super) fn resolve_page_size(app: &App, requested: i32) -> Result<usize, Error> {
    let limits = &app.limits.lists;
    match u32::try_from(requested) {
        Ok(0) => Ok(limits.page_size_default as usize),
        Ok(requested) => Ok(requested.min(limits.page_size_max) as usize),
        Err(_) => Err(Violations::one("page_size", "must not be negative; 0 means the default").into()),
    }
}

/// Opens a page token. Returns `None` for an empty token, which requests the first page.
///
/// # Errors
/// Returns `PageTokenInvalid` if the token is damaged, or was sealed for another tenant or another kind of
/// list.
pub(super) fn open_token<T: DeserializeOwned>(
    app: &App,
    caller: &Caller,
    token: &str,
) -> Result<Option<T>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let tenant = caller.tenant_id().as_uuid();
    let opened = app.page_tokens.open(tenant.as_bytes(), token).map_err(|_| Error::PageTokenInvalid)?;
    serde_json::from_slice(&opened).map(Some).map_err(|_| Error::PageTokenInvalid)
}

/// Seals a page token for the caller's tenant.
pub(super) fn seal_token<T: Serialize>(app: &App, caller: &Caller, position: &T) -> Result<String, Error> {
    let position = serde_json::to_vec(position).map_err(Error::internal)?;
    let tenant = caller.tenant_id().as_uuid();
    app.page_tokens.seal(tenant.as_bytes(), &position).map_err(Error::internal)
}
