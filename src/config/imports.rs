//! `[imports]`: where files may be imported from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{provider::ProviderConfig, storage::StorageConfig, validation::Violations};
use crate::domain::ids::TenantId;

/// Imports.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportsConfig {
    /// Directories, by name.
    pub directories: BTreeMap<String, PathBuf>,
    /// For each of them, whose admins may import from it: ids separated by commas, or `*`.
    pub tenants: BTreeMap<String, String>,
}

impl ImportsConfig {
    /// The directory of this name, if this tenant's admins may import from it.
    pub fn directory_for(&self, name: &str, tenant: TenantId) -> Option<&Path> {
        let allowed = self.tenants.get(name)?;
        let is_allowed = allowed == "*" || ids(allowed).any(|id| id.parse() == Ok(tenant));
        self.directories.get(name).filter(|_| is_allowed).map(PathBuf::as_path)
    }

    pub(super) fn check(&self, violations: &mut Violations, storage: &StorageConfig) {
        for (name, path) in &self.directories {
            let key = format!("imports.directories.{name}");
            if name.is_empty() || name.contains(':') {
                violations.refuse(key.clone(), "must have a name without \":\"");
            }
            if !path.is_absolute() {
                violations.refuse(key.clone(), "must be an absolute path");
            }
            if storage.providers.values().any(|provider| overlaps(provider, path)) {
                let message = "must not lie inside the root of a local provider, or around one";
                violations.refuse(key, message);
            }
            if !self.tenants.contains_key(name) {
                let message = "is missing: say which tenants may import from this directory, or \"*\"";
                violations.refuse(format!("imports.tenants.{name}"), message);
            }
        }
        for (name, allowed) in &self.tenants {
            let key = format!("imports.tenants.{name}");
            if !self.directories.contains_key(name) {
                violations.refuse(key.clone(), "names no directory of `imports.directories`");
            }
            if allowed != "*" && ids(allowed).any(|id| id.parse::<TenantId>().is_err()) {
                violations.refuse(key, "must be \"*\", or ids of tenants separated by commas");
            }
        }
    }
}

fn ids(allowed: &str) -> impl Iterator<Item = &str> {
    allowed.split(',').map(str::trim)
}

fn overlaps(provider: &ProviderConfig, path: &Path) -> bool {
    match provider {
        ProviderConfig::Local(local) => {
            local.root.as_ref().is_some_and(|root| path.starts_with(root) || root.starts_with(path))
        }
        ProviderConfig::Memory | ProviderConfig::Discard | ProviderConfig::S3(_) => false,
    }
}
