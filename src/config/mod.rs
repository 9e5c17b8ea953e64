//! What an operator can set: one struct a section, one file each, and one annotated `default.toml` that is
//! the defaults and the reference at once.
//!
//! Three layers, the later one wins: `default.toml` (compiled in), a file, the environment
//! (`STRONGROOM_SECTION__KEY`). A key that `default.toml` does not have is refused wherever it comes from,
//! because a limit that was mistyped is a limit that is not there. All problems come in one error, each with
//! its key and the file or variable it came from. Values of secrets are in no error and in no `Debug` output.

pub mod auth;
pub mod database;
pub mod deadlines;
pub mod downloads;
pub mod edge;
mod error;
pub mod import_source;
pub mod imports;
pub mod lists;
pub mod memory;
pub mod provider;
pub mod retention;
pub mod scanning;
mod schema;
pub mod secrets;
pub mod server;
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
    import_source::SourceConfig,
    imports::ImportsConfig,
    lists::ListsConfig,
    memory::MemoryBound,
    provider::ProviderConfig,
    retention::RetentionConfig,
    scanning::ScanningConfig,
    secrets::SecretsConfig,
    server::ServerConfig,
    sources::Sources,
    storage::StorageConfig,
    sweeping::SweepingConfig,
    telemetry::TelemetryConfig,
    tenants::TenantsConfig,
    uploads::UploadsConfig,
    watches::WatchesConfig,
    webhooks::WebhooksConfig,
    worker::WorkerConfig,
};
use self::{schema::Named, sources::Merged, validation::Violations};

/// The annotated defaults, which are also the reference of every key.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Everything that can be set. The fields are the sections of `default.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The gRPC door.
    pub server: ServerConfig,
    /// How long a request may take.
    pub deadlines: DeadlinesConfig,
    /// How bytes come in.
    pub uploads: UploadsConfig,
    /// How bytes go out.
    pub downloads: DownloadsConfig,
    /// Streams of changes.
    pub watches: WatchesConfig,
    /// Events sent to endpoints of tenants.
    pub webhooks: WebhooksConfig,
    /// Where files may be imported from.
    pub imports: ImportsConfig,
    /// The small HTTP port.
    pub edge: EdgeConfig,
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// Where the bytes are kept.
    pub storage: StorageConfig,
    /// Who is calling.
    pub auth: AuthConfig,
    /// How tenants are born.
    pub tenants: TenantsConfig,
    /// Malware scanning.
    pub scanning: ScanningConfig,
    /// Lists of files.
    pub lists: ListsConfig,
    /// Keys of this service.
    pub secrets: SecretsConfig,
    /// How long things are kept.
    pub retention: RetentionConfig,
    /// What removes what crashes left in the stores.
    pub sweeping: SweepingConfig,
    /// Background work.
    pub worker: WorkerConfig,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
}

impl Config {
    /// Reads all layers and validates the result.
    ///
    /// # Errors
    /// When a source cannot be read, or with every problem that was found: unknown keys and wrong types of
    /// all sources first, then values that no section accepts, then values outside their limits.
    pub fn load<E>(sources: Sources<E>) -> Result<Self, ConfigError>
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

