//! `[database]`: PostgreSQL, by three roles.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::{
    validation::Violations,
    values::{no_secret_if_empty, none_if_empty},
};

/// PostgreSQL. URLs hold passwords, so they are secrets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// The service's own role.
    #[serde(deserialize_with = "no_secret_if_empty")]
    pub url: Option<SecretString>,
    /// The role for work across tenants.
    #[serde(deserialize_with = "no_secret_if_empty")]
    pub system_url: Option<SecretString>,
    /// The role that owns the schema.
    #[serde(deserialize_with = "no_secret_if_empty")]
    pub migrate_url: Option<SecretString>,
    /// Connections of the service's role.
    pub pool_size_max: usize,
    /// Connections of the system role.
    pub system_pool_size_max: usize,
    /// Time that one statement may run, in seconds.
    pub statement_timeout_seconds: u64,
    /// Wait for a connection, in seconds.
    pub acquire_timeout_seconds: u64,
    /// PEM file with the authorities that sign the database's certificate; without it nothing is encrypted.
    #[serde(deserialize_with = "none_if_empty")]
    pub tls_ca_file: Option<PathBuf>,
}

impl DatabaseConfig {
    /// Time that one statement may run.
    pub fn statement_timeout(&self) -> Duration {
        Duration::from_secs(self.statement_timeout_seconds)
    }

    /// Wait for a connection.
    pub fn acquire_timeout(&self) -> Duration {
        Duration::from_secs(self.acquire_timeout_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("database.pool_size_max", self.pool_size_max, 1..=1_024);
        violations.range("database.system_pool_size_max", self.system_pool_size_max, 2..=256);
        violations.range("database.statement_timeout_seconds", self.statement_timeout_seconds, 1..=3_600);
        violations.range("database.acquire_timeout_seconds", self.acquire_timeout_seconds, 1..=300);
    }

    pub(super) fn check_for_serve(&self, violations: &mut Violations) {
        if self.url.is_none() {
            violations.refuse("database.url", "is required: the URL of the service's own role");
        }
        if self.system_url.is_none() {
            violations
                .refuse("database.system_url", "is required: the URL of the role that works across tenants");
        }
    }

    pub(super) fn check_for_migrate(&self, violations: &mut Violations) {
        if self.migrate_url.is_none() {
            violations
                .refuse("database.migrate_url", "is required: the URL of the role that owns the schema");
        }
    }
}
