//! `[database]`: the connections to PostgreSQL, one URL for each of three roles.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::{
    validation::Violations,
    values::{empty_as_none, empty_secret_as_none},
};

/// PostgreSQL. The URLs are secrets, because they contain passwords.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// The connection URL of the service role.
    #[serde(deserialize_with = "empty_secret_as_none")]
    pub url: Option<SecretString>,
    /// The connection URL of the role for work across tenants.
    #[serde(deserialize_with = "empty_secret_as_none")]
    pub system_url: Option<SecretString>,
    /// The connection URL of the role that owns the schema.
    #[serde(deserialize_with = "empty_secret_as_none")]
    pub migrate_url: Option<SecretString>,
    /// Maximum number of connections of the service role.
    pub pool_size_max: usize,
    /// Maximum number of connections of the system role.
    pub system_pool_size_max: usize,
    /// Maximum duration of one statement, in seconds.
    pub statement_timeout_seconds: u64,
    /// Maximum time to wait for a connection, in seconds.
    pub acquire_timeout_seconds: u64,
    /// Whether prepared statements are kept for the next transactions of a connection.
    pub prepared_statements: bool,
    /// PEM file with the certificate authorities of the server; `None` disables TLS.
    #[serde(deserialize_with = "empty_as_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Whether connections without TLS may leave this machine.
    pub allow_plaintext: bool,
    /// Whether a database may be used that could lose committed transactions in a crash.
    pub allow_unsafe: bool,
}

impl DatabaseConfig {
    /// Returns the maximum duration of one statement.
    pub fn statement_timeout(&self) -> Duration {
        Duration::from_secs(self.statement_timeout_seconds)
    }

    /// Returns the maximum time to wait for a connection.
    pub fn acquire_timeout(&self) -> Duration {
        Duration::from_secs(self.acquire_timeout_seconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("database.pool_size_max", self.pool_size_max, 1..=1_024);
        violations.check_range("database.system_pool_size_max", self.system_pool_size_max, 2..=256);
        violations.check_range(
            "database.statement_timeout_seconds",
            self.statement_timeout_seconds,
            1..=3_600,
        );
        violations.check_range("database.acquire_timeout_seconds", self.acquire_timeout_seconds, 1..=300);
    }

    pub(super) fn check_for_serve(&self, violations: &mut Violations) {
        if self.url.is_none() {
            violations.add("database.url", "is required: set the connection URL of the service role");
        }
        if self.system_url.is_none() {
            violations.add("database.system_url", "is required: set the connection URL of the system role");
        }
    }

    pub(super) fn check_for_migrate(&self, violations: &mut Violations) {
        if self.migrate_url.is_none() {
            violations.add(
                "database.migrate_url",
                "is required: set the connection URL of the role that owns the schema",
            );
        }
    }
}
