//! Deducts the price of a download before its first byte.

use super::deduct::take_credits;
use crate::{
    app::{App, Error},
    db::{
        TenantTx, Viewer,
        credits::NewCreditEntry,
        paid_downloads::{self, DownloadPayment},
    },
    domain::{
        caller::{ActorKind, Caller},
        ids::FileId,
        metering::{DOWNLOAD_REASON, download_reference},
    },
};

/// Deducts the price of a version from the credits of the caller, unless the caller has paid for it within 24 hours.
/// Free without a price, and for services.
///
/// # Errors
/// Returns `CreditsExhausted` if the caller has too few credits.
pub(in crate::app) async fn pay_download(
    app: &App,
    caller: &Caller,
    file: FileId,
    version: i32,
) -> Result<(), Error> {
    let price = caller.tenant.metering.download_credits;
    if price == 0 || caller.actor.kind != ActorKind::User {
        return Ok(());
    }
    let mut tx = app.db.tenant_tx(caller.tenant_id(), &Viewer::from_caller(caller)).await?;
    let payment = DownloadPayment { user_id: &caller.actor.id, file, version };
    let paid = pay_in_tx(&mut tx, caller, payment, price).await;
    tx.finish(paid).await
}

async fn pay_in_tx(
    tx: &mut TenantTx,
    caller: &Caller,
    payment: DownloadPayment<'_>,
    price: i64,
) -> Result<(), Error> {
    // A payment whose credits cannot be deducted is rolled back.
    if !paid_downloads::record(tx, payment).await? {
        return Ok(());
    }
    let entry = NewCreditEntry {
        user_id: payment.user_id,
        amount: price,
        reason: DOWNLOAD_REASON,
        reference: &download_reference(payment.file, payment.version),
        actor: &caller.actor,
    };
    take_credits(tx, entry).await.map(|_| ())
}
