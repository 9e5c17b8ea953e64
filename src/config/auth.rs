//! `[auth]`: identity providers, the trust in each of them, and the mapping of token claims.
//!
//! Trust is a property of an issuer. The tables `auth.roles` and `auth.claims` are the defaults of issuers that
//! have none of their own; only an issuer with `operators = true` can name operators.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use url::{Host, Url};

use super::{
    validation::Violations,
    values::{empty_as_none, empty_url_as_none},
};
use crate::domain::scope::Scope;

/// Authentication of callers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The accepted identity providers.
    pub issuers: Vec<IssuerConfig>,
    /// Whether more than one issuer may name operators.
    pub several_operator_issuers: bool,
    /// Roles by claim value, for issuers without roles of their own. Other values are rejected.
    pub roles: BTreeMap<String, RoleName>,
    /// The role of a token without a role claim; `None` rejects such tokens.
    #[serde(deserialize_with = "empty_as_none")]
    pub role_default: Option<RoleName>,
    /// The value of the kind claim that identifies a service without a user.
    pub service_kind: String,
    /// The names of the claims, for issuers without names of their own.
    pub claims: ClaimsConfig,
}

/// An identity provider, and the trust in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The expected `iss` claim (exact match).
    pub issuer: String,
    /// The expected `aud` value; the token must contain it.
    pub audience: String,
    /// The file with the public keys. Alternative to [`Self::jwks_url`].
    pub jwks_file: Option<PathBuf>,
    /// The URL of the public keys: https, or http to a loopback address.
    #[serde(default, deserialize_with = "empty_url_as_none")]
    pub jwks_url: Option<Url>,
    /// Interval between refreshes of the keys, in seconds.
    #[serde(default = "jwks_refresh_seconds")]
    pub jwks_refresh_seconds: u64,
    /// The accepted signature algorithms.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Tolerated clock difference, in seconds.
    #[serde(default = "leeway_seconds")]
    pub leeway_seconds: u64,
    /// The longest lifetime of a token, in seconds.
    #[serde(default = "token_lifetime_max_seconds")]
    pub token_lifetime_max_seconds: u64,
    /// Whether it may name operators of the platform.
    #[serde(default)]
    pub operators: bool,
    /// Its roles by claim value. `None` means the roles of `auth.roles`.
    #[serde(default)]
    pub roles: Option<BTreeMap<String, RoleName>>,
    /// Its names of claims. Names that are not set are taken from `auth.claims`.
    #[serde(default)]
    pub claims: IssuerClaimsConfig,
    /// The organizations whose tokens are accepted.
    #[serde(default)]
    pub organizations: Organizations,
    /// The scopes that its tokens may give.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// Whether its first token for an organization or person creates the tenant. `None`:
    /// `tenants.create_on_first_use`.
    #[serde(default)]
    pub create_tenants: Option<bool>,
    /// Names of policies for some of its organizations, by their ids, where they differ from `tenants.preset`.
    #[serde(default)]
    pub presets: BTreeMap<String, String>,
}

/// The bounds of the longest lifetime of a token: a minute to a year.
const TOKEN_LIFETIME_SECONDS: RangeInclusive<u64> = 60..=31_536_000;

/// The names of the claims of one issuer, where they differ from those of all issuers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IssuerClaimsConfig {
    pub user: Option<String>,
    pub organization: Option<String>,
    pub role: Option<String>,
    pub groups: Option<String>,
    pub kind: Option<String>,
    pub scope: Option<String>,
}

/// The organizations whose tokens an issuer may sign.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "OrganizationsValue")]
pub enum Organizations {
    /// All organizations, and persons without one.
    #[default]
    Any,
    /// The organizations with these ids. Persons without an organization are rejected.
    Listed(BTreeSet<String>),
}

/// The text "any", or a list of ids.
#[derive(Deserialize)]
#[serde(untagged)]
enum OrganizationsValue {
    Text(String),
    List(BTreeSet<String>),
}

impl TryFrom<OrganizationsValue> for Organizations {
    type Error = &'static str;

    fn try_from(value: OrganizationsValue) -> Result<Self, Self::Error> {
        match value {
            OrganizationsValue::Text(text) if text == "any" => Ok(Self::Any),
            OrganizationsValue::Text(_) => Err("organizations must be \"any\" or a list of ids"),
            OrganizationsValue::List(ids) => Ok(Self::Listed(ids)),
        }
    }
}

/// A signature algorithm. Only asymmetric algorithms are supported, so that a verifier cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
}

/// A role that a claim value can map to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Administers a tenant.
    Admin,
    /// Manages groups of a tenant.
    Manager,
    /// An ordinary member of a tenant.
    Member,
    /// Operates the platform.
    Operator,
}

