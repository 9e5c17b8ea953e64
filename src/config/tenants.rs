//! `[tenants]`: how tenants are born.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::validation::Violations;

/// Birth of tenants.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantsConfig {
    /// The name of the policy that a new tenant is born with.
    pub preset: String,
    /// Other policies for some organisations, by their id at the identity provider.
    pub presets: BTreeMap<String, String>,
    /// Whether the first verified token that names a tenant creates it.
    pub create_at_first_sight: bool,
}

impl TenantsConfig {
    /// The name of the policy for a new tenant with this external id.
    pub fn preset_of(&self, external_id: &str) -> &str {
        self.presets.get(external_id).unwrap_or(&self.preset)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.not_empty("tenants.preset", &self.preset);
        if self.presets.iter().any(|(organization, preset)| organization.is_empty() || preset.is_empty()) {
            violations
                .refuse("tenants.presets", "must map organisation ids to names of policies, none empty");
        }
    }
}
