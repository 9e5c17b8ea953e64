//! Checks of addresses that callers provide for outgoing connections. The service must not connect to its own
//! private network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The maximum length of a URL, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// Parses and checks a URL that a caller provides. Host names are not resolved; their addresses must be
/// checked with every connection.
///
/// # Errors
/// Returns the violated rule.
pub fn check_url(text: &str, allows_private: bool) -> Result<Url, &'static str> {
    if text.len() > URL_BYTES_MAX {
        return Err("must have at most 2048 bytes");
    }
    let url = Url::parse(text).map_err(|_| "must be a URL such as https://files.example.org/a")?;
    if url.scheme() != "https" && !(allows_private && url.scheme() == "http") {
        return Err("must begin with https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user name or a password");
    }
    let address = match url.host() {
        Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
        Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
        Some(Host::Domain(_)) => None,
        None => return Err("must name a host"),
    };
    match address {
        Some(address) if !allows_private && !is_public(address) => {
            Err("must not be an address of a private network")
        }
        _ => Ok(url),
    }
}

/// Returns whether an address belongs to the public internet. Also checks IPv4 addresses that are embedded in
/// IPv6 ones.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let is_special = v4.is_unspecified()
        || v4.is_loopback()
        || v4.is_private()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_broadcast()
        || v4.is_documentation();
    // "This network"; carrier-grade NAT; IETF protocol assignments; 6to4 relays; benchmarking; reserved.
    let is_reserved = a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240;
    !is_special && !is_reserved
}

/// Returns the IPv4 address that an IPv6 address embeds: mapped, compatible, NAT64 or 6to4.
fn embedded_v4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        // `::` and `::1` do not embed an IPv4 address.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// Returns whether an address is global unicast, excluding the ranges for documentation, tunnels and tests.
fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [first, second, ..] = v6.segments();
    let is_global = first & 0xe000 == 0x2000;
    let is_reserved = first == 0x2001 && (second < 0x200 || second == 0xdb8) || first == 0x3fff;
    is_global && !is_reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_never_public() {
        for inside in [
            "0.0.0.0",
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
    }

    #[test]
    fn internet_addresses_are_public() {
        for outside in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn rejects_private_and_unencrypted_urls() {
        for refused in [
            "hooks.example.org",
            "http://hooks.example.org",
            "ftp://hooks.example.org",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
            "https://alice:secret@hooks.example.org/",
        ] {
            assert!(check_url(refused, false).is_err(), "{refused}");
        }
        assert!(check_url("https://hooks.example.org:8443/files?x=1", false).is_ok());
        assert!(check_url("http://127.0.0.1:80/", true).is_ok());
    }
}
