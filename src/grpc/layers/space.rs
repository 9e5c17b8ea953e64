//! A budget of memory of which a call takes space at once, or is refused. Tenants and their callers share it
//! fairly, and some of it is reserved for operators.

use std::sync::Arc;

use crate::admission::{Holder, ShareLimits, ShareStatus, Shares, Slot};

/// The unit of a budget.
const UNIT_BYTES: usize = 1024;

/// The size of a budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpaceLimits {
    pub(super) bytes_max: usize,
    /// Every caller can take this much at once if it is free.
    pub(super) largest_bytes: usize,
    /// What only operators can take.
    pub(super) reserved_bytes: usize,
}

/// A budget of memory. Cheap to clone.
#[derive(Clone)]
pub(super) struct Space {
    shares: Arc<Shares>,
    /// What counts of anything larger: otherwise it could never be taken.
    units_max: usize,
}

impl Space {
    pub(super) fn new(limits: SpaceLimits) -> Self {
        let rounding = limits.largest_bytes.div_ceil(UNIT_BYTES);
        let shares = ShareLimits { rounding, ..ShareLimits::weighted(limits.bytes_max / UNIT_BYTES) }
            .with_reserve(limits.reserved_bytes / UNIT_BYTES);
        let shared = shares.capacity - shares.reserved;
        // A caller that is alone may have nine sixteenths.
        let units_max = (shared / 2).max(rounding).min(shared);
        Self { shares: Shares::new(shares), units_max }
    }

    /// Takes space, if the share of the holder has any. Anonymous calls have no holder, and get none.
    pub(super) fn try_take(&self, holder: Option<Holder>, bytes: usize) -> Option<Slot> {
        let units = bytes.div_ceil(UNIT_BYTES).min(self.units_max);
        self.shares.try_acquire(holder?, units).ok()
    }

    /// Returns how callers share the space.
    pub(super) fn status(&self) -> ShareStatus {
        self.shares.status()
    }

    /// Returns the bytes that are taken.
    #[cfg(test)]
    pub(super) fn taken_bytes(&self) -> usize {
        self.status().in_use * UNIT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admission::CallerKey, domain::ids::TenantId};

    const LIMITS: SpaceLimits =
        SpaceLimits { bytes_max: 64 << 20, largest_bytes: 4 << 20, reserved_bytes: 4 << 20 };

    fn member(name: &str) -> Option<Holder> {
        Some(Holder::of_name(&name))
    }

    #[test]
    fn one_tenant_leaves_space_for_others_and_operators() {
        let space = Space::new(LIMITS);
        let take_all = |name: &str| -> Vec<Slot> {
            std::iter::from_fn(|| space.try_take(member(name), LIMITS.largest_bytes)).take(100).collect()
        };
        let mallory = take_all("globex");
        assert_eq!(mallory.len(), 12);
        assert!(space.try_take(member("acme"), LIMITS.largest_bytes).is_some());
        let others: Vec<Vec<Slot>> = (0..10).map(|number| take_all(&format!("crew-{number}"))).collect();
        assert!(space.try_take(member("late"), LIMITS.largest_bytes).is_none());
        assert!(space.try_take(Some(Holder::PLATFORM), LIMITS.largest_bytes).is_some());
        drop((mallory, others));
        assert_eq!(space.taken_bytes(), 0);
    }

    #[test]
    fn one_caller_leaves_space_to_its_colleagues() {
        let space = Space::new(LIMITS);
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(1));
        let take = |name| {
            let holder = Holder::new(tenant, CallerKey::of_user(name));
            space.try_take(Some(holder), LIMITS.largest_bytes)
        };
        let mallory: Vec<Slot> = std::iter::from_fn(|| take("mallory")).collect();
        assert_eq!(mallory.len(), 9);
        assert!(take("alice").is_some());
    }

    #[test]
    fn every_caller_can_take_the_largest_and_more() {
        for bytes_max in [1 << 20, 6 << 20, 64 << 20] {
            let space = Space::new(SpaceLimits { bytes_max, ..LIMITS });
            for bytes in [LIMITS.largest_bytes, bytes_max, usize::MAX] {
                assert!(space.try_take(member("acme"), bytes).is_some(), "{bytes} of {bytes_max}");
            }
        }
        assert!(Space::new(LIMITS).try_take(None, 1).is_none());
    }
}
