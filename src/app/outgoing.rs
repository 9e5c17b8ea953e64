//! Requests to hosts that callers name: webhooks, and URLs to import. The name is resolved here, every address is looked at,
//! and the connection goes to one of those and to no other; redirects are not followed, and no proxy is asked.

use std::{
    error::Error as _,
    net::{IpAddr, SocketAddr},
};

use reqwest::{Client, ClientBuilder, redirect};
use tokio::net::lookup_host;
use url::{Host, Url};

use crate::domain::outgoing_address::is_public;

/// A client that reaches the host of this URL and nothing else. The URL has been checked.
///
/// # Errors
/// A sentence about what is wrong with the host.
pub(super) async fn client_to(
    url: &Url,
    allows_private: bool,
    builder: ClientBuilder,
) -> Result<Client, String> {
    let addresses = addresses(url, allows_private).await?;
    let mut builder = builder
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")));
    if let Some(Host::Domain(name)) = url.host() {
        builder = builder.resolve_to_addrs(name, &addresses);
    }
    builder.build().map_err(|error| said(&error))
}

/// Where the host is. One address inside is enough to refuse them all: whoever mixes them means no good.
async fn addresses(url: &Url, allows_private: bool) -> Result<Vec<SocketAddr>, String> {
    let port = url.port_or_known_default().ok_or("the URL names no port")?;
    let found: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(v4)) => vec![SocketAddr::new(IpAddr::V4(v4), port)],
        Some(Host::Ipv6(v6)) => vec![SocketAddr::new(IpAddr::V6(v6), port)],
        Some(Host::Domain(name)) => {
            let resolved = lookup_host((name, port)).await;
            resolved.map_err(|error| format!("its name does not resolve: {error}"))?.collect()
        }
        None => Vec::new(),
    };
    if found.is_empty() {
        return Err("its name resolves to nothing".to_owned());
    }
    if !allows_private && found.iter().any(|address| !is_public(address.ip())) {
        return Err("its name resolves to an address of a private network, where nothing is sent".to_owned());
    }
    Ok(found)
}

/// The innermost cause says most; the URL, which may carry a secret, is left out.
pub(super) fn said(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut innermost = None;
    while let Some(inner) = cause {
        innermost = Some(inner.to_string());
        cause = inner.source();
    }
    innermost.unwrap_or_else(|| "it cannot be reached".to_owned())
}
