//! The limits of a pool, and the size of a share.

/// The units that a holder may have, as a multiple of those that it leaves free.
pub const SHARE_OF_FREE: usize = 3;

/// The limits of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLimits {
    /// The number of units.
    pub capacity: usize,
    /// The units that only operators and the service itself may use.
    pub reserved: usize,
    /// Whether what they hold counts as a part of the reserve. Otherwise the whole reserve stays free beside it.
    pub is_reserve_used_first: bool,
    /// The units by which a share is rounded up, so that a pool of a few units can be used at all.
    pub rounding: usize,
    /// The most units that a tenant may hold, whatever is free.
    pub tenant_max: usize,
    /// The units that stay free when the others are lent; `None` if shares are never exceeded.
    pub lent_above: Option<usize>,
    /// The most units of the share of a tenant, which its callers share.
    pub share_max: usize,
}

impl ShareLimits {
    /// Limits of a pool whose holders take one unit at a time.
    pub const fn slots(capacity: usize) -> Self {
        Self {
            capacity,
            reserved: 0,
            is_reserve_used_first: false,
            rounding: 1,
            tenant_max: usize::MAX,
            share_max: usize::MAX,
            lent_above: None,
        }
    }

    /// Limits of a pool whose holders take many units at a time.
    pub const fn weighted(capacity: usize) -> Self {
        Self { rounding: 0, ..Self::slots(capacity) }
    }

    /// Reserves units for operators, at most half of the pool.
    #[must_use]
    pub fn with_reserve(self, units: usize) -> Self {
        Self { reserved: units.min(self.capacity / 2), ..self }
    }

    /// Makes operators and the service itself use the reserve first, so that they take nothing from tenants until it
    /// is used up. For a reserve that is used all the time.
    #[must_use]
    pub const fn with_reserve_used_first(self) -> Self {
        Self { is_reserve_used_first: true, ..self }
    }

    /// Gives a tenant a share of at most half of what is not reserved, however much is free. For what can be
    /// held for long: a few tenants that take one share after the other would otherwise leave next to nothing.
    #[must_use]
    pub const fn with_tenant_half(self) -> Self {
        Self { share_max: (self.capacity - self.reserved).div_ceil(2), ..self }
    }

    /// Lends idle units: as long as nobody within its share waits, a holder may exceed its own share and leave
    /// only `spare` units to other tenants, and as many to the other callers of its tenant. For units that are
    /// held for a short time, because lent units are not taken back.
    #[must_use]
    pub fn with_lending(self, spare: usize) -> Self {
        Self { lent_above: Some(spare), ..self }
    }

    /// Returns the most units that a holder may have of those that others leave: the largest number that is not
    /// more than [`SHARE_OF_FREE`] times the rest, or all but the spare ones.
    pub(super) fn share_of(&self, units: usize) -> usize {
        let rounded = units.saturating_add(self.rounding);
        let share = rounded.saturating_mul(SHARE_OF_FREE) / (SHARE_OF_FREE + 1);
        let lent = self.lent_above.map_or(0, |spare| units.saturating_sub(spare));
        share.max(lent).min(units)
    }
}
