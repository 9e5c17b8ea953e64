//! Binding of listeners, with errors that name the setting.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use super::Failure;

/// A listener of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListenerSetting {
    /// What the listener is for.
    pub(super) purpose: &'static str,
    /// The configuration key or the flag that sets its address.
    pub(super) setting: &'static str,
}

/// The listeners of `serve` and `worker`.
pub(super) const GRPC: ListenerSetting = ListenerSetting { purpose: "gRPC", setting: "server.listen" };
pub(super) const EDGE: ListenerSetting =
    ListenerSetting { purpose: "probes and metrics", setting: "edge.listen" };

/// Binds a listener.
///
/// # Errors
/// Says which listener could not be bound, and which setting changes its address.
pub(super) async fn bind_listener(
    listener: ListenerSetting,
    address: SocketAddr,
) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| describe_error(listener, address, &error).into())
}

fn describe_error(listener: ListenerSetting, address: SocketAddr, error: &io::Error) -> String {
    let ListenerSetting { purpose, setting } = listener;
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process uses {address}, the address for {purpose}; stop that process, or set `{setting}` to \
             another port"
        ),
        _ => format!("failed to listen on {address} for {purpose} (`{setting}`): {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn used_address_is_reported_with_its_setting() {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind_listener(EDGE, address).await.unwrap_err().to_string();
        for part in [&address.to_string(), "probes and metrics", "`edge.listen`"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
