//! The PostgreSQL layer. Only this module names diesel, and only this module names tables.
//!
//! Query functions take a [`TenantTx`] or a [`SystemTx`], never a connection. The database binds a
//! [`TenantTx`] to one tenant; a [`SystemTx`] works across tenants, explicitly. The queries of each table are
//! in one file. Queries of one or two tables use diesel's query builder over `schema.rs`; the others are SQL
//! text, each with a comment why (see `sql/mod.rs`).
//!
//! There is no trait for the database: row-level security is part of the product, and the tests use a real
//! server.

pub mod access_log;
pub mod admission_data;
pub mod attachments;
pub mod audit_entries;
pub mod blob_checksums;
pub mod blob_claims;
pub mod blob_replicas;
pub mod blob_turns;
pub mod blobs;
mod charged;
pub mod commit;
mod commit_rows;
pub mod committed_file;
mod connect;
pub mod content_states;
pub mod credits;
pub mod damaged_blobs;
pub mod download_counts;
mod durability;
pub mod erasures;
mod error;
mod event_hints;
pub mod event_stream;
pub mod events;
mod evidence;
pub mod expiring_files;
mod failover;
pub mod file_copies;
pub mod file_grants;
pub mod file_locks;
pub mod file_owners;
pub mod file_readers;
mod file_rows;
pub mod file_tags;
pub mod files;
pub mod finished_upload;
pub mod fsck;
pub mod idempotency_keys;
pub mod imports;
pub mod jobs;
pub mod lists;
mod lost_commit;
pub mod lost_hours;
pub mod migrate;
mod object_sizes;
pub mod paid_downloads;
pub mod partitions;
mod pool;
mod pooler;
pub mod provisional_tenants;
pub mod quarantined_objects;
pub mod quota_alerts;
mod quota_delta;
pub mod quotas;
pub mod replications;
pub mod resumable_uploads;
mod roles;
pub mod schedules;
mod schema;
pub mod scrub_counts;
pub mod scrubs;
pub mod share_grants;
pub mod share_visits;
pub mod shares;
mod sql;
pub mod storage_breakers;
pub mod storage_charges;
pub mod storage_classes;
pub mod store_beats;
pub mod stray_objects;
pub mod sweep_candidates;
pub mod sweeps;
mod system_tx;
pub mod tenant_records;
mod tenant_tx;
pub mod tenants;
pub mod tombstones;
pub mod unknown_objects;
pub mod upload_completions;
pub mod upload_parts;
pub mod uploads;
pub mod usage_counters;
pub mod usage_measurements;
pub mod usage_recalculations;
pub mod usage_samples;
pub mod user_quotas;
pub mod verifications;
pub mod versions;
pub mod visitor_attempts;
pub mod webhook_deliveries;
pub mod webhooks;

use std::{sync::Arc, time::Duration};

pub use durability::DurabilityError;
pub use error::{Constraint, DbError, DbErrorKind};
pub use event_hints::EventHints;
pub use evidence::{TransactionId, WrittenRow};
pub use migrate::SchemaError;
pub use pool::PoolStatus;
pub use pooler::PoolerError;
pub use roles::RoleError;
pub use system_tx::{SystemTx, TransactionOutcome};
pub use tenant_tx::{TenantTx, Viewer};

use crate::{
    admission::{Holder, ShareLimits},
    domain::{
        clock::{Clock, ClockOffset, Timestamp},
        ids::TenantId,
    },
};

/// The part of the connections for requests that tenants leave to operators and to the checks of running streams.
const RESERVED_DIVISOR: usize = 8;

/// The connections across tenants that work on behalf of a tenant leaves to operators, health checks and
/// background work.
const SYSTEM_CONNECTIONS_RESERVED: usize = 1;

