//! Ranges of IP addresses: a single address, or a network in CIDR notation.

use std::{net::IpAddr, str::FromStr};

use serde::Deserialize;

/// A range of IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressRange {
    network: IpAddr,
    prefix_bits: u32,
}

/// The text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct InvalidAddressRange(String);

impl AddressRange {
    /// Returns whether the address is in the range. A mapped IPv4 address counts as an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (address, bits) = to_bits(address.to_canonical());
        let (network, network_bits) = to_bits(self.network);
        let ignored_bits = bits - self.prefix_bits.min(bits);
        let same_prefix = ignored_bits == 128 || address >> ignored_bits == network >> ignored_bits;
        bits == network_bits && same_prefix
    }
}

/// Returns an address as a number, and its length in bits.
fn to_bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u32::from(address).into(), 32),
        IpAddr::V6(address) => (address.into(), 128),
    }
}

impl FromStr for AddressRange {
    type Err = InvalidAddressRange;

    fn from_str(text: &str) -> Result<Self, InvalidAddressRange> {
        let invalid = || InvalidAddressRange(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| invalid())?;
        let (_, bits) = to_bits(network);
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(invalid)?,
            None => bits,
        };
        Ok(Self { network, prefix_bits })
    }
}

impl TryFrom<String> for AddressRange {
    type Error = InvalidAddressRange;

    fn try_from(text: String) -> Result<Self, InvalidAddressRange> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, address: &str) -> bool {
        range.parse::<AddressRange>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn range_contains_the_addresses_of_its_network() {
        assert!(contains("10.1.0.0/16", "10.1.255.7"));
        assert!(!contains("10.1.0.0/16", "10.2.0.1"));
        assert!(contains("0.0.0.0/0", "203.0.113.1"));
        assert!(contains("192.0.2.1", "192.0.2.1"));
        assert!(contains("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("fd00::/8", "fd12::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(!contains("::/0", "192.0.2.1"));
    }

    #[test]
    fn rejects_text_that_is_no_range() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "host", "::1/129", "10.0.0.0/x"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }
}
