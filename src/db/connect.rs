//! Establishes connections: with TLS if a CA is configured, and with or without prepared statements that
//! outlive a transaction.
//!
//! Behind a pooler in transaction mode, each transaction may use another connection of the server. Such a pooler
//! must not see a prepared statement that outlives its transaction, nor a statement outside a transaction that
//! needs two round trips. The time zone and the encoding, which every connection sets, are the only settings of
//! a session, and poolers carry them over.

mod error_codes;
mod transport;

use std::{net::IpAddr, path::Path, sync::Arc};

use diesel::{ConnectionError, ConnectionResult, connection::CacheSize};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::{Client, config::Host};

use self::transport::{Transport, connect_unix_socket};
pub(super) use self::{error_codes::split_code, transport::ConnectError};
use super::{DbError, DbErrorKind};

/// How connections are established.
#[derive(Clone)]
pub(super) struct ConnectionSetup {
    /// Verifies the server's certificate. `None` for connections without TLS.
    pub(super) tls: Option<ClientConfig>,
    /// Whether prepared statements are kept for the next transactions.
    pub(super) keeps_statements: bool,
}

/// Reads the certificate authorities of the server.
pub(super) fn tls_config(ca_file: &Path) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Checks that connections to this URL use TLS or do not leave this machine.
///
/// # Errors
/// Names `url_key` if they would, unless `is_allowed`; then logs a warning.
pub(super) fn check_plaintext(
    url_key: &'static str,
    url: &SecretString,
    ca_file: Option<&Path>,
    is_allowed: bool,
) -> Result<(), DbError> {
    if ca_file.is_some() || is_local(url) {
        return Ok(());
    }
    if is_allowed {
        tracing::warn!(url_key, "connections to the database leave this machine without TLS");
        return Ok(());
    }
    let advice = format!(
        "{url_key} leads to another machine, and TLS is off; set `database.tls_ca_file`, or \
         `database.allow_plaintext = true` if the network encrypts connections"
    );
    Err(DbError::new(DbErrorKind::Other, "open database", advice))
}

/// Returns whether the URL leads to a Unix socket or a loopback address. An invalid URL does too: connecting to it
/// reports what is wrong.
fn is_local(url: &SecretString) -> bool {
    let Ok(config) = url.expose_secret().parse::<tokio_postgres::Config>() else { return true };
    if !config.get_hostaddrs().is_empty() {
        return config.get_hostaddrs().iter().all(|address| address.to_canonical().is_loopback());
    }
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
        }
    })
}

/// Establishes a connection.
pub(super) async fn connect(setup: ConnectionSetup, url: String) -> ConnectionResult<AsyncPgConnection> {
    if !setup.keeps_statements {
        return connect_without_statements(&setup, &url).await;
    }
    match Transport::select(&url, setup.tls.as_ref()).map_err(connection_error)? {
        Transport::Tls(config, tls) => {
            let (client, connection) = config.connect(tls).await.map_err(driver_error)?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await
        }
        Transport::Clear(config, clear) => {
            let (client, connection) = config.connect(clear).await.map_err(driver_error)?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await
        }
        Transport::Unix(_) => {
            let client = connect_client(&setup, &url).await.map_err(connection_error)?;
            AsyncPgConnection::try_from(client).await
        }
    }
}

/// Establishes a connection that closes every prepared statement in the transaction that prepared it. The names
/// of statements are unique in this process, and a name is free again when its transaction ends, so processes
/// that share a connection of the server do not collide.
async fn connect_without_statements(
    setup: &ConnectionSetup,
    url: &str,
) -> ConnectionResult<AsyncPgConnection> {
    let client = connect_client(setup, url).await.map_err(connection_error)?;
    // The driver prepares the statements that set the time zone and the encoding.
    client.batch_execute("BEGIN").await.map_err(driver_error)?;
    let mut connection = AsyncPgConnection::try_from(client).await?;
    connection.set_prepared_statement_cache_size(CacheSize::Disabled);
    connection.batch_execute("COMMIT").await.map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

/// Connects without the query builder, and polls the connection in a task that ends with the client.
pub(super) async fn connect_client(setup: &ConnectionSetup, url: &str) -> Result<Client, ConnectError> {
    match Transport::select(url, setup.tls.as_ref())? {
        Transport::Tls(config, tls) => {
            let (client, connection) = config.connect(tls).await?;
            tokio::spawn(log_end(connection));
            Ok(client)
        }
        Transport::Clear(config, clear) => {
            let (client, connection) = config.connect(clear).await?;
            tokio::spawn(log_end(connection));
            Ok(client)
        }
        Transport::Unix(config) => {
            let (client, connection) = connect_unix_socket(&config).await?;
            tokio::spawn(log_end(connection));
            Ok(client)
        }
    }
}

/// Waits until the connection is closed. The calls in progress fail, and their errors are reported.
async fn log_end(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "database connection was lost");
    }
}

fn connection_error(error: ConnectError) -> ConnectionError {
    ConnectionError::BadConnection(error.to_string())
}

fn driver_error(error: tokio_postgres::Error) -> ConnectionError {
    connection_error(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, is_allowed: bool) -> Result<(), String> {
        check_plaintext("database.url", &SecretString::from(url), None, is_allowed)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn plaintext_to_another_machine_is_refused() {
        for url in [
            "postgres://app:secret@db.example.org/files",
            "postgres://app@10.0.0.7:5432/files",
            "postgres://app@localhost,db.example.org/files",
            "host=localhost hostaddr=10.0.0.7 user=app",
        ] {
            let error = check(url, false).unwrap_err();
            assert!(
                error.contains("database.allow_plaintext = true") && !error.contains("secret"),
                "{error}"
            );
            check(url, true).unwrap();
        }
    }

    #[test]
    fn sockets_and_loopback_addresses_need_no_tls() {
        for url in [
            "postgres://app@%2Fvar%2Frun%2Fpostgresql/files",
            "postgres://app@localhost/files",
            "postgres://app@127.0.0.1:6432/files",
            "postgres://app@[::1]/files",
            "host=db.example.org hostaddr=127.0.0.1 user=app",
        ] {
            check(url, false).unwrap();
        }
    }
}
