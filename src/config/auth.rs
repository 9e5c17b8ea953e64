//! `[auth]`: whose tokens are accepted, and how their claims are read.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use url::{Host, Url};

use super::{
    validation::Violations,
    values::{no_url_if_empty, none_if_empty},
};

/// Callers' tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Identity providers.
    pub issuers: Vec<IssuerConfig>,
    /// Claim value to role; what is not here is refused.
    pub roles: BTreeMap<String, RoleName>,
    /// The role of a token without any role claim; none refuses it.
    #[serde(deserialize_with = "none_if_empty")]
    pub role_default: Option<RoleName>,
    /// The value of the kind claim that marks a backend without a user.
    pub service_kind: String,
    /// Which claim says what.
    pub claims: ClaimsConfig,
}

/// One identity provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// Exactly the token's `iss` claim.
    pub issuer: String,
    /// One of the token's `aud` values.
    pub audience: String,
    /// Where its keys are: a file, or [`Self::jwks_url`].
    pub jwks_file: Option<PathBuf>,
    /// Where its keys are: https, or http to this machine itself.
    #[serde(default, deserialize_with = "no_url_if_empty")]
    pub jwks_url: Option<Url>,
    /// Time between two looks at the keys, in seconds.
    #[serde(default = "jwks_refresh_seconds")]
    pub jwks_refresh_seconds: u64,
    /// Signatures that are accepted.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// By how much clocks may differ, in seconds.
    #[serde(default = "leeway_seconds")]
    pub leeway_seconds: u64,
}

/// Signatures that may be accepted: asymmetric only, so that who can verify cannot sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
}

/// Roles that a claim value can map to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Administers a tenant.
    Admin,
    /// Manages groups of a tenant.
    Manager,
    /// Belongs to a tenant.
    Member,
    /// The platform's own role.
    Operator,
}

/// Paths of claims; a dot goes into a nested claim.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimsConfig {
    /// The user's id.
    pub user: String,
    /// The organisation's id.
    pub organization: String,
    /// The role in the organisation.
    pub role: String,
    /// The user's groups.
    pub groups: String,
    /// What kind of caller this is.
    pub kind: String,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwksSource<'a> {
    /// A file of this machine.
    File(&'a Path),
    /// A URL of the provider.
    Url(&'a Url),
}

impl IssuerConfig {
    /// Where the keys are; none when the configuration was not validated.
    pub fn jwks(&self) -> Option<JwksSource<'_>> {
        match (&self.jwks_file, &self.jwks_url) {
            (Some(file), None) => Some(JwksSource::File(file)),
            (None, Some(url)) => Some(JwksSource::Url(url)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }

    /// Time between two looks at the keys.
    pub fn jwks_refresh(&self) -> Duration {
        Duration::from_secs(self.jwks_refresh_seconds)
    }

    /// By how much clocks may differ.
    pub fn leeway(&self) -> Duration {
        Duration::from_secs(self.leeway_seconds)
    }

    fn check(&self, index: usize, violations: &mut Violations) {
        let key = |name: &str| format!("auth.issuers[{index}].{name}");
        violations.not_empty(&key("issuer"), &self.issuer);
        violations.not_empty(&key("audience"), &self.audience);
        if self.jwks().is_none() {
            violations.refuse(format!("auth.issuers[{index}]"), "needs one of `jwks_file` and `jwks_url`");
        }
        if self.jwks_url.as_ref().is_some_and(|url| !is_safe(url)) {
            violations.refuse(key("jwks_url"), "must be https, or http to this machine itself");
        }
        violations.range(&key("jwks_refresh_seconds"), self.jwks_refresh_seconds, 10..=86_400);
        violations.range(&key("leeway_seconds"), self.leeway_seconds, 0..=300);
        if self.algorithms.is_empty() {
            violations.refuse(key("algorithms"), "must name at least one of \"EdDSA\" and \"ES256\"");
        }
    }
}

impl AuthConfig {
    pub(super) fn check(&self, violations: &mut Violations) {
        for (index, issuer) in self.issuers.iter().enumerate() {
            issuer.check(index, violations);
            let twin = |earlier: &IssuerConfig| {
                earlier.issuer == issuer.issuer && earlier.audience == issuer.audience
            };
            if self.issuers.iter().take(index).any(twin) {
                let message = "has the issuer and the audience of an earlier one";
                violations.refuse(format!("auth.issuers[{index}]"), message);
            }
        }
        if !matches!(self.role_default, None | Some(RoleName::Member | RoleName::Manager)) {
            violations.refuse("auth.role_default", "must be \"manager\", \"member\" or \"\"");
        }
        violations.not_empty("auth.service_kind", &self.service_kind);
        self.claims.check(violations);
    }

    pub(super) fn check_for_serve(&self, violations: &mut Violations) {
        if self.issuers.is_empty() {
            let message = "must name at least one identity provider, or no caller could be verified: add \
                           [[auth.issuers]] with issuer, audience, and jwks_file or jwks_url";
            violations.refuse("auth.issuers", message);
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
                violations.refuse(key, "must be the name of a claim, or names with a dot between them");
            }
        }
    }
}

/// Keys that came over a wire that others can write on are nobody's keys.
fn is_safe(url: &Url) -> bool {
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
