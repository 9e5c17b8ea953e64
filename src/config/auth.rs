//! `[auth]`: identity providers and the mapping of token claims.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use url::{Host, Url};

use super::{
    validation::Violations,
    values::{empty_as_none, empty_url_as_none},
};

/// Authentication of callers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The accepted identity providers.
    pub issuers: Vec<IssuerConfig>,
    /// Roles by claim value; other values are rejected.
    pub roles: BTreeMap<String, RoleName>,
    /// The role of a token without a role claim; `None` rejects such tokens.
    #[serde(deserialize_with = "empty_as_none")]
    pub role_default: Option<RoleName>,
    /// The value of the kind claim that identifies a service without a user.
    pub service_kind: String,
    /// The names of the claims.
    pub claims: ClaimsConfig,
}

/// An identity provider.
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
    }
}

impl ClaimsConfig {
    fn check(&self, violations: &mut Violations) {
        let paths = [
            ("auth.claims.user", &self.user),
            ("auth.claims.organization", &self.organization),
            ("auth.claims.role", &self.role),
            ("auth.claims.groups", &self.groups),
            ("auth.claims.kind", &self.kind),
        ];
        for (key, path) in paths {
            if path.split('.').any(str::is_empty) {
                violations
                    .add(key, format!("must be a claim name, or names separated by dots, not `{path}`"));
            }
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
