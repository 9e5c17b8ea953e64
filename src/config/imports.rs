//! `[imports]`: where files may be imported from.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{import_source::SourceConfig, storage::StorageConfig, storage::is_name, validation::Violations};
use crate::domain::{caller::TenantKind, ids::TenantId};

/// Imports.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportsConfig {
    /// The sources, by name. Each is read for itself.
    #[serde(skip)]
    pub sources: BTreeMap<String, SourceConfig>,
}

impl ImportsConfig {
    /// The source of this name, if this tenant's admins may import from it.
    pub fn source_for(&self, name: &str, tenant: TenantId, kind: TenantKind) -> Option<&SourceConfig> {
        self.sources.get(name).filter(|source| source.is_open_to(tenant, kind))
    }

    pub(super) fn check(&self, violations: &mut Violations, storage: &StorageConfig) {
        for (name, source) in &self.sources {
            let key = format!("imports.sources.{name}");
            if !is_name(name) {
                let message = "must be named with up to 40 lower-case letters, digits, \"_\" and \"-\", a letter first, \
                               without \"__\"";
                violations.refuse(key.clone(), message);
            }
            source.check(&key, storage, violations);
        }
    }
}
