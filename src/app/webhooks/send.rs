//! One message to one endpoint. The name is resolved here, every address is looked at, and the connection goes to one of
//! those and to no other; redirects are not followed, and no proxy is asked.

use std::{
    error::Error as _,
    net::{IpAddr, SocketAddr},
};

use reqwest::{Client, redirect};
use tokio::{net::lookup_host, time::timeout};
use url::{Host, Url};

use super::message::Message;
use crate::{
    config::WebhooksConfig,
    domain::{outgoing_address::is_public, webhook::check_url},
};

/// How much of an error is kept, in characters.
const ERROR_CHARACTERS_MAX: usize = 300;

/// Sends a message; a sentence about what went wrong where it was not taken with a 2xx.
pub(super) async fn send(config: &WebhooksConfig, url: &str, message: &Message) -> Result<(), String> {
    let sent = timeout(config.timeout(), attempt(config, url, message)).await;
    let error = match sent {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => format!("no answer within {} seconds", config.timeout_seconds),
    };
    Err(error.chars().take(ERROR_CHARACTERS_MAX).collect())
}

async fn attempt(config: &WebhooksConfig, url: &str, message: &Message) -> Result<(), String> {
    let url = check_url(url, config.allow_private_addresses).map_err(|why| format!("the URL {why}"))?;
    let addresses = addresses(config, &url).await?;
    let mut client =
        Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(config.timeout());
    if let Some(Host::Domain(name)) = url.host() {
        client = client.resolve_to_addrs(name, &addresses);
    }
    let client = client.build().map_err(|error| said(&error))?;
    let answer = client
        .post(url)
        .header("content-type", "application/json")
        .header("user-agent", concat!("strongroom/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", message.timestamp_seconds.to_string())
        .header("webhook-signature", &message.signature)
        .body(message.body.clone())
        .send()
        .await
        .map_err(|error| said(&error))?;
    // The answer's body is nobody's business, and may be endless.
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}

/// Where the host is. One address inside is enough to refuse them all: whoever mixes them means no good.
async fn addresses(config: &WebhooksConfig, url: &Url) -> Result<Vec<SocketAddr>, String> {
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
    if !config.allow_private_addresses && found.iter().any(|address| !is_public(address.ip())) {
        return Err("its name resolves to an address of a private network, where nothing is sent".to_owned());
    }
    Ok(found)
}

/// The innermost cause says most; the URL, which may carry a secret in its path, is left out.
fn said(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut innermost = None;
    while let Some(inner) = cause {
        innermost = Some(inner.to_string());
        cause = inner.source();
    }
    innermost.unwrap_or_else(|| "it cannot be reached".to_owned())
}
