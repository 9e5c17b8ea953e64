//! `[tenants]`: creation of tenants.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::validation::Violations;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantsConfig {
    /// The name of the policy for new tenants.
    pub preset: String,
    /// Names of other policies for some organizations, by the id of the organization at the identity
    /// provider.
    pub presets: BTreeMap<String, String>,
    /// Whether a tenant is created when a verified token first names it.
    pub create_on_first_use: bool,
    /// The maximum number of tenants that the tokens of one issuer create in a minute, per process.
    pub creations_per_minute_max: u32,
    /// Interval, in milliseconds, at which running streams check again that their tenant is active and, for
    /// downloads, that the caller may still read the file.
    pub stream_recheck_milliseconds: u64,
}

impl TenantsConfig {
    /// Returns the name of the policy for a new tenant with this external id.
    pub fn preset_for(&self, external_id: &str) -> &str {
        self.presets.get(external_id).unwrap_or(&self.preset)
    }

    /// Returns the interval at which running streams are checked again.
    pub fn stream_recheck_interval(&self) -> Duration {
        Duration::from_millis(self.stream_recheck_milliseconds)
    }

    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_not_empty("tenants.preset", &self.preset);
        violations.check_range("tenants.creations_per_minute_max", self.creations_per_minute_max, 1..=10_000);
        let recheck = self.stream_recheck_milliseconds;
        violations.check_range("tenants.stream_recheck_milliseconds", recheck, 1..=4_500);
        if self.presets.iter().any(|(organization, preset)| organization.is_empty() || preset.is_empty()) {
            violations.add("tenants.presets", "must map organization ids to policy names; none may be empty");
        }
    }
}