/// Connection settings and timeouts of the database.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// The connection URL of the role that serves requests.
    pub url: secrecy::SecretString,
    /// The connection URL of the role that works across tenants.
    pub system_url: secrecy::SecretString,
    /// The maximum number of connections for requests.
    pub pool_size_max: usize,
    /// The maximum number of connections for work across tenants.
    pub system_pool_size_max: usize,
    /// The time limit of a statement.
    pub statement_timeout: Duration,
    /// The time limit for acquiring a connection from the pool.
    pub acquire_timeout: Duration,
    /// Whether prepared statements are kept for the next transactions of a connection. Must be `false` behind a
    /// pooler in transaction mode that does not carry them over.
    pub prepared_statements: bool,
    /// The CA that signed the server's certificate. Without it, connections are not encrypted.
    pub tls_ca_file: Option<std::path::PathBuf>,
    /// Whether connections without TLS may leave this machine.
    pub allow_plaintext: bool,
}

/// The connection pools of the two database roles. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    tenant_pool: pool::Pool,
    system_pool: pool::Pool,
    statement_timeout: Duration,
    event_hints: EventHints,
    test_clock: Option<Arc<dyn Clock>>,
}

impl Database {
    /// Creates the pools. Opens no connection.
    ///
    /// # Errors
    /// Fails if connections would leave this machine without TLS and `allow_plaintext` is false.
    pub fn open(options: &DatabaseOptions) -> Result<Self, DbError> {
        for (url_key, url) in [("database.url", &options.url), ("database.system_url", &options.system_url)] {
            connect::check_plaintext(url_key, url, options.tls_ca_file.as_deref(), options.allow_plaintext)?;
        }
        // The checks of streams are always running, and must not take the last connection from a colleague.
        let for_requests = ShareLimits::slots(options.pool_size_max)
            .with_reserve(options.pool_size_max.div_ceil(RESERVED_DIVISOR))
            .with_reserve_used_first();
        let across_tenants =
            ShareLimits::slots(options.system_pool_size_max).with_reserve(SYSTEM_CONNECTIONS_RESERVED);
        Ok(Self {
            tenant_pool: pool::Pool::open(&options.url, for_requests, options)?,
            system_pool: pool::Pool::open(&options.system_url, across_tenants, options)?,
            statement_timeout: options.statement_timeout,
            event_hints: EventHints::default(),
            test_clock: None,
        })
    }

