//! How failed attempts of visitors are counted.
//!
//! Attempts are counted by bucket. A bucket is a hash, so that the number of rows is bounded, whatever the number of
//! addresses.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::{digest::Digest, ids::ShareId, sql_enum::sql_enum};

/// The time in which failed attempts are counted together.
pub const ATTEMPT_WINDOW: Duration = Duration::from_secs(600);

/// The number of buckets of a scope in a tenant. The table has a CHECK with the same number.
pub const BUCKETS: u32 = 16_384;

sql_enum! {
    /// What failed attempts of visitors are counted by.
    AttemptScope {
        /// The address of the visitor, for attempts with an unknown token.
        Address = 1 => "address",
        /// The share, for attempts of all addresses.
        Share = 2 => "share",
        /// The share and the address of the visitor, for wrong passwords.
        ShareAddress = 3 => "share_address",
        /// The share and the address of the visitor, for entries of the access log.
        Log = 4 => "log",
    }
}

/// The attempts that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptBucket {
    pub scope: AttemptScope,
    /// Less than [`BUCKETS`].
    pub number: i32,
}

impl AttemptBucket {
    /// Returns the bucket of an address, which counts attempts with unknown tokens.
    pub fn of_address(address: IpAddr) -> Self {
        Self::of_text(AttemptScope::Address, &site_of(address).to_string())
    }

    /// Returns the bucket of a share, which counts attempts of all addresses.
    pub fn of_share(share: ShareId) -> Self {
        Self::of_text(AttemptScope::Share, &share.to_string())
    }

    /// Returns the bucket of an address at a share. `secret` is a secret of the share, so that nobody can find an address
    /// that has the bucket of another one.
    pub fn of_share_address(share: ShareId, address: IpAddr, secret: &str) -> Self {
        Self::of_text(AttemptScope::ShareAddress, &format!("{share} {} {secret}", site_of(address)))
    }

    /// Returns the bucket of an address at a share that counts its entries in the access log.
    pub fn of_log(share: ShareId, address: IpAddr) -> Self {
        Self::of_text(AttemptScope::Log, &format!("{share} {}", site_of(address)))
    }

    fn of_text(scope: AttemptScope, text: &str) -> Self {
        let digest = Digest::compute(format!("{scope} {text}").as_bytes());
        let hash = digest.as_bytes().iter().take(4).fold(0, |hash, byte| hash << 8 | u32::from(*byte));
        Self { scope, number: (hash % BUCKETS).cast_signed() }
    }
}

/// Returns the network whose attempts count together: an IPv4 address, or the /48 of an IPv6 address. One site has a
/// whole /48 (RFC 6177), and with the 65,536 networks of a smaller size in it, it would use up every bucket.
fn site_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn buckets_are_bounded_and_evenly_used() {
        let addresses = (0..100_000_u32).map(|n| IpAddr::from(n.to_be_bytes()));
        let numbers: HashSet<i32> =
            addresses.map(|address| AttemptBucket::of_address(address).number).collect();
        assert!(numbers.iter().all(|number| (0..16_384).contains(number)));
        assert!(numbers.len() > 16_000, "{} buckets", numbers.len());
    }

    #[test]
    fn bucket_depends_on_share_address_and_secret() {
        let share = |n: u128| ShareId::from_uuid(Uuid::from_u128(n));
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let bucket = AttemptBucket::of_share_address;
        let buckets = HashSet::from([
            bucket(share(1), address(1), "a"),
            bucket(share(2), address(1), "a"),
            bucket(share(1), address(2), "a"),
            bucket(share(1), address(1), "b"),
        ]);
        assert_eq!(buckets.len(), 4);
        assert_eq!(bucket(share(1), address(1), "a"), bucket(share(1), address(1), "a"));
    }

    #[test]
    fn addresses_of_one_site_have_one_bucket() {
        let bucket = |address: &str| AttemptBucket::of_address(address.parse().unwrap());
        assert_eq!(bucket("2001:db8:1:2::"), bucket("2001:db8:1:ffff::7"));
        assert_ne!(bucket("2001:db8:1::"), bucket("2001:db8:2::"));
    }
}
