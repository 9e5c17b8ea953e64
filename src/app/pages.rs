//! Pages of lists: how large, and where to go on. A token is sealed for its tenant, so nobody learns from it or makes one.

use serde::{Serialize, de::DeserializeOwned};

use super::{App, Error};
use crate::domain::{caller::Caller, violations::Violations};

/// How many to answer: 0 means the default, more than the maximum means the maximum.
pub(super) fn size(app: &App, asked: i32) -> Result<usize, Error> {
    let limits = &app.limits.lists;
    match u32::try_from(asked) {
        Ok(0) => Ok(limits.page_size_default as usize),
        Ok(asked) => Ok(asked.min(limits.page_size_max) as usize),
        Err(_) => Err(Violations::one("page_size", "must not be negative; 0 means the default").into()),
    }
}

/// Reads a token; empty means from the start.
pub(super) fn open<T: DeserializeOwned>(app: &App, caller: &Caller, token: &str) -> Result<Option<T>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let tenant = caller.tenant_id().as_uuid();
    let opened = app.page_tokens.open(tenant.as_bytes(), token).map_err(|_| Error::PageTokenInvalid)?;
    serde_json::from_slice(&opened).map(Some).map_err(|_| Error::PageTokenInvalid)
}

/// Makes a token.
pub(super) fn seal<T: Serialize>(app: &App, caller: &Caller, place: &T) -> Result<String, Error> {
    let place = serde_json::to_vec(place).map_err(Error::internal)?;
    let tenant = caller.tenant_id().as_uuid();
    app.page_tokens.seal(tenant.as_bytes(), &place).map_err(Error::internal)
}