    /// Makes `app.now()` return the time of this clock instead of the database's. For tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.test_clock = Some(clock);
        self
    }

    /// Begins a transaction in which `viewer` sees the rows of one tenant.
    pub async fn tenant_tx(&self, tenant: TenantId, viewer: &Viewer) -> Result<TenantTx, DbError> {
        self.tenant_tx_for(viewer.holder(tenant), tenant, viewer).await
    }

    /// Begins a transaction of one tenant for an operator. It takes no connection of the tenant's share.
    pub async fn platform_tx(&self, tenant: TenantId, viewer: &Viewer) -> Result<TenantTx, DbError> {
        self.tenant_tx_for(Holder::PLATFORM, tenant, viewer).await
    }

    /// Begins a transaction of one tenant for a check that the tenant must not delay: whether its streams may
    /// continue. It takes no connection of the tenant's share. Operators are served first, because a tenant can have
    /// many streams.
    pub async fn check_tx(&self, tenant: TenantId, viewer: &Viewer) -> Result<TenantTx, DbError> {
        self.tenant_tx_for(Holder::SERVICE, tenant, viewer).await
    }

    /// Begins a transaction of one tenant for a visitor of a share, who sees no files of its own: the use case checks
    /// the share. It takes a connection of the holder's share: an address, until the share is verified.
    pub async fn visitor_tx(&self, tenant: TenantId, holder: Holder) -> Result<TenantTx, DbError> {
        self.tenant_tx_for(holder, tenant, &Viewer::system()).await
    }

    async fn tenant_tx_for(
        &self,
        holder: Holder,
        tenant: TenantId,
        viewer: &Viewer,
    ) -> Result<TenantTx, DbError> {
        let connection = self.tenant_pool.acquire(holder).await?;
        TenantTx::begin(self.clone(), connection, tenant, viewer).await
    }

    /// Begins a transaction across tenants for background work.
    pub async fn system_tx(&self) -> Result<SystemTx, DbError> {
        self.system_tx_for(Holder::SERVICE).await
    }

    /// Begins a transaction across tenants for an operator or a health check. It is served before background work.
    pub async fn operator_tx(&self) -> Result<SystemTx, DbError> {
        self.system_tx_for(Holder::PLATFORM).await
    }

    /// Begins a transaction across tenants on behalf of one of them, for which it takes a connection of the
    /// tenant's share.
    pub async fn system_tx_for(&self, holder: Holder) -> Result<SystemTx, DbError> {
        let connection = self.system_pool.acquire(holder).await?;
        SystemTx::begin(self.clone(), connection).await
    }

    /// Checks that neither role can bypass row-level security and that each has the permissions it needs.
    pub async fn check_roles(&self) -> Result<(), RoleError> {
        roles::check(&self.tenant_pool, &self.system_pool).await
    }

    /// Checks that committed transactions survive a crash of the database. If `allow_unsafe`, unsafe settings are only
    /// logged.
    pub async fn check_durability(&self, allow_unsafe: bool) -> Result<(), DurabilityError> {
        let pools = [("database.url", &self.tenant_pool), ("database.system_url", &self.system_pool)];
        durability::check(pools, allow_unsafe).await
    }

    /// Checks that the database has the migrations and functions that this version needs.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        migrate::check_schema(&self.tenant_pool).await
    }

    /// Checks that there is no pooler in front of the database that would lose prepared statements.
    pub async fn check_pooler(&self) -> Result<(), PoolerError> {
        pooler::check(&self.tenant_pool, "database.url").await?;
        pooler::check(&self.system_pool, "database.system_url").await
    }

    /// Checks that the database is reachable and accepts writes.
    ///
    /// # Errors
    /// Returns `ReadOnly` if it accepts none; the connections to it are then discarded, because after a failover
    /// new ones lead to another server.
    pub async fn ping(&self) -> Result<(), DbError> {
        let mut tx = self.operator_tx().await?;
        let is_read_only = tx.is_read_only().await?;
        tx.commit().await?;
        if is_read_only {
            self.tenant_pool.discard_connections();
            self.system_pool.discard_connections();
            return Err(DbError::new(
                DbErrorKind::ReadOnly,
                "check that the database accepts writes",
                "transactions are read-only",
            ));
        }
        Ok(())
    }

    /// Begins a new epoch of positions if the database has another incarnation than that of the newest epoch: it was
    /// restored, upgraded or failed over. Returns the current epoch.
    ///
    /// Every transaction that writes a position does the same. This is for databases that nothing is written to.
    pub async fn begin_position_epoch(&self) -> Result<i32, DbError> {
        let mut tx = self.operator_tx().await?;
        let epoch = diesel::select(sql::position_epoch());
        let epoch = sql::query("begin position epoch", epoch).one(tx.connection()?).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// Measures the database's clock against a clock of this process.
    pub async fn measure_clock(&self, local: &dyn Clock) -> Result<ClockOffset, DbError> {
        let mut tx = self.operator_tx().await?;
        let start = local.now();
        let time = tx.wall_clock_time().await?;
        let error_max = (local.now() - start) / 2;
        tx.commit().await?;
        Ok(ClockOffset { offset: time - start - error_max, error_max })
    }

    /// Returns the notifier for events that this process commits.
    pub fn event_hints(&self) -> &EventHints {
        &self.event_hints
    }

    /// Returns the utilization of the pool for requests.
    pub fn pool_status(&self) -> PoolStatus {
        self.tenant_pool.status()
    }

    /// Returns the utilization of the pool for work across tenants.
    pub fn system_pool_status(&self) -> PoolStatus {
        self.system_pool.status()
    }

    fn now_override(&self) -> Option<Timestamp> {
        self.test_clock.as_ref().map(|clock| clock.now())
    }
}
