//! What changes of files give back, applied at their end: once for however many files, in the order of the locks.

use crate::{
    app::{App, Error},
    db::{
        TenantTx, blobs,
        quotas::{self, QuotaDelta},
        usage_counters::{self, UsageDelta},
        versions::Charge,
    },
    domain::{file::File, ids::BlobId},
};

/// What is to be given back.
#[derive(Debug, Default)]
pub(super) struct Settlement {
    blobs: Vec<BlobId>,
    usage: UsageDelta,
    quota: QuotaDelta,
}

impl Settlement {
    /// Blobs from which versions were taken.
    pub(super) fn let_go(&mut self, blobs: Vec<BlobId>) {
        self.blobs.extend(blobs);
    }

    /// A file that is not charged any more.
    pub(super) fn release(&mut self, file: &File, charge: &Charge) {
        self.usage.file(file, charge, -1);
        self.quota.used_bytes -= charge.bytes();
        self.quota.file_count -= 1;
    }

    /// Gives it back. Whoever gives only back always fits into the quota.
    pub(super) async fn apply(self, app: &App, tx: &mut TenantTx) -> Result<(), Error> {
        if !self.blobs.is_empty() {
            let hours = u32::try_from(app.limits.retention.undelete_window_hours).unwrap_or(u32::MAX);
            blobs::release(tx, &self.blobs, hours).await?;
        }
        if self.quota != QuotaDelta::default() {
            usage_counters::apply(tx, &self.usage).await?;
            quotas::apply(tx, self.quota).await?;
        }
        Ok(())
    }
}
