//! The configuration: one struct and one file per section, and an annotated `default.toml` that contains the
//! defaults and documents every key.
//!
//! There are three layers, and later ones override earlier ones: `default.toml` (compiled in), a file, and
//! environment variables (`STRONGROOM_SECTION__KEY`). A key that is not in `default.toml` is rejected,
//! because a misspelt limit would otherwise have no effect. All problems are reported in one error, each with
//! its key and the file or variable that set it. Secrets never appear in errors or in `Debug` output.

pub mod auth;
pub mod database;
pub mod deadlines;
pub mod downloads;
pub mod edge;
mod error;
pub mod import_source;
pub mod imports;
pub mod limits;
pub mod lists;
pub mod memory;
pub mod provider;
pub mod rate_limits;
pub mod retention;
pub mod scanning;
mod schema;
pub mod scrub;
pub mod secrets;
pub mod server;
pub mod smtp;
mod sources;
pub mod storage;
pub mod sweeping;
pub mod telemetry;
pub mod tenants;
pub mod uploads;
mod validation;
mod values;
pub mod watches;
pub mod webhooks;
pub mod worker;

#[cfg(test)]
mod plaintext_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use toml::Table;

pub use self::{
    auth::AuthConfig,
    database::DatabaseConfig,
    deadlines::DeadlinesConfig,
    downloads::DownloadsConfig,
    edge::EdgeConfig,
    error::{ConfigError, Origin, Problem},
    import_source::ImportSourceConfig,
    imports::ImportsConfig,
    limits::SharedLimitsConfig,
    lists::ListsConfig,
    memory::MemoryBound,
    provider::ProviderConfig,
    rate_limits::RateLimitsConfig,
    retention::RetentionConfig,
    scanning::ScanningConfig,
    scrub::ScrubConfig,
    secrets::SecretsConfig,
    server::{ClientAddressHeader, ServerConfig},
    smtp::{SmtpConfig, StartTls},
    sources::ConfigSources,
    storage::{OwnerLimits, StorageConfig},
    sweeping::SweepingConfig,
    telemetry::TelemetryConfig,
    tenants::{TenantPresets, TenantsConfig},
    uploads::UploadsConfig,
    watches::WatchesConfig,
    webhooks::WebhooksConfig,
    worker::WorkerConfig,
};
use self::{schema::NamedTables, sources::Merged, validation::Violations};

/// The annotated defaults, which document every key.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The whole configuration. The fields are the sections of `default.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The gRPC server.
    pub server: ServerConfig,
    pub rate_limits: RateLimitsConfig,
    /// Where rate limits are shared.
    pub limits: SharedLimitsConfig,
    pub deadlines: DeadlinesConfig,
    pub uploads: UploadsConfig,
    pub downloads: DownloadsConfig,
    pub watches: WatchesConfig,
    pub webhooks: WebhooksConfig,
    /// The mail server for alerts.
    pub smtp: SmtpConfig,
    pub imports: ImportsConfig,
    /// The HTTP server for probes and metrics.
    pub edge: EdgeConfig,
    pub database: DatabaseConfig,
    pub storage: StorageConfig,
    pub auth: AuthConfig,
    /// Creation of tenants.
    pub tenants: TenantsConfig,
    pub scanning: ScanningConfig,
    /// Lists of files.
    pub lists: ListsConfig,
    /// Keys of this service.
    pub secrets: SecretsConfig,
    pub retention: RetentionConfig,
    /// Sweeping of objects without a row.
    pub sweeping: SweepingConfig,
    /// Verification of stored blobs in the background.
    pub scrub: ScrubConfig,
    pub worker: WorkerConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
}

impl Config {
    /// Reads all layers and validates the result.
    ///
    /// # Errors
    /// Returns an error if a source cannot be read. Otherwise returns all problems of the first stage that
    /// has any: unknown keys and wrong types in all sources, then values that a section cannot be
    /// deserialized from, then values outside their limits.
    pub fn load<E>(sources: ConfigSources<E>) -> Result<Self, ConfigError>
    where
        E: Iterator<Item = (String, String)>,
    {
        let mut merged = sources.merge()?;
        let config = Self::from_merged(&mut merged)?;
        let mut violations = Violations::default();
        config.check(&mut violations);
        violations.into_result(|key| merged.origin(key))?;
        Ok(config)
    }

