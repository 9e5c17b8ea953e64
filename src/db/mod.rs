//! PostgreSQL: the only room that names diesel, and the only one that names a table.
//!
//! A query function takes a [`TenantTx`] or a [`SystemTx`], never a connection: whoever holds a transaction is bound to
//! one tenant by the database itself, or has said out loud that it works across tenants. One file a table holds its
//! queries. SQL is written out (`statement.rs`), because what matters here (one conditional UPDATE, set-based inserts,
//! ordered index walks under row-level security) is what a query builder hides; diesel carries it: typed binds, mapped
//! rows, prepared statements, transactions that survive cancellation, migrations.
//!
//! PostgreSQL gets no trait: row-level security is part of the product, and the tests use a real server.

pub mod attachments;
pub mod audit_entries;
pub mod blobs;
pub mod commit;
pub mod content_states;
pub mod download_counts;
mod error;
mod event_hints;
pub mod event_stream;
pub mod events;
pub mod expiring_files;
pub mod file_copies;
pub mod file_owners;
pub mod file_readers;
pub mod file_tags;
pub mod files;
pub mod fsck;
pub mod idempotency_keys;
pub mod imports;
pub mod jobs;
pub mod lists;
mod lost_commit;
pub mod migrate;
pub mod partitions;
mod pool;
pub mod quotas;
pub mod resumable_uploads;
mod roles;
pub mod schedules;
mod statement;
pub mod storage_classes;
pub mod stray_objects;
pub mod sweep_candidates;
pub mod sweeps;
mod system_tx;
pub mod tenant_records;
mod tenant_tx;
pub mod tenants;
pub mod tombstones;
pub mod upload_parts;
pub mod uploads;
pub mod usage_counters;
pub mod verifications;
pub mod versions;
pub mod webhook_deliveries;
pub mod webhooks;

use std::{sync::Arc, time::Duration};

pub use error::{DbError, DbErrorKind};
pub use event_hints::EventHints;
pub use lost_commit::WrittenRow;
pub use pool::PoolStatus;
pub use roles::RoleError;
pub use system_tx::{Outcome, SystemTx};
pub use tenant_tx::{TenantTx, TransactionId, Viewer};

use crate::domain::{
    clock::{Clock, Timestamp},
    ids::TenantId,
};

/// How to reach the database, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// The role that serves requests.
    pub url: secrecy::SecretString,
    /// The role that works across tenants.
    pub system_url: secrecy::SecretString,
    /// The most connections for requests.
    pub pool_size_max: usize,
    /// The most connections for work across tenants.
    pub system_pool_size_max: usize,
    /// How long a statement may run.
    pub statement_timeout: Duration,
    /// How long to wait for a connection.
    pub acquire_timeout: Duration,
    /// The CA that signed the server's certificate; without it the connection is not encrypted.
    pub tls_ca_file: Option<std::path::PathBuf>,
}

/// The database, as two roles see it. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    tenant_pool: pool::Pool,
    system_pool: pool::Pool,
    statement_timeout: Duration,
    event_hints: EventHints,
    test_clock: Option<Arc<dyn Clock>>,
}

impl Database {
    /// Prepares the pools. No connection is opened yet.
    pub fn open(options: &DatabaseOptions) -> Result<Self, DbError> {
        Ok(Self {
            tenant_pool: pool::Pool::open(&options.url, options.pool_size_max, options)?,
            system_pool: pool::Pool::open(&options.system_url, options.system_pool_size_max, options)?,
            statement_timeout: options.statement_timeout,
            event_hints: EventHints::default(),
            test_clock: None,
        })
    }

    /// Makes `app.now()` answer this clock instead of the database's own. For tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.test_clock = Some(clock);
        self
    }

    /// Begins a transaction of one tenant, as this viewer sees it.
    pub async fn tenant_tx(&self, tenant: TenantId, viewer: &Viewer) -> Result<TenantTx, DbError> {
        let connection = self.tenant_pool.acquire().await?;
        TenantTx::begin(self.clone(), connection, tenant, viewer).await
    }

    /// Begins a transaction across tenants.
    pub async fn system_tx(&self) -> Result<SystemTx, DbError> {
        let connection = self.system_pool.acquire().await?;
        SystemTx::begin(self.clone(), connection).await
    }

    /// Refuses roles that could step over row-level security, and says why.
    pub async fn check_roles(&self) -> Result<(), RoleError> {
        roles::check(&self.tenant_pool, &self.system_pool).await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), DbError> {
        self.system_tx().await?.commit().await
    }

    /// Tells of events that are committed in this process.
    pub fn event_hints(&self) -> &EventHints {
        &self.event_hints
    }

    /// How busy the connections for requests are.
    pub fn pool_status(&self) -> PoolStatus {
        self.tenant_pool.status()
    }

    fn now_override(&self) -> Option<Timestamp> {
        self.test_clock.as_ref().map(|clock| clock.now())
    }
}
