//! `[imports]`: the sources that files can be imported from.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    import_source::ImportSourceConfig, storage::StorageConfig, storage::is_valid_name, validation::Violations,
};
use crate::domain::{caller::TenantKind, ids::TenantId};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportsConfig {
    /// The sources by name. Each is deserialized separately.
    #[serde(skip)]
    pub sources: BTreeMap<String, ImportSourceConfig>,
}

impl ImportsConfig {
    /// Returns the source with this name if the admins of this tenant may import from it.
    pub fn source_for(&self, name: &str, tenant: TenantId, kind: TenantKind) -> Option<&ImportSourceConfig> {
        self.sources.get(name).filter(|source| source.is_open_to(tenant, kind))
    }

    pub(super) fn check(&self, violations: &mut Violations, storage: &StorageConfig) {
        for (name, source) in &self.sources {
            let key = format!("imports.sources.{name}");
            if !is_valid_name(name) {
                let message = "must have a name of up to 40 lower-case letters, digits, \"_\" and \"-\" that \
                               starts with a letter and does not contain \"__\"";
                violations.add(key.clone(), message);
            }
            source.check(&key, storage, violations);
        }
    }
}
