//! Connection pools, one per role, with TLS if a CA is configured.

use std::{sync::Arc, time::Duration};

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{
    AsyncPgConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{Object, Pool as Deadpool},
    },
};
use futures::FutureExt;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{DatabaseOptions, DbError, DbErrorKind};

/// A pooled connection. Returns to the pool when dropped.
pub(super) type Connection = Object<AsyncPgConnection>;

/// The utilization of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolStatus {
    /// The number of connections in use.
    pub in_use: usize,
    /// The number of idle connections.
    pub idle: usize,
    /// The number of requests that wait for a connection.
    pub waiting: usize,
}

/// The connection pool of one role.
#[derive(Clone)]
pub(super) struct Pool {
    inner: Deadpool<AsyncPgConnection>,
    acquire_timeout: Duration,
}

impl Pool {
    pub(super) fn open(
        url: &SecretString,
        size_max: usize,
        options: &DatabaseOptions,
    ) -> Result<Self, DbError> {
        let mut manager = ManagerConfig::default();
        // Detects closed connections and open transactions without a query.
        manager.recycling_method = RecyclingMethod::Fast;
        if let Some(ca_file) = &options.tls_ca_file {
            let tls = tls_config(ca_file)
                .map_err(|error| DbError::new(DbErrorKind::Other, "read database.tls_ca_file", error))?;
            manager.custom_setup =
                Box::new(move |url| connect_encrypted(tls.clone(), url.to_owned()).boxed());
        }
        let manager = AsyncDieselConnectionManager::new_with_config(url.expose_secret(), manager);
        let inner = Deadpool::builder(manager)
            .max_size(size_max)
            .build()
            .map_err(|error| DbError::new(DbErrorKind::Other, "build connection pool", error))?;
        Ok(Self { inner, acquire_timeout: options.acquire_timeout })
    }

    /// Acquires a connection. Fails with `Unavailable` if none becomes free within the timeout.
    pub(super) async fn acquire(&self) -> Result<Connection, DbError> {
        const OPERATION: &str = "acquire database connection";
        match tokio::time::timeout(self.acquire_timeout, self.inner.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(DbError::new(DbErrorKind::Unavailable, OPERATION, error)),
            Err(_) => Err(DbError::new(
                DbErrorKind::Unavailable,
                OPERATION,
                "timed out waiting for a free connection",
            )),
        }
    }

    pub(super) fn status(&self) -> PoolStatus {
        let status = self.inner.status();
        PoolStatus {
            in_use: status.size.saturating_sub(status.available),
            idle: status.available,
            waiting: status.waiting,
        }
    }
}

pub(super) fn tls_config(
    ca_file: &std::path::Path,
) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

pub(super) async fn connect_encrypted(tls: ClientConfig, url: String) -> ConnectionResult<AsyncPgConnection> {
    let connection_error = |error: tokio_postgres::Error| ConnectionError::BadConnection(error.to_string());
    let mut config: tokio_postgres::Config = url.parse().map_err(connection_error)?;
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await.map_err(connection_error)?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}