    /// The defaults alone: what a test or `dev` starts from before it sets fields of its own.
    ///
    /// # Errors
    /// Only if the compiled-in `default.toml` were wrong, which a test excludes.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::load(Sources { file: None, env: std::iter::empty() })
    }

    /// Checks all limits again: for whoever has set fields by hand.
    ///
    /// # Errors
    /// With every violation.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.check(&mut violations);
        violations.into_result(|_| None)
    }

    /// Checks what only a server needs: the database, the store, an issuer and the key of page tokens.
    ///
    /// # Errors
    /// With every violation.
    pub fn validate_for_serve(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.check(&mut violations);
        self.database.check_for_serve(&mut violations);
        self.storage.check_for_serve(&mut violations);
        self.auth.check_for_serve(&mut violations);
        self.secrets.check_for_serve(&mut violations);
        violations.into_result(|_| None)
    }

    /// Checks what a command needs that looks at the store and its books without serving: the database and the store.
    ///
    /// # Errors
    /// With every violation.
    pub fn validate_for_upkeep(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.check(&mut violations);
        self.database.check_for_serve(&mut violations);
        self.storage.check_for_serve(&mut violations);
        violations.into_result(|_| None)
    }

    /// Checks what a process needs that only works: what upkeep needs, and the key that the secrets of webhooks are sealed with.
    ///
    /// # Errors
    /// With every violation.
    pub fn validate_for_worker(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.check(&mut violations);
        self.database.check_for_serve(&mut violations);
        self.storage.check_for_serve(&mut violations);
        self.secrets.check_for_serve(&mut violations);
        violations.into_result(|_| None)
    }

    /// Checks what only a migration needs: the URL of the role that owns the schema.
    ///
    /// # Errors
    /// With every violation.
    pub fn validate_for_migrate(&self) -> Result<(), ConfigError> {
        let mut violations = Violations::default();
        self.database.check_for_migrate(&mut violations);
        violations.into_result(|_| None)
    }

    /// The most memory that this configuration allows the process, with its parts; printed at start.
    pub fn memory_bound(&self) -> MemoryBound {
        MemoryBound::of(self)
    }

    /// The sum of [`Self::memory_bound`], in bytes.
    pub fn memory_bound_bytes(&self) -> u64 {
        self.memory_bound().total_bytes()
    }

    fn check(&self, violations: &mut Violations) {
        self.server.check(violations);
        self.deadlines.check(violations);
        self.uploads.check(violations, &self.server);
        self.downloads.check(violations);
        self.watches.check(violations);
        self.webhooks.check(violations);
        self.imports.check(violations, &self.storage);
        self.edge.check(violations);
        self.database.check(violations);
        self.storage.check(violations);
        self.auth.check(violations);
        self.tenants.check(violations);
        self.lists.check(violations);
        self.secrets.check(violations);
        self.retention.check(violations);
        self.sweeping.check(violations);
        self.worker.check(violations);
        self.telemetry.check(violations);
    }

    /// Each section is read for itself, so that a bad value in one does not hide that of another.
    fn from_merged(merged: &mut Merged) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let server = section(merged, "server", &mut problems);
        let deadlines = section(merged, "deadlines", &mut problems);
        let uploads = section(merged, "uploads", &mut problems);
        let downloads = section(merged, "downloads", &mut problems);
        let watches = section(merged, "watches", &mut problems);
        let webhooks = section(merged, "webhooks", &mut problems);
        let sources = named(merged, Named::Sources, SourceConfig::read, &mut problems);
        let imports = section(merged, "imports", &mut problems).map(|mut imports: ImportsConfig| {
            imports.sources = sources;
            imports
        });
        let edge = section(merged, "edge", &mut problems);
        let database = section(merged, "database", &mut problems);
        let providers = named(merged, Named::Providers, ProviderConfig::read, &mut problems);
        let storage = section(merged, "storage", &mut problems);
        let auth = section(merged, "auth", &mut problems);
        let tenants = section(merged, "tenants", &mut problems);
        let scanning = section(merged, "scanning", &mut problems);
        let lists = section(merged, "lists", &mut problems);
        let secrets = section(merged, "secrets", &mut problems);
        let retention = section(merged, "retention", &mut problems);
        let sweeping = section(merged, "sweeping", &mut problems);
        let worker = section(merged, "worker", &mut problems);
        let telemetry = section(merged, "telemetry", &mut problems);
        let read = || {
            Some(Self {
                server: server?,
                deadlines: deadlines?,
                uploads: uploads?,
                downloads: downloads?,
                watches: watches?,
                webhooks: webhooks?,
                imports: imports?,
                edge: edge?,
                database: database?,
                storage: StorageConfig { providers, ..storage? },
                auth: auth?,
                tenants: tenants?,
                scanning: scanning?,
                lists: lists?,
                secrets: secrets?,
                retention: retention?,
                sweeping: sweeping?,
                worker: worker?,
                telemetry: telemetry?,
            })
        };
        let config = read().filter(|_| problems.is_empty());
        config.ok_or(ConfigError::Refused(problems))
    }
}

/// Every provider and every source of imports is read for itself too.
fn named<T>(
    merged: &mut Merged,
    kind: Named,
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

fn section<T: DeserializeOwned>(merged: &mut Merged, name: &str, problems: &mut Vec<Problem>) -> Option<T> {
    let table = merged.take_section(name);
    match table.try_into() {
        Ok(section) => Some(section),
        Err(error) => {
            problems.push(merged.problem(name, &error));
            None
        }
    }
}
