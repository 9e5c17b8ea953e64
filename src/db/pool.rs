//! Connection pools, one per role.

use std::time::Duration;

use diesel_async::{
    AsyncConnection as _, AsyncPgConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{Hook, HookError, Object, Pool as Deadpool},
    },
};
use futures::FutureExt;
use secrecy::{ExposeSecret, SecretString};

use super::{
    DatabaseOptions, DbError, DbErrorKind,
    connect::{ConnectionSetup, connect, tls_config},
    failover::LostServer,
};

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
    url: SecretString,
    setup: ConnectionSetup,
    lost_server: LostServer,
}

impl Pool {
    pub(super) fn open(
        url: &SecretString,
        size_max: usize,
        options: &DatabaseOptions,
    ) -> Result<Self, DbError> {
        let tls = options
            .tls_ca_file
            .as_deref()
            .map(tls_config)
            .transpose()
            .map_err(|error| DbError::new(DbErrorKind::Other, "read database.tls_ca_file", error))?;
        let setup = ConnectionSetup { tls, keeps_statements: options.prepared_statements };
        let lost_server = LostServer::default();
        let mut manager = ManagerConfig::default();
        // Detects closed connections and open transactions without a query.
        manager.recycling_method = RecyclingMethod::Fast;
        let (for_connections, observer) = (setup.clone(), lost_server.clone());
        manager.custom_setup = Box::new(move |url| {
            let (connecting, observer) = (connect(for_connections.clone(), url.to_owned()), observer.clone());
            async move {
                let mut connection = connecting.await?;
                connection.set_instrumentation(observer);
                Ok(connection)
            }
            .boxed()
        });
        let manager = AsyncDieselConnectionManager::new_with_config(url.expose_secret(), manager);
        let lost = lost_server.clone();
        let inner = Deadpool::builder(manager)
            .max_size(size_max)
            .pre_recycle(Hook::sync_fn(move |_, metrics| match lost.is_usable(metrics.created) {
                true => Ok(()),
                false => Err(HookError::message("the server shut down or accepts no writes")),
            }))
            .build()
            .map_err(|error| DbError::new(DbErrorKind::Other, "build connection pool", error))?;
        Ok(Self { inner, acquire_timeout: options.acquire_timeout, url: url.clone(), setup, lost_server })
    }

    /// Returns the connection URL.
    pub(super) fn url(&self) -> &SecretString {
        &self.url
    }

    /// Returns how connections are established.
    pub(super) fn setup(&self) -> &ConnectionSetup {
        &self.setup
    }

    /// Discards all connections that exist now, each when it is not in use.
    pub(super) fn discard_connections(&self) {
        self.lost_server.discard_existing();
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
