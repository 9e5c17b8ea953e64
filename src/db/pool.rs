//! Connection pools, one per role, with TLS if a CA is configured.
//!
//! Tenants share the connections of a pool fairly, and so do the callers of a tenant: see [`Shares`].

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

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
use tokio::time::{Instant, timeout_at};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{DatabaseOptions, DbError, DbErrorKind};
use crate::admission::{Exhausted, Holder, ShareLimits, ShareStatus, Shares, Slot};

/// A pooled connection. Returns to the pool when dropped.
pub(super) struct Connection {
    inner: Object<AsyncPgConnection>,
    _slot: Slot,
}

impl Connection {
    /// Closes the connection instead of returning it to the pool.
    pub(super) fn discard(self) {
        drop(Object::take(self.inner));
    }
}

impl Deref for Connection {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.inner
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.inner
    }
}

/// The utilization of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolStatus {
    /// The number of connections in use.
    pub in_use: usize,
    /// The number of idle connections.
    pub idle: usize,
    /// The number of requests that wait for a connection.
    pub waiting: usize,
    /// How the tenants share the connections.
    pub shares: ShareStatus,
}

/// The connection pool of one role.
#[derive(Clone)]
pub(super) struct Pool {
    inner: Deadpool<AsyncPgConnection>,
    shares: Arc<Shares>,
    acquire_timeout: Duration,
}

impl Pool {
    /// Creates a pool of at most `size_max` connections, of which the service itself and operators have
    /// `reserved`.
    pub(super) fn open(
        url: &SecretString,
        size_max: usize,
        reserved: usize,
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
        let shares = Shares::new(ShareLimits::slots(size_max).with_reserve(reserved));
        Ok(Self { inner, shares, acquire_timeout: options.acquire_timeout })
    }

    /// Acquires a connection for a holder, in turn. Fails with `Unavailable` if none becomes free within the
    /// timeout.
    pub(super) async fn acquire(&self, holder: Holder) -> Result<Connection, DbError> {
        const OPERATION: &str = "acquire database connection";
        let until = Instant::now() + self.acquire_timeout;
        let slot = self.shares.acquire(holder, 1, self.acquire_timeout).await.map_err(|exhausted| {
            let reason = match exhausted {
                Exhausted::Process => "timed out waiting for a free connection",
                Exhausted::Caller | Exhausted::Tenant | Exhausted::TenantMax => {
                    "timed out waiting for a connection of the caller's share"
                }
            };
            DbError::new(DbErrorKind::Unavailable, OPERATION, reason)
        })?;
        match timeout_at(until, self.inner.get()).await {
            Ok(Ok(inner)) => Ok(Connection { inner, _slot: slot }),
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
            waiting: status.waiting + self.shares.status().waiting,
            shares: self.shares.status(),
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
