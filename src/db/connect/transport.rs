//! Opens the stream of a connection: a TCP connection with or without TLS, or a Unix socket. All of them are
//! [`CodedStream`]s, so that every error has its SQLSTATE.
//!
//! The driver lets only its TLS connector replace the stream of a TCP connection. Without TLS, a connector that
//! encrypts nothing does so, and the driver asks the server for no TLS, because it expects the connector to begin
//! immediately (`sslnegotiation=direct`).

use std::{
    future::{Ready, ready},
    path::Path,
};

use futures::{TryFutureExt as _, future::MapOk};
use rustls::ClientConfig;
use tokio::net::UnixStream;
use tokio_postgres::{
    Client, Config, Connection, NoTls, Socket,
    config::{Host, SslMode, SslNegotiation},
    tls::{MakeTlsConnect, NoTlsStream, TlsConnect, TlsStream as _},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error_codes::CodedStream;

/// The reason why no connection could be established.
#[derive(Debug, thiserror::Error)]
pub(in crate::db) enum ConnectError {
    /// The driver reports its cause in its source only.
    #[error("{}", crate::domain::error_text::with_causes(.0))]
    Driver(#[from] tokio_postgres::Error),
    #[error("failed to connect to the socket of the server: {0}")]
    Socket(#[from] std::io::Error),
    #[error("the connection URL lists a Unix socket and other hosts; name one socket, or only other hosts")]
    SocketAmongHosts,
}

/// A client, and the connection that must be polled for it.
pub(super) type Connected<S, T> = (Client, Connection<S, T>);

/// The way to the server that a connection URL and the TLS settings select.
pub(super) enum Transport {
    Tls(Config, CodedTls),
    Clear(Config, ClearText),
    Unix(Config),
}

impl Transport {
    /// Selects the way to the server.
    ///
    /// # Errors
    /// Returns an error if the URL is invalid.
    pub(super) fn select(url: &str, tls: Option<&ClientConfig>) -> Result<Self, ConnectError> {
        let mut config: Config = url.parse()?;
        if let Some(tls) = tls {
            config.ssl_mode(SslMode::Require);
            return Ok(Self::Tls(config, CodedTls(MakeRustlsConnect::new(tls.clone()))));
        }
        let is_tls_required = config.get_ssl_mode() == SslMode::Require;
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        if config.get_hostaddrs().is_empty() && config.get_hosts().iter().any(is_socket) {
            config.ssl_mode(SslMode::Disable);
            return match config.get_hosts() {
                [_] => Ok(Self::Unix(config)),
                _ => Err(ConnectError::SocketAmongHosts),
            };
        }
        if config.get_hosts().is_empty() {
            // A TLS connector requires names of hosts.
            for address in config.get_hostaddrs().to_vec() {
                config.host(address.to_string());
            }
        }
        config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        Ok(Self::Clear(config, ClearText { is_tls_required }))
    }
}

/// Connects to the Unix socket of the server.
pub(super) async fn connect_unix_socket(
    config: &Config,
) -> Result<Connected<CodedStream<UnixStream>, NoTlsStream>, ConnectError> {
    let directory = match config.get_hosts() {
        [Host::Unix(directory)] => directory.as_path(),
        _ => Path::new(""),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let stream = UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await?;
    Ok(config.connect_raw(CodedStream::in_clear(stream), NoTls).await?)
}

/// Establishes no TLS, but a [`CodedStream`].
#[derive(Clone)]
pub(super) struct ClearText {
    is_tls_required: bool,
}

impl MakeTlsConnect<Socket> for ClearText {
    type Stream = CodedStream<Socket>;
    type TlsConnect = Self;
    type Error = &'static str;

    fn make_tls_connect(&mut self, _: &str) -> Result<Self, Self::Error> {
        match self.is_tls_required {
            true => Err("the connection URL requires TLS; set `database.tls_ca_file`"),
            false => Ok(self.clone()),
        }
    }
}

impl TlsConnect<Socket> for ClearText {
    type Stream = CodedStream<Socket>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Stream, Self::Error>>;

    fn connect(self, stream: Socket) -> Self::Future {
        ready(Ok(CodedStream::in_clear(stream)))
    }
}

type Rustls = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Establishes TLS, and a [`CodedStream`] inside.
#[derive(Clone)]
pub(super) struct CodedTls(MakeRustlsConnect);

impl MakeTlsConnect<Socket> for CodedTls {
    type Stream = CodedStream<RustlsStream>;
    type TlsConnect = CodedTlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<CodedTlsConnect, Self::Error> {
        let connect = MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, domain)?;
        Ok(CodedTlsConnect(connect))
    }
}

/// Establishes TLS over one connection.
pub(super) struct CodedTlsConnect(Rustls);

impl TlsConnect<Socket> for CodedTlsConnect {
    type Stream = CodedStream<RustlsStream>;
    type Error = <Rustls as TlsConnect<Socket>>::Error;
    type Future =
        MapOk<<Rustls as TlsConnect<Socket>>::Future, fn(RustlsStream) -> CodedStream<RustlsStream>>;

    fn connect(self, stream: Socket) -> Self::Future {
        let with_codes: fn(RustlsStream) -> CodedStream<RustlsStream> =
            |encrypted| CodedStream::new(encrypted, RustlsStream::channel_binding);
        self.0.connect(stream).map_ok(with_codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_select_the_way_to_the_server() {
        for url in ["postgres://app@localhost/files", "host=db hostaddr=10.0.0.7", "hostaddr=10.0.0.7"] {
            let Ok(Transport::Clear(config, _)) = Transport::select(url, None) else { panic!("{url}") };
            assert_eq!(config.get_hosts().len(), 1, "{url}");
        }
        let socket = "postgres://app@%2Fvar%2Frun%2Fpostgresql/files";
        assert!(matches!(Transport::select(socket, None), Ok(Transport::Unix(_))));
        let mixed = Transport::select("host=/var/run/postgresql,db user=app", None);
        assert!(matches!(mixed, Err(ConnectError::SocketAmongHosts)));
    }

    #[test]
    fn url_that_requires_tls_is_refused_without_a_ca() {
        let Ok(Transport::Clear(_, mut clear)) = Transport::select("host=db sslmode=require", None) else {
            panic!("selected another transport");
        };
        assert!(clear.make_tls_connect("db").is_err());
    }
}
