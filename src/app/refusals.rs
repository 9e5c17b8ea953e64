//! Audits the refusals of callers above their rate of refusals.
//!
//! A refusal costs a write, so a caller could keep the database busy with refusals alone. Above a rate they are
//! counted in memory instead, and audited together: one entry per caller, action, method and reason, with
//! their number, at the interval `rate_limits.refusal_audit_seconds`. A crash loses the refusals of one
//! interval.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{App, Error, audit::write_entries};
use crate::{
    admission::CallerKey,
    db::audit_entries::AuditEntry,
    domain::{caller::Caller, ids::TenantId},
};

/// The maximum number of entries in memory, about 300 bytes each. Refusals beyond them are only logged.
const ENTRIES_MAX: usize = 16_384;

/// The key of refusals that share an entry: the caller, and the action, method and reason.
type Key = (TenantId, CallerKey, String);

/// The refusals that are not audited yet.
#[derive(Debug, Default)]
pub(in crate::app) struct RefusalCounts(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    refusals: HashMap<Key, Refusals>,
    uncounted: u64,
}

#[derive(Debug)]
struct Refusals {
    entry: AuditEntry,
    count: u64,
}

impl RefusalCounts {
    /// Counts a refusal. `entry` is the audit entry that would otherwise be written for it.
    pub(in crate::app) fn count(&self, caller: &Caller, entry: AuditEntry) {
        let what = format!("{:?} {}", entry.action, entry.details);
        let key = (caller.tenant_id(), CallerKey::of_actor(&caller.actor), what);
        let entry = AuditEntry { file: None, version: None, ..entry };
        self.counts().add(key, Refusals { entry, count: 1 });
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // The map is consistent after every statement, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes and returns all refusals, by tenant.
    fn take_all(&self) -> HashMap<TenantId, Vec<(Key, Refusals)>> {
        let Counts { refusals, uncounted } = mem::take(&mut *self.counts());
        if uncounted > 0 {
            tracing::warn!(uncounted, "dropped refusals: too many callers were refused at once");
        }
        let mut by_tenant: HashMap<TenantId, Vec<(Key, Refusals)>> = HashMap::new();
        for (key, refused) in refusals {
            by_tenant.entry(key.0).or_default().push((key, refused));
        }
        by_tenant
    }
}

impl Counts {
    fn add(&mut self, key: Key, added: Refusals) {
        if let Some(refused) = self.refusals.get_mut(&key) {
            refused.count += added.count;
        } else if self.refusals.len() < ENTRIES_MAX {
            self.refusals.insert(key, added);
        } else {
            self.uncounted += added.count;
        }
    }
}

impl Refusals {
    fn to_entry(&self) -> AuditEntry {
        let mut entry = self.entry.clone();
        if let Some(details) = entry.details.as_object_mut() {
            details.insert("count".to_owned(), self.count.into());
        }
        entry
    }
}

/// Audits the refusals that were counted since the last call. Those of an unavailable or overloaded database are
/// audited by the next call.
pub async fn write_refusals(app: &App) {
    for (tenant, refusals) in app.refusals.take_all() {
        let entries: Vec<AuditEntry> = refusals.iter().map(|(_, refused)| refused.to_entry()).collect();
        match write_entries(&app.db, tenant, &entries).await {
            Ok(()) => {}
            Err(error @ (Error::DatabaseUnavailable(_) | Error::Overloaded(_))) => {
                tracing::warn!(%error, "failed to audit refusals");
                let mut counts = app.refusals.counts();
                refusals.into_iter().for_each(|(key, refused)| counts.add(key, refused));
            }
            Err(error) => tracing::error!(%error, %tenant, "failed to audit refusals"),
        }
    }
}