    /// Returns the defaults. Tests and `dev` start from them and then set fields.
    ///
    /// # Errors
    /// Fails only if the compiled-in `default.toml` is invalid, which a test rules out.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::load(ConfigSources { file: None, env: std::iter::empty() })
    }

    /// Checks all limits again, after fields were set in code.
    ///
    /// # Errors
    /// Returns all violations.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.check(&mut violations);
        violations.into_result(|_| None)
    }

    /// Checks all limits and the settings that `serve` requires: the database, the store, an issuer and the
    /// page token key.
    ///
    /// # Errors
    /// Returns all violations.
    pub fn validate_for_serve(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.check(&mut violations);
        self.server.check_for_serve(&mut violations);
        self.edge.check_for_serve(&mut violations);
        self.database.check_for_serve(&mut violations);
        self.storage.check_for_serve(&mut violations);
        self.auth.check_for_serve(&mut violations);
        self.secrets.check_for_serve(&mut violations);
        violations.into_result(|_| None)
    }

    /// Checks all limits and the settings that maintenance commands require: the database and the store.
    ///
    /// # Errors
    /// Returns all violations.
    pub fn validate_for_maintenance(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.check(&mut violations);
        self.database.check_for_serve(&mut violations);
        self.storage.check_for_serve(&mut violations);
        violations.into_result(|_| None)
    }

    /// Checks all limits and the settings that a worker requires: the database, the store, and the key that
    /// encrypts the secrets of webhooks.
    ///
    /// # Errors
    /// Returns all violations.
    pub fn validate_for_worker(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.check(&mut violations);
        self.edge.check_for_serve(&mut violations);
        self.database.check_for_serve(&mut violations);
        self.storage.check_for_serve(&mut violations);
        self.secrets.check_for_serve(&mut violations);
        violations.into_result(|_| None)
    }

    /// Checks the setting that a migration requires: the connection URL of the schema owner.
    ///
    /// # Errors
    /// Returns all violations.
    pub fn validate_for_migrate(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.database.check_for_migrate(&mut violations);
        violations.into_result(|_| None)
    }

    /// Returns the names of the policies of new tenants.
    pub fn tenant_presets(&self) -> TenantPresets {
        TenantPresets::new(&self.tenants, &self.auth.issuers)
    }

    /// Returns the maximum memory of a process with this configuration, by component. It is logged at
    /// startup.
    pub fn memory_bound(&self) -> MemoryBound {
        MemoryBound::compute(self)
    }

    /// Returns the maximum memory of decoded messages whose requests are not validated yet, in bytes: the
    /// messages that may be received at the same time, and parts that have no buffer of uploads yet.
    pub fn decoded_bytes_max(&self) -> usize {
        let messages = self.uploads.decode_permits.saturating_mul(self.server.message_size_max_bytes);
        messages.saturating_add(self.uploads.waiting_bytes_max()).max(self.uploads.part_message_bytes_max())
    }

    /// Returns the total of [`Self::memory_bound`] in bytes.
    pub fn memory_bound_bytes(&self) -> u64 {
        self.memory_bound().total_bytes()
    }

    fn check(&self, violations: &mut Violations) {
        self.server.check(violations);
        self.deadlines.check(violations);
        self.uploads.check(violations, &self.server);
        self.rate_limits.check(violations);
        self.limits.check(violations);
        self.downloads.check(violations);
        self.watches.check(violations);
        self.webhooks.check(violations);
        self.smtp.check(violations);
        self.imports.check(violations, &self.storage);
        self.edge.check(violations);
        self.database.check(violations);
        self.storage.check(violations);
        if self.storage.downloads_max < self.downloads.streams_max {
            let message = format!(
                "must be at least `downloads.streams_max` ({}), not {}",
                self.downloads.streams_max, self.storage.downloads_max
            );
            violations.add("storage.downloads_max", message);
        }
        self.auth.check(violations);
        self.tenants.check(&self.auth.issuers, violations);
        self.lists.check(violations);
        self.secrets.check(violations);
        self.retention.check(violations);
        self.sweeping.check(violations);
        self.scrub.check(violations);
        self.worker.check(violations);
        self.telemetry.check(violations);
    }

    /// Deserializes each section separately, so that an invalid value in one does not hide that of another.
    fn from_merged(merged: &mut Merged) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let server = read_section(merged, "server", &mut problems);
        let rate_limits = read_section(merged, "rate_limits", &mut problems);
        let limits = read_section(merged, "limits", &mut problems);
        let deadlines = read_section(merged, "deadlines", &mut problems);
        let uploads = read_section(merged, "uploads", &mut problems);
        let downloads = read_section(merged, "downloads", &mut problems);
        let watches = read_section(merged, "watches", &mut problems);
        let webhooks = read_section(merged, "webhooks", &mut problems);
        let smtp = read_section(merged, "smtp", &mut problems);
        let sources =
            read_named_tables(merged, NamedTables::Sources, ImportSourceConfig::read, &mut problems);
        let imports = read_section(merged, "imports", &mut problems).map(|mut imports: ImportsConfig| {
            imports.sources = sources;
            imports
        });
        let edge = read_section(merged, "edge", &mut problems);
        let database = read_section(merged, "database", &mut problems);
        let providers =
            read_named_tables(merged, NamedTables::Providers, ProviderConfig::read, &mut problems);
        let storage = read_section(merged, "storage", &mut problems);
        let auth = read_section(merged, "auth", &mut problems);
        let tenants = read_section(merged, "tenants", &mut problems);
        let scanning = read_section(merged, "scanning", &mut problems);
        let lists = read_section(merged, "lists", &mut problems);
        let secrets = read_section(merged, "secrets", &mut problems);
        let retention = read_section(merged, "retention", &mut problems);
        let sweeping = read_section(merged, "sweeping", &mut problems);
        let scrub = read_section(merged, "scrub", &mut problems);
        let worker = read_section(merged, "worker", &mut problems);
        let telemetry = read_section(merged, "telemetry", &mut problems);
        let read = || {
            let (downloads, storage): (DownloadsConfig, StorageConfig) = (downloads?, storage?);
            let downloads_max = storage.downloads_max_beside(&downloads);
            let uploads = uploads?;
            let mut providers = providers;
            providers.values_mut().for_each(|provider| provider.keep_multiparts_for(&uploads));
            Some(Self {
                server: server?,
                rate_limits: rate_limits?,
                limits: limits?,
                deadlines: deadlines?,
                uploads,
                downloads,
                watches: watches?,
                webhooks: webhooks?,
                smtp: smtp?,
                imports: imports?,
                edge: edge?,
                database: database?,
                storage: StorageConfig { providers, downloads_max, ..storage },
                auth: auth?,
                tenants: tenants?,
                scanning: scanning?,
                lists: lists?,
                secrets: secrets?,
                retention: retention?,
                sweeping: sweeping?,
                scrub: scrub?,
                worker: worker?,
                telemetry: telemetry?,
            })
        };
        let config = read().filter(|_| problems.is_empty());
        config.ok_or(ConfigError::Invalid(problems))
    }
}

/// Deserializes each table of this kind separately.
fn read_named_tables<T>(
    merged: &mut Merged,
    kind: NamedTables,
    read: impl Fn(Table) -> Result<T, toml::de::Error>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, T> {
    let mut found = BTreeMap::new();
    for (name, table) in merged.take_named(kind) {
        match read(table) {
            Ok(one) => drop(found.insert(name, one)),
            Err(error) => problems.push(merged.problem(&kind.key(&name), &error)),
        }
    }
    found
}

fn read_section<T: DeserializeOwned>(
    merged: &mut Merged,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let table = merged.take_section(name);
    match table.try_into() {
        Ok(section) => Some(section),
        Err(error) => {
            problems.push(merged.problem(name, &error));
            None
        }
    }
}
