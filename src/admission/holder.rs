//! The holder of a part of a shared resource.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv6Addr},
};

use crate::domain::{
    caller::{Actor, Caller},
    ids::TenantId,
};

/// Identifies a caller within its tenant. It is a hash: two callers with the same hash share one share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallerKey(u64);

impl CallerKey {
    /// The service itself, among the holders of the platform.
    const SERVICE: Self = Self(0);

    /// Returns the key of a person or service.
    pub fn of_actor(actor: &Actor) -> Self {
        Self(hash_of(&(actor.kind as u8, &actor.id)))
    }

    /// Returns the key of the work that is done as this user. The empty id is the service itself.
    pub fn of_user(user_id: &str) -> Self {
        Self(hash_of(user_id))
    }
}

/// The holder of units of a shared resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    pub(super) owner: Owner,
    pub(super) caller: Option<CallerKey>,
}

/// The first level of sharing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// Operators, and the work of the service itself.
    Platform,
    /// Background work, where it has a share.
    Background,
    Tenant(TenantId),
    /// A tenant whose id is not known yet, by the hash of its name.
    Name(u64),
    /// A peer whose request is not authenticated yet.
    Address(IpAddr),
    /// All visitors of shares whose secrets are not verified yet.
    Visitors,
}

impl Holder {
    /// Operators and health checks. They have no share, and may use the reserve.
    pub const PLATFORM: Self = Self { owner: Owner::Platform, caller: None };

    /// Work of the service that belongs to no tenant, and its checks of running streams. It has no share and may use
    /// the reserve too. When units are scarce, the waiting caller that holds the fewest is served first. Operators
    /// count as holding none, so they are served before the service.
    pub const SERVICE: Self = Self { owner: Owner::Platform, caller: Some(CallerKey::SERVICE) };

    /// Background work of the service, where it competes with callers. It has the share of a tenant, so neither
    /// can keep the other from its turn.
    pub const BACKGROUND: Self = Self { owner: Owner::Background, caller: None };

    /// A caller of a tenant.
    pub fn of_caller(caller: &Caller) -> Self {
        Self::new(caller.tenant_id(), CallerKey::of_actor(&caller.actor))
    }

    /// A caller of a tenant, by its key.
    pub const fn new(tenant: TenantId, caller: CallerKey) -> Self {
        Self { owner: Owner::Tenant(tenant), caller: Some(caller) }
    }

    /// A tenant as a whole, for work on its behalf without a caller.
    pub const fn of_tenant(tenant: TenantId) -> Self {
        Self { owner: Owner::Tenant(tenant), caller: None }
    }

    /// A tenant that is known by its name only.
    pub fn of_name(name: &impl Hash) -> Self {
        Self { owner: Owner::Name(hash_of(name)), caller: None }
    }

    /// A caller of a tenant that is known by its name only, such as one whose first call has not succeeded yet.
    pub fn of_newcomer(name: &impl Hash, caller: CallerKey) -> Self {
        Self { caller: Some(caller), ..Self::of_name(name) }
    }

    /// The peer of a request that is not authenticated yet.
    pub fn of_address(address: IpAddr) -> Self {
        Self { owner: Owner::Address(normalize_address(address)), caller: None }
    }

    /// A visitor whose secret is not verified yet. All of them together have the share of one tenant, however many
    /// addresses they have.
    pub fn of_visitor(address: IpAddr) -> Self {
        Self { owner: Owner::Visitors, caller: Some(CallerKey(hash_of(&normalize_address(address)))) }
    }

    /// Returns whether the holder may use the units that are reserved for operators.
    pub(super) fn may_use_reserve(&self) -> bool {
        self.owner == Owner::Platform
    }
}

/// Returns the address that counts for limits: one IPv6 client has a whole /64, and a mapped IPv4 address is
/// an IPv4 address.
pub fn normalize_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_client_are_one_address() {
        let normalized = |text: &str| normalize_address(text.parse().unwrap()).to_string();
        assert_eq!(normalized("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(normalized("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(normalized("192.0.2.7"), "192.0.2.7");
    }
}
