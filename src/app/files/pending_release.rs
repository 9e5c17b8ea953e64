//! Collects the quota and blobs that changes of files release, and applies them once at the end of the
//! transaction, in lock order.

use std::collections::BTreeMap;

use crate::{
    app::{App, Error, storage::relocation::deletion_delay_hours},
    db::{
        TenantTx, blobs,
        quotas::{self, QuotaDelta, UserDelta},
        usage_counters::{self, UsageDelta},
        versions::Charge,
    },
    domain::{file::File, ids::BlobId},
};

/// Quota and blobs to release at the end of the transaction.
#[derive(Debug, Default)]
pub(super) struct PendingRelease {
    blobs: Vec<BlobId>,
    usage: UsageDelta,
    quota: QuotaDelta,
    /// The same release, by owner of the files.
    owners: BTreeMap<String, QuotaDelta>,
}

impl PendingRelease {
    /// Adds blobs whose versions were deleted.
    pub(super) fn release_blobs(&mut self, blobs: Vec<BlobId>) {
        self.blobs.extend(blobs);
    }

    /// Adds a file that is no longer charged.
    pub(super) fn release_quota(&mut self, file: &File, charge: &Charge) {
        self.usage.add_file(file, charge, -1);
        for quota in [&mut self.quota, self.owners.entry(file.owner_id.clone()).or_default()] {
            quota.used_bytes -= charge.bytes();
            quota.file_count -= 1;
        }
    }

    /// Applies the release. Cannot exceed the quota, because it only lowers the usage.
    pub(super) async fn apply(self, app: &App, tx: &mut TenantTx) -> Result<(), Error> {
        let is_charged = self.quota != QuotaDelta::default();
        if is_charged {
            usage_counters::apply_delta(tx, &self.usage).await?;
        }
        if !self.blobs.is_empty() {
            blobs::schedule_deletion(tx, &self.blobs, deletion_delay_hours(app)).await?;
        }
        if is_charged {
            let users: Vec<UserDelta> =
                self.owners.iter().map(|(owner_id, delta)| UserDelta::new(owner_id, *delta)).collect();
            quotas::apply_delta(tx, self.quota, &users).await?;
        }
        Ok(())
    }
}
