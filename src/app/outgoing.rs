//! HTTP clients for hosts that callers choose: webhook endpoints and import URLs.
//!
//! The host name is resolved once and every address is checked. The client connects only to these addresses,
//! does not follow redirects and uses no proxy.

use std::{
    error::Error as _,
    net::{IpAddr, SocketAddr},
};

use reqwest::{Client, ClientBuilder, redirect};
use tokio::net::lookup_host;
use url::{Host, Url};

use crate::domain::outgoing_address::is_public;

/// Builds a client that connects only to the host of this URL. The caller has validated the URL.
///
/// # Errors
/// Returns a message that describes the problem with the host.
pub(super) async fn build_client(
    url: &Url,
    allows_private: bool,
    builder: ClientBuilder,
) -> Result<Client, String> {
    let addresses = resolve_addresses(url, allows_private).await?;
    let mut builder = builder
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")));
    if let Some(Host::Domain(name)) = url.host() {
        builder = builder.resolve_to_addrs(name, &addresses);
    }
    builder.build().map_err(|error| describe_error(&error))
}

/// Resolves the host. Rejects the host if any resolved address is private: a mix of public and private
/// addresses suggests an attack.
async fn resolve_addresses(url: &Url, allows_private: bool) -> Result<Vec<SocketAddr>, String> {
    let port = url.port_or_known_default().ok_or("URL has no port")?;
    let found: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(v4)) => vec![SocketAddr::new(IpAddr::V4(v4), port)],
        Some(Host::Ipv6(v6)) => vec![SocketAddr::new(IpAddr::V6(v6), port)],
        Some(Host::Domain(name)) => {
            let resolved = lookup_host((name, port)).await;
            resolved.map_err(|error| format!("failed to resolve the host name: {error}"))?.collect()
        }
        None => Vec::new(),
    };
    if found.is_empty() {
        return Err("host name resolves to no address".to_owned());
    }
    if !allows_private && found.iter().any(|address| !is_public(address.ip())) {
        return Err("host name resolves to an address of a private network, which is not allowed".to_owned());
    }
    Ok(found)
}

/// Returns the innermost cause of an error, which is the most specific. Omits the URL, which may contain a
/// secret.
pub(super) fn describe_error(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut innermost = None;
    while let Some(inner) = cause {
        innermost = Some(inner.to_string());
        cause = inner.source();
    }
    innermost.unwrap_or_else(|| "host is unreachable".to_owned())
}
