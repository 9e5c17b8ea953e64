//! Measures what tenants store: the parts of their usage, their largest owners, and one sample a day. Where storage has a
//! price, the first measurement of a day charges the owners for the bytes that it found.
//!
//! A measurement reads all files of a tenant, one page in each transaction, so no request does that. It is not a
//! snapshot: a file that changes meanwhile counts as before or after its change. The figures that decide, the quota and
//! the usage counters, are exact and belong to the commits.

use std::collections::HashMap;

use crate::{
    app::{
        App, Error, RoundReport,
        credits::charge_storage::{charge_owners, find_due_charges},
        rounds::{DueItems, ItemFields, ItemOutcome, run_round},
    },
    db::{
        storage_charges,
        usage_measurements::{self, OwnerPart, UsageParts},
        usage_samples,
    },
    domain::ids::TenantId,
};

/// The time between two measurements of a tenant, in seconds. A sample is taken once a day, by the first of them.
pub const INTERVAL_SECONDS: i64 = 3_600;
/// The number of days for which samples are kept.
pub const SAMPLE_DAYS: i64 = 400;
/// The number of owners whose usage is stored for a tenant.
pub const OWNERS_MAX: usize = 1_000;
/// The number of files that one transaction reads.
const PAGE_FILES: i64 = 10_000;

/// Measures one round of tenants.
///
/// # Errors
/// Returns `DatabaseUnavailable` if the database is unreachable.
pub async fn measure_usage(app: &App) -> Result<RoundReport, Error> {
    run_round(&DueTenants { app }, &app.rotations.measured_tenants).await
}

/// The tenants whose last measurement is older than the interval.
struct DueTenants<'a> {
    app: &'a App,
}

impl DueItems for DueTenants<'_> {
    type Item = TenantId;
    type Position = TenantId;

    const ACTION: &'static str = "measure usage of tenant";
    const PAGE_ITEMS: usize = 50;

    async fn list_page(&self, after: Option<TenantId>, limit: i64) -> Result<Vec<TenantId>, Error> {
        let mut tx = self.app.db.system_tx().await?;
        let due = usage_measurements::list_due(&mut tx, after, INTERVAL_SECONDS, limit).await?;
        tx.commit().await?;
        Ok(due)
    }

    fn position(item: &TenantId) -> TenantId {
        *item
    }

    fn fields<'a>(&self, item: &'a TenantId) -> ItemFields<'a> {
        ItemFields::new(*item)
    }

    async fn process(&self, item: &TenantId) -> Result<ItemOutcome, Error> {
        let due = find_due_charges(self.app, *item).await?;
        let owners = sum_files(self.app, *item).await?;
        if let Some(due) = due {
            let bytes = owners.iter().map(|(owner, parts)| (owner.as_str(), parts.total_bytes()));
            charge_owners(self.app, *item, due, bytes).await?;
        }
        let measured = rank(owners);
        let mut tx = self.app.db.system_tx().await?;
        let owner_count = i64::try_from(measured.owner_count).unwrap_or(i64::MAX);
        let is_replaced =
            usage_measurements::replace(&mut tx, *item, &measured.total, owner_count, INTERVAL_SECONDS)
                .await?;
        if is_replaced {
            usage_measurements::replace_owners(&mut tx, *item, &measured.largest).await?;
            usage_samples::add_today(&mut tx, *item, SAMPLE_DAYS).await?;
        }
        if let Some(due) = due {
            storage_charges::mark_charged(&mut tx, *item, due.day).await?;
        }
        tx.commit().await?;
        Ok(ItemOutcome::from_done(is_replaced))
    }
}

/// The sums of all files of a tenant.
#[derive(Debug)]
struct Measured {
    total: UsageParts,
    owner_count: usize,
    /// The owners with the most bytes.
    largest: Vec<OwnerPart>,
}

async fn sum_files(app: &App, tenant: TenantId) -> Result<HashMap<String, UsageParts>, Error> {
    let (mut owners, mut last) = (HashMap::<String, UsageParts>::new(), None);
    loop {
        let mut tx = app.db.system_tx().await?;
        let page = usage_measurements::sum_page(&mut tx, tenant, last, PAGE_FILES).await?;
        tx.commit().await?;
        if page.last.is_none() {
            return Ok(owners);
        }
        last = page.last;
        for OwnerPart { owner, parts } in page.owners {
            *owners.entry(owner).or_default() += parts;
        }
    }
}

/// Sums the owners, and keeps those with the most bytes.
fn rank(owners: HashMap<String, UsageParts>) -> Measured {
    let mut total = UsageParts::default();
    owners.values().for_each(|parts| total += *parts);
    let owner_count = owners.len();
    let mut largest: Vec<OwnerPart> =
        owners.into_iter().map(|(owner, parts)| OwnerPart { owner, parts }).collect();
    largest.sort_unstable_by(|a, b| {
        b.parts.total_bytes().cmp(&a.parts.total_bytes()).then_with(|| a.owner.cmp(&b.owner))
    });
    largest.truncate(OWNERS_MAX);
    Measured { total, owner_count, largest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_owners_are_kept() {
        let parts = |current_bytes| UsageParts { file_count: 1, current_bytes, ..UsageParts::default() };
        let owners = (0..1_500).map(|n| (format!("user-{n:04}"), parts(n / 2)));
        let measured = rank(owners.collect());
        assert_eq!((measured.owner_count, measured.largest.len()), (1_500, OWNERS_MAX));
        assert_eq!(measured.total.file_count, 1_500);
        assert_eq!(measured.total.current_bytes, (0..1_500).map(|n| n / 2).sum::<i64>());
        let first: Vec<&str> = measured.largest.iter().take(3).map(|part| part.owner.as_str()).collect();
        assert_eq!(first, ["user-1498", "user-1499", "user-1496"]);
    }
}
