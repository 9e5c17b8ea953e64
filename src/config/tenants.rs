//! `[tenants]`: creation of tenants.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Deserialize;

use super::{auth::IssuerConfig, validation::Violations};
use crate::domain::caller::TenantKind;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantsConfig {
    /// The name of the policy for new tenants.
    pub preset: String,
    /// Names of other policies for some organizations, by the id of the organization at the identity
    /// provider. Only if there is one; otherwise, each issuer has its own.
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
    /// Returns the interval at which running streams are checked again.
    pub fn stream_recheck_interval(&self) -> Duration {
        Duration::from_millis(self.stream_recheck_milliseconds)
    }

    pub(super) fn check(&self, issuers: &[IssuerConfig], violations: &mut Violations) {
        violations.check_not_empty("tenants.preset", &self.preset);
        violations.check_range("tenants.creations_per_minute_max", self.creations_per_minute_max, 1..=10_000);
        let recheck = self.stream_recheck_milliseconds;
        violations.check_range("tenants.stream_recheck_milliseconds", recheck, 1..=4_500);
        if self.presets.iter().any(|(organization, preset)| organization.is_empty() || preset.is_empty()) {
            violations.add("tenants.presets", "must map organization ids to policy names; none may be empty");
        }
        let names = issuer_names(issuers);
        if names.len() > 1 && !self.presets.is_empty() {
            let message = format!(
                "names organizations without their issuer, but there are {} issuers ({}); write each entry into \
                 `presets` of its [[auth.issuers]] instead, such as `presets = {{ acme = \"crm\" }}`",
                names.len(),
                names.into_iter().collect::<Vec<_>>().join(", ")
            );
            violations.add("tenants.presets", message);
        }
    }
}

/// Returns the names of the issuers. Two audiences of one issuer are one issuer.
fn issuer_names(issuers: &[IssuerConfig]) -> BTreeSet<&str> {
    issuers.iter().map(|issuer| issuer.issuer.as_str()).collect()
}

/// The names of the policies of new tenants.
#[derive(Debug, Clone)]
pub struct TenantPresets {
    /// For all tenants without a policy of their own.
    default: String,
    /// By organization, of any issuer: used only if no issuer is configured.
    of_any: BTreeMap<String, String>,
    /// By issuer and organization.
    by_issuer: BTreeMap<String, BTreeMap<String, String>>,
}

impl TenantPresets {
    pub(super) fn new(tenants: &TenantsConfig, issuers: &[IssuerConfig]) -> Self {
        let mut by_issuer: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for issuer in issuers {
            by_issuer.entry(issuer.issuer.clone()).or_default().extend(issuer.presets.clone());
        }
        let mut of_issuers: Vec<_> = by_issuer.values_mut().collect();
        if let [only] = of_issuers.as_mut_slice() {
            for (organization, preset) in &tenants.presets {
                only.entry(organization.clone()).or_insert_with(|| preset.clone());
            }
        }
        // With several issuers, the validation rejects presets that do not name one.
        let of_any = if by_issuer.is_empty() { tenants.presets.clone() } else { BTreeMap::new() };
        Self { default: tenants.preset.clone(), of_any, by_issuer }
    }

    /// Returns the name of the policy for a new tenant.
    pub fn find(&self, kind: TenantKind, issuer: &str, external_id: &str) -> &str {
        let named = match kind {
            TenantKind::Organization => {
                let own = self.by_issuer.get(issuer).and_then(|presets| presets.get(external_id));
                own.or_else(|| self.of_any.get(external_id))
            }
            TenantKind::Person => None,
        };
        named.unwrap_or(&self.default)
    }

    /// Returns all names of policies.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let named = self.by_issuer.values().flat_map(BTreeMap::values).chain(self.of_any.values());
        std::iter::once(&self.default).chain(named).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError, auth::AuthConfig};

    /// Returns a configuration with a preset for the organization `acme` of any issuer, and with these issuers, each
    /// with its own presets.
    fn with_issuers(issuers: &[(&str, &str)]) -> Config {
        let mut config = Config::defaults().unwrap();
        config.tenants.presets.insert("acme".to_owned(), "crm".to_owned());
        let parse = |(index, (issuer, presets)): (usize, &(&str, &str))| -> IssuerConfig {
            let keys = format!("issuer = '{issuer}'\naudience = 'a{index}'\njwks_file = 'f'");
            toml::from_str(&format!("{keys}\npresets = {{ {presets} }}")).unwrap()
        };
        let issuers = issuers.iter().enumerate().map(parse).collect();
        config.auth = AuthConfig { issuers, ..config.auth };
        config
    }

    fn problems(config: &Config) -> Vec<(String, String)> {
        match config.validate() {
            Ok(()) => Vec::new(),
            Err(ConfigError::Invalid(problems)) => {
                problems.into_iter().map(|problem| (problem.key, problem.message)).collect()
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn acme_of(config: &Config, issuer: &str) -> String {
        config.tenant_presets().find(TenantKind::Organization, issuer, "acme").to_owned()
    }

    #[test]
    fn preset_of_a_single_issuer_needs_no_issuer() {
        let config = with_issuers(&[("https://a", "")]);
        assert_eq!(problems(&config), []);
        assert_eq!(acme_of(&config, "https://a"), "crm");
        assert_eq!(acme_of(&config, "https://b"), "general", "a tenant that an operator creates");
        let presets = config.tenant_presets();
        assert_eq!(presets.find(TenantKind::Person, "https://a", "acme"), "general");
        // Two audiences of one issuer.
        let config = with_issuers(&[("https://a", ""), ("https://a", "globex = 'images'")]);
        assert_eq!(problems(&config), []);
        assert_eq!(acme_of(&config, "https://a"), "crm");
    }

    #[test]
    fn preset_names_its_issuer_if_there_are_several() {
        let mut config = with_issuers(&[("https://a", "acme = 'images'"), ("https://b", "")]);
        let found = problems(&config);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "tenants.presets");
        for part in ["2 issuers (https://a, https://b)", "`presets` of its [[auth.issuers]]", "presets = {"] {
            assert!(found[0].1.contains(part), "{found:?}");
        }
        config.tenants.presets.clear();
        assert_eq!(problems(&config), []);
        assert_eq!(acme_of(&config, "https://a"), "images");
        assert_eq!(acme_of(&config, "https://b"), "general");
    }

    #[test]
    fn entries_of_one_issuer_agree_on_presets() {
        let found =
            problems(&with_issuers(&[("https://a", "acme = 'images'"), ("https://a", "acme = 'crm'")]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "auth.issuers[1].presets");
        let empty = problems(&with_issuers(&[("https://a", "acme = ''")]));
        assert_eq!(empty[0].0, "auth.issuers[0].presets");
    }
}
