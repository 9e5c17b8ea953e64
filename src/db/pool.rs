//! Connection pools, one per role.
//!
//! Tenants share the connections of a pool fairly, and so do the callers of a tenant: see [`Shares`]. Idle
//! connections are lent to those who have used up their share.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use diesel_async::{
    AsyncConnection as _, AsyncPgConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
        deadpool::{Hook, HookError, Object, Pool as Deadpool},
    },
};
use futures::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use super::{
    DatabaseOptions, DbError, DbErrorKind,
    connect::{ConnectionSetup, connect, tls_config},
    failover::{ConnectionObserver, LostServer, is_session_lost},
};
use crate::admission::{Exhausted, Holder, ShareLimits, ShareStatus, Shares, Slot};

/// The idle connections that a tenant leaves to others, and each of its callers to its colleagues. The other idle
/// ones are lent, because a transaction is short.
const SPARE_CONNECTIONS: usize = 1;

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
    url: SecretString,
    setup: ConnectionSetup,
    lost_server: LostServer,
}

impl Pool {
    /// Creates a pool of as many connections as the limits have units.
    pub(super) fn open(
        url: &SecretString,
        limits: ShareLimits,
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
        let (for_connections, observed) = (setup.clone(), lost_server.clone());
        manager.custom_setup = Box::new(move |url| {
            let connecting = connect(for_connections.clone(), url.to_owned());
            let observer = ConnectionObserver::new(observed.clone());
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
            .max_size(limits.capacity)
            .pre_recycle(Hook::sync_fn(move |connection: &mut AsyncPgConnection, metrics| {
                if !lost.is_usable(metrics.created) {
                    Err(HookError::message("the server shut down or accepts no writes"))
                } else if is_session_lost(connection) {
                    Err(HookError::message("the session was ended"))
                } else {
                    Ok(())
                }
            }))
            .build()
            .map_err(|error| DbError::new(DbErrorKind::Other, "build connection pool", error))?;
        let shares = Shares::new(limits.with_lending(SPARE_CONNECTIONS));
        let acquire_timeout = options.acquire_timeout;
        Ok(Self { inner, shares, acquire_timeout, url: url.clone(), setup, lost_server })
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

    /// Acquires a connection for a holder, in turn.
    ///
    /// # Errors
    /// Returns `Exhausted` if none becomes free within the timeout, and `Unavailable` if none can be established.
    pub(super) async fn acquire(&self, holder: Holder) -> Result<Connection, DbError> {
        const OPERATION: &str = "acquire database connection";
        let until = Instant::now() + self.acquire_timeout;
        let slot =
            Box::pin(self.shares.acquire(holder, 1, self.acquire_timeout)).await.map_err(|exhausted| {
                let reason = match exhausted {
                    Exhausted::Process => "timed out waiting for a free connection",
                    Exhausted::Caller | Exhausted::Tenant | Exhausted::TenantMax => {
                        "timed out waiting for a connection of the caller's share"
                    }
                };
                DbError::new(DbErrorKind::Exhausted, OPERATION, reason)
            })?;
        match timeout_at(until, Box::pin(self.inner.get())).await {
            Ok(Ok(inner)) => Ok(Connection { inner, _slot: slot }),
            Ok(Err(error)) => Err(DbError::new(DbErrorKind::Unavailable, OPERATION, error)),
            Err(_) => {
                Err(DbError::new(DbErrorKind::Unavailable, OPERATION, "timed out connecting to the database"))
            }
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