/// The names of the claims. A dot separates the names of nested claims.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimsConfig {
    /// The claim with the id of the user.
    pub user: String,
    /// The claim with the id of the organization.
    pub organization: String,
    /// The claim with the role in the organization.
    pub role: String,
    /// The claim with the groups of the user.
    pub groups: String,
    /// The claim with the kind of the caller.
    pub kind: String,
    /// The claim with the scopes of the token.
    pub scope: String,
}

/// The source of an issuer's public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwksSource<'a> {
    /// A file of this machine.
    File(&'a Path),
    /// A URL of the identity provider.
    Url(&'a Url),
}

impl IssuerConfig {
    /// Returns the source of the keys, or `None` if the configuration was not validated.
    pub fn jwks(&self) -> Option<JwksSource<'_>> {
        match (&self.jwks_file, &self.jwks_url) {
            (Some(file), None) => Some(JwksSource::File(file)),
            (None, Some(url)) => Some(JwksSource::Url(url)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }

    /// Returns the interval between refreshes of the keys.
    pub fn jwks_refresh(&self) -> Duration {
        Duration::from_secs(self.jwks_refresh_seconds)
    }

    /// Returns the longest lifetime of a token.
    pub fn token_lifetime_max(&self) -> Duration {
        Duration::from_secs(self.token_lifetime_max_seconds)
    }

    /// Returns the tolerated clock difference.
    pub fn leeway(&self) -> Duration {
        Duration::from_secs(self.leeway_seconds)
    }

    fn check(&self, index: usize, violations: &mut Violations) {
        let key = |name: &str| format!("auth.issuers[{index}].{name}");
        violations.check_not_empty(&key("issuer"), &self.issuer);
        violations.check_not_empty(&key("audience"), &self.audience);
        if self.jwks().is_none() {
            violations
                .add(format!("auth.issuers[{index}]"), "must have exactly one of `jwks_file` and `jwks_url`");
        }
        if self.jwks_url.as_ref().is_some_and(|url| !is_secure_url(url)) {
            violations.add(key("jwks_url"), "must be https, or http to a loopback address");
        }
        violations.check_range(&key("jwks_refresh_seconds"), self.jwks_refresh_seconds, 10..=86_400);
        violations.check_range(&key("leeway_seconds"), self.leeway_seconds, 0..=300);
        if self.algorithms.is_empty() {
            violations.add(key("algorithms"), "must name at least one of \"EdDSA\" and \"ES256\"");
        }
        let lifetime_key = key("token_lifetime_max_seconds");
        violations.check_range(&lifetime_key, self.token_lifetime_max_seconds, TOKEN_LIFETIME_SECONDS);
        self.check_trust(index, violations);
    }

    /// Checks the settings that state the trust in the issuer.
    fn check_trust(&self, index: usize, violations: &mut Violations) {
        let key = |name: &str| format!("auth.issuers[{index}].{name}");
        if let Some(claimed) = self.roles.as_ref().and_then(find_operator_role)
            && !self.operators
        {
            let message = format!(
                "maps `{claimed}` to \"operator\", but this issuer may not name operators; remove the entry, or set \
                 `operators = true` if only the platform's own people can have this role"
            );
            violations.add(key("roles"), message);
        }
        match &self.organizations {
            Organizations::Any => {}
            Organizations::Listed(ids) if ids.is_empty() || ids.contains("") => {
                let message = "must be \"any\" or a list of at least one id, none of which is empty";
                violations.add(key("organizations"), message);
            }
            Organizations::Listed(_) => {}
        }
        if self.presets.iter().any(|(organization, preset)| organization.is_empty() || preset.is_empty()) {
            violations.add(key("presets"), "must map organization ids to policy names; none may be empty");
        }
        let names = &self.claims;
        check_claim_paths(
            &key("claims"),
            [
                ("user", names.user.as_deref()),
                ("organization", names.organization.as_deref()),
                ("role", names.role.as_deref()),
                ("groups", names.groups.as_deref()),
                ("kind", names.kind.as_deref()),
                ("scope", names.scope.as_deref()),
            ],
            violations,
        );
    }
}

impl AuthConfig {
    pub(super) fn check(&self, violations: &mut Violations) {
        for (index, issuer) in self.issuers.iter().enumerate() {
            issuer.check(index, violations);
            let is_same = |earlier: &IssuerConfig| {
                earlier.issuer == issuer.issuer && earlier.audience == issuer.audience
            };
            if self.issuers.iter().take(index).any(is_same) {
                let message = format!(
                    "has the same issuer and audience as an earlier entry: `{}`, `{}`",
                    issuer.issuer, issuer.audience
                );
                violations.add(format!("auth.issuers[{index}]"), message);
            }
            let earlier: Vec<_> =
                self.issuers.iter().take(index).filter(|earlier| earlier.issuer == issuer.issuer).collect();
            for (organization, preset) in &issuer.presets {
                if earlier
                    .iter()
                    .any(|other| other.presets.get(organization).is_some_and(|other| other != preset))
                {
                    let message = format!(
                        "has another preset for `{organization}` than an earlier entry of this issuer"
                    );
                    violations.add(format!("auth.issuers[{index}].presets"), message);
                }
            }
        }
        if !matches!(self.role_default, None | Some(RoleName::Member | RoleName::Manager)) {
            violations.add("auth.role_default", "must be \"manager\", \"member\" or \"\"");
        }
        violations.check_not_empty("auth.service_kind", &self.service_kind);
        self.claims.check(violations);
    }

    pub(super) fn check_for_serve(&self, violations: &mut Violations) {
        if self.issuers.is_empty() {
            let message = "must contain at least one identity provider to verify callers: add \
                           [[auth.issuers]] with issuer, audience, and jwks_file or jwks_url";
            violations.add("auth.issuers", message);
        }
        self.check_operators(violations);
    }

    /// Checks that it is clear which issuer names the operators. Two audiences of one issuer are one issuer.
    fn check_operators(&self, violations: &mut Violations) {
        let trusted = self.issuers.iter().filter(|issuer| issuer.operators);
        let trusted: BTreeSet<&str> = trusted.map(|issuer| issuer.issuer.as_str()).collect();
        if trusted.len() > 1 && !self.several_operator_issuers {
            let names: Vec<&str> = trusted.iter().copied().collect();
            let message = format!(
                "has {} issuers that may name operators of the platform ({}); set `operators = true` for one of \
                 them, or `auth.several_operator_issuers = true` if each is yours",
                names.len(),
                names.join(", ")
            );
            violations.add("auth.issuers", message);
        }
        if let Some(claimed) = find_operator_role(&self.roles)
            && trusted.is_empty()
            && !self.issuers.is_empty()
        {
            let message = format!(
                "maps `{claimed}` to \"operator\", but no issuer may name operators; set `operators = true` in the \
                 [[auth.issuers]] of the platform's own identity provider, or remove the entry"
            );
            violations.add("auth.roles", message);
        }
    }

    /// Returns the names of the claims in the tokens of an issuer.
    pub fn claims_of(&self, issuer: &IssuerConfig) -> ClaimsConfig {
        let (own, all) = (&issuer.claims, &self.claims);
        let pick = |own: &Option<String>, all: &String| own.clone().unwrap_or_else(|| all.clone());
        ClaimsConfig {
            user: pick(&own.user, &all.user),
            organization: pick(&own.organization, &all.organization),
            role: pick(&own.role, &all.role),
            groups: pick(&own.groups, &all.groups),
            kind: pick(&own.kind, &all.kind),
            scope: pick(&own.scope, &all.scope),
        }
    }

    /// Returns the roles of an issuer, by claim value.
    pub fn roles_of<'a>(&'a self, issuer: &'a IssuerConfig) -> &'a BTreeMap<String, RoleName> {
        issuer.roles.as_ref().unwrap_or(&self.roles)
    }
}

/// Returns a claim value that makes its bearer an operator.
fn find_operator_role(roles: &BTreeMap<String, RoleName>) -> Option<&str> {
    roles.iter().find(|(_, role)| **role == RoleName::Operator).map(|(claimed, _)| claimed.as_str())
}

impl ClaimsConfig {
    fn check(&self, violations: &mut Violations) {
        let paths = [
            ("user", Some(self.user.as_str())),
            ("organization", Some(&self.organization)),
            ("role", Some(&self.role)),
            ("groups", Some(&self.groups)),
            ("kind", Some(&self.kind)),
            ("scope", Some(&self.scope)),
        ];
        check_claim_paths("auth.claims", paths, violations);
    }
}

/// Checks the names of the claims in the table with this key.
fn check_claim_paths(table: &str, paths: [(&str, Option<&str>); 6], violations: &mut Violations) {
    for (name, path) in paths {
        if let Some(path) = path.filter(|path| path.split('.').any(str::is_empty)) {
            let message = format!("must be a claim name, or names separated by dots, not `{path}`");
            violations.add(format!("{table}.{name}"), message);
        }
    }
}

/// Returns whether keys from this URL are protected against tampering in transit.
fn is_secure_url(url: &Url) -> bool {
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && local)
}

fn jwks_refresh_seconds() -> u64 {
    300
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::EdDsa, Algorithm::Es256]
}

fn leeway_seconds() -> u64 {
    30
}

fn token_lifetime_max_seconds() -> u64 {
    86_400
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
