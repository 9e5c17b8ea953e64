//! Entries of the access log about visitors.
//!
//! Each counted download and view has an entry. Other attempts have one up to a number per share and address, so that a
//! visitor who repeats them does not fill the log.

use super::{ShareVisitor, find::FoundShare};
use crate::{
    app::{App, Error},
    db::{TenantTx, access_log, visitor_attempts},
    domain::{
        access_log::{AccessAction, AccessEntry},
        visitor_attempts::AttemptBucket,
    },
};

/// The maximum number of entries of an address for one share, in a window, that are not about counted downloads.
const ENTRIES_PER_ADDRESS_MAX: i32 = 100;

pub(super) fn entry(
    visitor: &ShareVisitor,
    found: &FoundShare,
    action: AccessAction,
    denial_reason: Option<&str>,
) -> AccessEntry {
    AccessEntry {
        file: found.file.id,
        version: None,
        share: Some(found.stored.share.id),
        actor: None,
        client: visitor.client.clone(),
        action,
        denial_reason: denial_reason.map(str::to_owned),
    }
}

/// Writes an entry in the transaction that decides.
pub(super) async fn write(tx: &mut TenantTx, entry: AccessEntry) -> Result<(), Error> {
    access_log::insert(tx, &[entry]).await.map_err(Error::from)
}

/// Writes the entry of an attempt that counts as no download, unless its address has too many of them.
pub(super) async fn write_uncounted(
    tx: &mut TenantTx,
    visitor: &ShareVisitor,
    found: &FoundShare,
    entry: AccessEntry,
) -> Result<(), Error> {
    let bucket = AttemptBucket::of_log(found.stored.share.id, visitor.address);
    match visitor_attempts::take(tx, bucket, ENTRIES_PER_ADDRESS_MAX).await? {
        Some(_) => write(tx, entry).await,
        None => Ok(()),
    }
}

/// Writes the entry of a denied attempt in a transaction of its own.
pub(super) async fn write_denial(
    app: &App,
    visitor: &ShareVisitor,
    found: &FoundShare,
    entry: AccessEntry,
) -> Result<(), Error> {
    let mut tx = app.db.visitor_tx(found.tenant, found.holder()).await?;
    let written = write_uncounted(&mut tx, visitor, found, entry).await;
    tx.finish(written).await
}
