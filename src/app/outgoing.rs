//! HTTP clients for hosts that callers choose: webhook endpoints and import URLs.
//!
//! The host name is resolved once and every address is checked. The client connects only to these addresses,
//! does not follow redirects and uses no proxy.

use std::{
    error::Error as _,
    io,
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
            let resolved = resolved.inspect_err(|error| {
                tracing::info!(%error, "failed to resolve a host name that a caller chose");
            });
            resolved.map_err(|_| "failed to resolve the host name".to_owned())?.collect()
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

/// Describes an error in words of this file, which are shown to callers.
///
/// The texts of the libraries can contain addresses and host names inside the network of this service, and the
/// URL, which may contain a secret. They are only logged.
pub(super) fn describe_error(error: &reqwest::Error) -> String {
    let mut causes = vec![];
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push(inner);
        cause = inner.source();
    }
    let detail = causes.last().map(ToString::to_string).unwrap_or_default();
    tracing::info!(detail, "request to a host that a caller chose failed");
    // The innermost cause is the most specific.
    let known = causes.iter().rev().find_map(|cause| describe_cause(*cause));
    known.unwrap_or_else(|| {
        let text = match error {
            error if error.is_timeout() => "the host did not respond in time",
            error if error.is_connect() => "failed to connect to the host",
            error if error.is_body() => "the connection ended within the body",
            _ => "the host did not send a valid response",
        };
        text.to_owned()
    })
}

/// Describes a cause by its kind, if that says more than that there was an error.
fn describe_cause(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(describe_tls_error(error).to_owned());
    }
    let error = cause.downcast_ref::<io::Error>()?;
    // TLS errors are inside errors of this type, but are not their source.
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Some(describe_tls_error(inner).to_owned());
    }
    let is_specific = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::TimedOut
            | io::ErrorKind::UnexpectedEof
    );
    is_specific.then(|| error.kind().to_string())
}

/// Describes a TLS error without the names in the certificate.
fn describe_tls_error(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Problem;
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            Problem::Expired | Problem::ExpiredContext { .. } => "the certificate of the host has expired",
            Problem::NotValidYet | Problem::NotValidYetContext { .. } => {
                "the certificate of the host is not valid yet"
            }
            Problem::NotValidForName | Problem::NotValidForNameContext { .. } => {
                "the certificate of the host is for another name"
            }
            Problem::UnknownIssuer => "the certificate of the host has an unknown issuer",
            _ => "the certificate of the host is invalid",
        },
        _ => "the TLS handshake with the host failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_no_addresses() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connect to 10.0.0.7:443 failed");
        assert_eq!(describe_cause(&refused).as_deref(), Some("connection refused"));
        let other = io::Error::other("db.internal: 10.0.0.7");
        assert_eq!(describe_cause(&other), None);
        let name = rustls::Error::General("10.0.0.7".to_owned());
        assert_eq!(
            describe_cause(&io::Error::other(name)).as_deref(),
            Some("the TLS handshake with the host failed")
        );
    }
}
