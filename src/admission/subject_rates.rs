//! Buckets of subjects that other services name, in the memory of this process.
//!
//! A tenant has a share of them: at most a fixed number, and at most three times what is free. So the memory is
//! bounded, and tenants with many subjects leave room to others.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::{
    digest::Digest,
    ids::TenantId,
    subject_rate::{RateDecision, SubjectEvent},
};

/// The maximum number of subjects of a tenant whose bucket is not full.
pub const TENANT_SUBJECTS_MAX: usize = 10_000;
/// The maximum number of subjects of all tenants in this process.
const SUBJECTS_MAX: usize = 200_000;
/// The time between two searches for full buckets, which read all.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(1);

/// The tenant, or this process, has the maximum number of subjects.
#[derive(Debug, PartialEq, Eq)]
pub struct TooManySubjects;

/// The buckets of all subjects.
#[derive(Debug, Default)]
pub struct SubjectRates(Mutex<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// The time at which each bucket will be full.
    full_at: HashMap<(TenantId, Digest), Instant>,
    counts: HashMap<TenantId, usize>,
    cleaned: Option<Instant>,
}

impl SubjectRates {
    /// Checks an event of a subject, and takes its tokens if it is allowed.
    ///
    /// # Errors
    /// Returns an error if the subject is new and there are too many.
    pub fn check(
        &self,
        tenant: TenantId,
        subject: Digest,
        event: &SubjectEvent,
    ) -> Result<RateDecision, TooManySubjects> {
        let now = Instant::now();
        let mut buckets = self.buckets();
        let full_at = buckets.full_at.get(&(tenant, subject)).copied();
        let before = full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        let decision = event.decide(u64::try_from(before.as_micros()).unwrap_or(u64::MAX));
        if decision.is_allowed && !event.is_peek {
            if full_at.is_none() {
                buckets.make_room(tenant, now)?;
                *buckets.counts.entry(tenant).or_default() += 1;
            }
            buckets.full_at.insert((tenant, subject), now + decision.full_after);
        }
        Ok(decision)
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        // Both maps are changed without a call that can panic between them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn make_room(&mut self, tenant: TenantId, now: Instant) -> Result<(), TooManySubjects> {
        if self.has_room(tenant) {
            return Ok(());
        }
        if self.cleaned.is_none_or(|cleaned| now.saturating_duration_since(cleaned) >= CLEANUP_INTERVAL) {
            self.cleaned = Some(now);
            // A full bucket is the same as none.
            self.full_at.retain(|_, full_at| *full_at > now);
            self.counts.clear();
            for (owner, _) in self.full_at.keys() {
                *self.counts.entry(*owner).or_default() += 1;
            }
        }
        if self.has_room(tenant) { Ok(()) } else { Err(TooManySubjects) }
    }

    fn has_room(&self, tenant: TenantId) -> bool {
        let own = self.counts.get(&tenant).copied().unwrap_or_default();
        let free = SUBJECTS_MAX.saturating_sub(self.full_at.len());
        own < TENANT_SUBJECTS_MAX.min(3 * free)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(limit: u32, seconds: u64) -> SubjectEvent {
        SubjectEvent { limit, window: Duration::from_secs(seconds), cost: 1, is_peek: false }
    }

    fn subject(number: usize) -> Digest {
        Digest::compute(&number.to_le_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn limit_is_exact_and_refilled() {
        let (rates, tenant) = (SubjectRates::default(), TenantId::from_uuid(Uuid::nil()));
        let is_allowed = || rates.check(tenant, subject(1), &event(5, 10)).unwrap().is_allowed;
        assert_eq!((0..20).filter(|_| is_allowed()).count(), 5);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!((0..20).filter(|_| is_allowed()).count(), 2);
        assert!(rates.check(tenant, subject(2), &event(5, 10)).unwrap().is_allowed, "another subject");
    }

    #[tokio::test(start_paused = true)]
    async fn large_tenants_leave_room_to_the_next_ones() {
        let rates = SubjectRates::default();
        let tenant = |n: usize| TenantId::from_uuid(Uuid::from_u128(n as u128));
        let check = |n, number| rates.check(tenant(n), subject(number), &event(5, 10));
        for large in 0..SUBJECTS_MAX / TENANT_SUBJECTS_MAX + 5 {
            let stored = (0..TENANT_SUBJECTS_MAX).take_while(|number| check(large, *number).is_ok()).count();
            assert!(stored > 0, "tenant {large} has no subject");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tenant_with_too_many_subjects_leaves_room_to_others() {
        let rates = SubjectRates::default();
        let [mallory, alice] = [1, 2].map(|n| TenantId::from_uuid(Uuid::from_u128(n)));
        let check = |tenant, number| rates.check(tenant, subject(number), &event(5, 10)).map(|_| ());
        for number in 0..TENANT_SUBJECTS_MAX {
            check(mallory, number).unwrap();
        }
        assert_eq!(check(mallory, TENANT_SUBJECTS_MAX), Err(TooManySubjects));
        assert_eq!(check(mallory, 0), Ok(()), "a known subject");
        assert_eq!(check(alice, 0), Ok(()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(check(mallory, TENANT_SUBJECTS_MAX), Ok(()), "the others are full again");
    }
}
