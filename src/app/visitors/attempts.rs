//! Limits the failed attempts of visitors.
//!
//! - A wrong password counts for the share and the address. The attempt is counted before the password is checked, and
//!   given back if the password was right, so concurrent attempts cannot exceed the limit.
//! - If a share has many failed attempts from all addresses together, each address gets fewer. So guessing from many
//!   addresses is limited too, and a visitor from an address without failures still gets in.
//! - An unknown token counts for the address. Tokens cannot be guessed; the limit is for the work that they cause. It
//!   never refuses a token of a live share, however many attempts its address has made.
//!
//! Callers of the tenant are not visitors, so nobody can lock the owner of a file out.

use std::time::Duration;

use super::{ShareVisitor, VisitorError, find::FoundShare};
use crate::{
    admission::Holder,
    app::{App, Error, Resource},
    db::{DbError, TenantTx, visitor_attempts},
    domain::{
        ids::TenantId,
        visitor_attempts::{ATTEMPT_WINDOW, AttemptBucket},
    },
};

/// The maximum number of wrong passwords of an address for one share, in a window.
const PASSWORDS_PER_ADDRESS_MAX: i32 = 10;
/// The number of wrong passwords for one share after which each address gets fewer.
const PASSWORDS_PER_SHARE: i32 = 200;
/// The maximum number of wrong passwords of an address then.
const PASSWORDS_PER_ADDRESS_REDUCED: i32 = 2;
/// The maximum number of unknown tokens of an address, in a window.
const TOKENS_PER_ADDRESS_MAX: i32 = 100;

/// The tenant of attempts with unknown tokens.
pub(super) const NO_TENANT: TenantId = TenantId::from_uuid(uuid::Uuid::nil());

/// Counts an attempt with a token or grant that is unknown or whose share is closed, and returns the error for the
/// visitor. It is the same for all of them.
pub(super) async fn count_unknown_token(app: &App, visitor: &ShareVisitor) -> Error {
    let counted = async {
        let mut tx = app.db.visitor_tx(NO_TENANT, Holder::of_visitor(visitor.address)).await?;
        let bucket = AttemptBucket::of_address(visitor.address);
        let taken = take(&mut tx, bucket, TOKENS_PER_ADDRESS_MAX).await;
        tx.finish(taken).await
    };
    match counted.await {
        Ok(()) => Error::NotFound(Resource::Share),
        Err(error) => error,
    }
}

/// Counts an attempt, or returns `AttemptsExhausted`.
async fn take(tx: &mut TenantTx, bucket: AttemptBucket, attempts_max: i32) -> Result<(), Error> {
    if visitor_attempts::take(tx, bucket, attempts_max).await?.is_some() {
        return Ok(());
    }
    let (counted, now) = (visitor_attempts::get(tx, bucket).await?, tx.now().await?);
    let remaining = counted.and_then(|counted| (counted.window_end_time - now).to_std().ok());
    let retry_after = remaining.unwrap_or_default().clamp(Duration::from_secs(1), ATTEMPT_WINDOW);
    Err(VisitorError::AttemptsExhausted { retry_after }.into())
}

fn password_bucket(visitor: &ShareVisitor, found: &FoundShare) -> AttemptBucket {
    let secret = found.stored.password_hash.as_deref().unwrap_or_default();
    AttemptBucket::of_share_address(found.stored.share.id, visitor.address, secret)
}

/// Counts an attempt with a password, before the password is checked.
///
/// # Errors
/// Returns `AttemptsExhausted` if there were too many.
pub(super) async fn take_password_attempt(
    app: &App,
    visitor: &ShareVisitor,
    found: &FoundShare,
) -> Result<(), Error> {
    let mut tx = app.db.visitor_tx(found.tenant, found.holder()).await?;
    let taken = async {
        let of_share = AttemptBucket::of_share(found.stored.share.id);
        let failed = visitor_attempts::get(&mut tx, of_share).await?;
        let is_attacked = failed.is_some_and(|failed| failed.attempts >= PASSWORDS_PER_SHARE);
        let attempts_max =
            if is_attacked { PASSWORDS_PER_ADDRESS_REDUCED } else { PASSWORDS_PER_ADDRESS_MAX };
        take(&mut tx, password_bucket(visitor, found), attempts_max).await
    }
    .await;
    tx.finish(taken).await
}

/// Records the result of a counted attempt. One that is not wrong does not count: the password was right, or could not
/// be checked.
pub(super) async fn settle_password_attempt(
    app: &App,
    visitor: &ShareVisitor,
    found: &FoundShare,
    is_wrong: bool,
) -> Result<(), Error> {
    let mut tx = app.db.visitor_tx(found.tenant, found.holder()).await?;
    let settled: Result<(), DbError> = match is_wrong {
        false => visitor_attempts::give_back(&mut tx, password_bucket(visitor, found)).await,
        true => {
            let of_share = AttemptBucket::of_share(found.stored.share.id);
            visitor_attempts::take(&mut tx, of_share, i32::MAX).await.map(|_| ())
        }
    };
    tx.finish(settled).await.map_err(Error::from)
}
