//! Payments for downloads of visitors. The creator of the share pays, in the transaction that counts the download, and
//! gets the price back in the transaction that does not count it any more. A view transfers the same bytes and has the
//! same price.

use uuid::Uuid;

use super::find::FoundShare;
use crate::{
    app::Error,
    db::{
        TenantTx,
        credits::{self, NewCreditEntry},
        share_grants,
    },
    domain::{
        caller::Actor,
        metering::{DOWNLOAD_REASON, DOWNLOAD_REFUND_REASON, download_reference},
        principal::is_service,
    },
};

/// Who pays for a download, and what its entries refer to.
#[derive(Debug, Clone)]
pub(super) struct Payer {
    user_id: String,
    reference: String,
}

impl Payer {
    /// Returns the payer of a download of a version.
    pub(super) fn of(found: &FoundShare, version: i32) -> Self {
        Self {
            user_id: found.stored.share.created_by.clone(),
            reference: download_reference(found.file.id, version),
        }
    }

    fn entry<'a>(&'a self, amount: i64, reason: &'a str, actor: &'a Actor) -> NewCreditEntry<'a> {
        NewCreditEntry { user_id: &self.user_id, amount, reason, reference: &self.reference, actor }
    }

    /// Deducts the price of a grant that has not paid. Returns whether the grant has paid or is free.
    pub(super) async fn pay(&self, tx: &mut TenantTx, price: i64, grant: Uuid) -> Result<bool, Error> {
        if price == 0 || is_service(&self.user_id) {
            return Ok(true);
        }
        let actor = Actor::system();
        if credits::deduct(tx, self.entry(price, DOWNLOAD_REASON, &actor)).await?.is_none() {
            return Ok(false);
        }
        share_grants::set_paid(tx, grant, price).await?;
        Ok(true)
    }

    /// Returns what a grant has paid. A balance at its maximum keeps the payment on the grant.
    pub(super) async fn refund(
        &self,
        tx: &mut TenantTx,
        grant: Uuid,
        paid_credits: i64,
    ) -> Result<(), Error> {
        if paid_credits == 0 {
            return Ok(());
        }
        let actor = Actor::system();
        if credits::add(tx, self.entry(paid_credits, DOWNLOAD_REFUND_REASON, &actor)).await?.is_some() {
            share_grants::set_paid(tx, grant, 0).await?;
        }
        Ok(())
    }
}
