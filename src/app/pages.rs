//! Page sizes and page tokens of lists. A token is sealed for its tenant, so that callers can neither read
//! nor forge it. A page ends by its number of records or by their size, so that its response fits into the
//! 4 MiB that most clients accept.

use serde::{Serialize, de::DeserializeOwned};

use super::{App, Error};
use crate::domain::{caller::Caller, violations::Violations};

/// The most full records that are read from the database at once. Records are read until a page is full, so that
/// a page of large records does not load all that were requested.
pub(super) const FULL_BATCH_MAX: usize = 64;

/// The most encoded bytes of the records in one response. Leaves space for page tokens and ids.
pub(super) const RECORDS_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Shortens a list to the records that fit into one response: at most `count_max`, with at most
/// [`RECORDS_BYTES_MAX`] bytes by `bytes_max`, and at least one. Returns the others, in their order.
pub(super) fn cut_page<T>(records: &mut Vec<T>, count_max: usize, bytes_max: impl Fn(&T) -> usize) -> Vec<T> {
    let mut total_bytes = 0_usize;
    let fits = |record: &&T| {
        total_bytes = total_bytes.saturating_add(bytes_max(record));
        total_bytes <= RECORDS_BYTES_MAX
    };
    let count = records.iter().take(count_max).take_while(fits).count().max(1);
    records.split_off(count.min(records.len()))
}

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
    open_token_for(app, caller.tenant_id().as_uuid().as_bytes(), token)
}

/// Opens a page token that was sealed with [`seal_token_for`] for the same purpose, which names the tenant.
///
/// # Errors
/// Returns `PageTokenInvalid` if the token is damaged, or was sealed for another purpose.
pub(super) fn open_token_for<T: DeserializeOwned>(
    app: &App,
    purpose: &[u8],
    token: &str,
) -> Result<Option<T>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let opened = app.page_tokens.open(purpose, token).map_err(|_| Error::PageTokenInvalid)?;
    serde_json::from_slice(&opened).map(Some).map_err(|_| Error::PageTokenInvalid)
}

/// Seals a page token for the caller's tenant.
pub(super) fn seal_token<T: Serialize>(app: &App, caller: &Caller, position: &T) -> Result<String, Error> {
    seal_token_for(app, caller.tenant_id().as_uuid().as_bytes(), position)
}

/// Seals a page token for a purpose, which names the tenant.
pub(super) fn seal_token_for<T: Serialize>(app: &App, purpose: &[u8], position: &T) -> Result<String, Error> {
    let position = serde_json::to_vec(position).map_err(Error::internal)?;
    app.page_tokens.seal(purpose, &position).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(sizes: &[usize], count_max: usize) -> (Vec<usize>, Vec<usize>) {
        let mut records = sizes.to_vec();
        let rest = cut_page(&mut records, count_max, |size| *size);
        (records, rest)
    }

    #[test]
    fn page_ends_by_count_or_by_size() {
        assert_eq!(page(&[], 5), (vec![], vec![]));
        assert_eq!(page(&[1, 2, 3], 2), (vec![1, 2], vec![3]));
        let half = RECORDS_BYTES_MAX / 2;
        assert_eq!(page(&[half, half, 1], 5), (vec![half, half], vec![1]));
        assert_eq!(page(&[half, half + 1, 1], 5), (vec![half], vec![half + 1, 1]));
    }

    #[test]
    fn page_has_at_least_one_record() {
        let huge = RECORDS_BYTES_MAX + 1;
        assert_eq!(page(&[huge, 1], 5), (vec![huge], vec![1]));
        assert_eq!(page(&[huge], 5), (vec![huge], vec![]));
    }
}
