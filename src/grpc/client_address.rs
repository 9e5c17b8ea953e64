//! The address of the client of a request.
//!
//! It is the address of the connection, unless that is one of a trusted proxy (`server.trusted_proxies`). Each proxy
//! adds the address of its peer to the end of a header (`server.client_address_header`), after the addresses that the
//! client sent and can forge. So the address of the client is the last one that is not a trusted proxy.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, Request};
use tonic::body::Body;

use super::connections::PeerInfo;
use crate::{
    config::{ClientAddressHeader, ServerConfig},
    domain::address_range::AddressRange,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The maximum number of proxies between the client and this process.
const HOPS_MAX: usize = 32;

/// The address of the client of a request, in its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// The proxies that name the address of the client in a header.
#[derive(Debug, Clone)]
pub(super) struct TrustedProxies {
    ranges: Arc<[AddressRange]>,
    header: ClientAddressHeader,
}

impl TrustedProxies {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self { ranges: config.trusted_proxies.clone().into(), header: config.client_address_header }
    }

    /// Returns the address of the client. Tests without a connection have none.
    pub(super) fn client_of(&self, request: &Request<Body>) -> Option<ClientAddress> {
        let peer = request.extensions().get::<PeerInfo>()?.tcp.remote_addr()?.ip();
        Some(ClientAddress(self.find_client(peer, request.headers())))
    }

    fn find_client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.is_trusted(peer) {
            return peer;
        }
        match self.header {
            ClientAddressHeader::XForwardedFor => {
                let elements = elements_of(headers, &X_FORWARDED_FOR, |text| text.split(',').collect());
                self.last_untrusted(peer, &elements, parse_node)
            }
            ClientAddressHeader::Forwarded => {
                let elements =
                    elements_of(headers, &http::header::FORWARDED, |text| split_unquoted(text, ','));
                self.last_untrusted(peer, &elements, parse_element)
            }
        }
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// Returns the last address that is not trusted. Before an element that names no address, the addresses may be
    /// forged: then it is the last one after that.
    fn last_untrusted(&self, peer: IpAddr, elements: &[String], parse: fn(&str) -> Option<IpAddr>) -> IpAddr {
        let mut client = peer;
        for element in elements.iter().rev().take(HOPS_MAX) {
            let Some(address) = parse(element) else { return client };
            client = address;
            if !self.is_trusted(address) {
                return client;
            }
        }
        client
    }
}

/// Returns the elements of all lines of a header. Bytes that are not UTF-8 make only their own element invalid.
fn elements_of(headers: &HeaderMap, name: &HeaderName, split: fn(&str) -> Vec<&str>) -> Vec<String> {
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    lines
        .flat_map(|line| {
            split(&line).into_iter().map(|element| element.trim().to_owned()).collect::<Vec<_>>()
        })
        .collect()
}

/// Splits a text at a separator outside of quoted strings. Text after a quote without an end is one part.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(|character: char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match character {
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            '"' if !was_escaped => is_quoted = !is_quoted,
            _ => return character == separator && !is_quoted,
        }
        false
    });
    parts.collect()
}

/// Parses an address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn parse_node(text: &str) -> Option<IpAddr> {
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|node| node.ip());
    let address: IpAddr = text.parse().ok().or_else(in_brackets).or_else(with_port)?;
    Some(address.to_canonical())
}

/// Parses the address in an element of `forwarded` (RFC 7239): `for="[2001:db8::1]:80";proto=https`.
fn parse_element(text: &str) -> Option<IpAddr> {
    split_unquoted(text, ';').into_iter().find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let is_for = name.trim().eq_ignore_ascii_case("for");
        is_for.then(|| parse_node(value.trim().trim_matches('"'))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the address of a client whose request comes from a peer, with these headers. Proxies are in 10.0.0.0/8,
    /// and maintain the first header.
    fn client(peer: &str, sent: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let header = match sent.first() {
            Some(("forwarded", _)) => ClientAddressHeader::Forwarded,
            _ => ClientAddressHeader::XForwardedFor,
        };
        let proxies = TrustedProxies { ranges: ["10.0.0.0/8".parse().unwrap()].into(), header };
        proxies.find_client(peer.parse().unwrap(), &headers).to_string()
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn headers_of_untrusted_peers_are_ignored() {
        assert_eq!(client("203.0.113.9", &[(XFF, "192.0.2.1")]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &[("forwarded", "for=192.0.2.1")]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &[(XFF, "10.0.0.1")]), "203.0.113.9");
    }

    #[test]
    fn client_is_the_last_untrusted_hop() {
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &[(XFF, "192.0.2.1")]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[(XFF, "192.0.2.1, 10.0.0.2")]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[(XFF, "10.0.0.3,10.0.0.2")]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[(XFF, "192.0.2.1:4711")]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[(XFF, "[2001:db8::7]:4711")]), "2001:db8::7");
        assert_eq!(
            client("10.0.0.1", &[("forwarded", "for=198.51.100.1, For=\"[2001:db8::7]:9\";proto=https")]),
            "2001:db8::7"
        );
    }

    #[test]
    fn forged_addresses_before_the_last_hop_are_ignored() {
        assert_eq!(client("10.0.0.1", &[(XFF, "198.51.100.66, 192.0.2.1")]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[(XFF, "198.51.100.66"), (XFF, "192.0.2.1")]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[(XFF, "198.51.100.66, unknown, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[(XFF, "")]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=_hidden")]), "10.0.0.1");
        let many = "10.0.0.2,".repeat(100);
        assert_eq!(client("10.0.0.1", &[(XFF, &format!("192.0.2.1,{many}10.0.0.3"))]), "10.0.0.2");
    }

    #[test]
    fn header_that_the_proxy_does_not_maintain_is_ignored() {
        let forged = ("forwarded", "for=198.51.100.66");
        assert_eq!(client("10.0.0.1", &[(XFF, "192.0.2.1"), forged]), "192.0.2.1");
        assert_eq!(
            client("10.0.0.1", &[("forwarded", "for=192.0.2.1"), (XFF, "198.51.100.66")]),
            "192.0.2.1"
        );
    }

    #[test]
    fn quoted_text_in_forwarded_names_no_address() {
        let host = "for=192.0.2.1;host=\"a,for=198.51.100.66;b\\\",for=198.51.100.67\";proto=https";
        assert_eq!(client("10.0.0.1", &[("forwarded", host)]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=\"a, for=192.0.2.1")]), "10.0.0.1");
    }

    #[test]
    fn bytes_that_are_no_text_hide_no_later_address() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, http::HeaderValue::from_bytes(b"\xff\xfe, 192.0.2.1").unwrap());
        let header = ClientAddressHeader::XForwardedFor;
        let proxies = TrustedProxies { ranges: ["10.0.0.0/8".parse().unwrap()].into(), header };
        assert_eq!(proxies.find_client("10.0.0.1".parse().unwrap(), &headers).to_string(), "192.0.2.1");
    }
}
