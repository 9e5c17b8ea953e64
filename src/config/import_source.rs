//! `[imports.sources.<name>]`: an import source, with the type selected by `adapter`.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::{Table, Value};
use url::Host;

use super::{
    provider::{ProviderConfig, S3Config, deserialize_table},
    schema::Example,
    storage::StorageConfig,
    validation::Violations,
};
use crate::domain::{caller::TenantKind, ids::TenantId, outgoing_address::is_public};

/// An import source.
#[derive(Debug, Clone)]
pub struct ImportSourceConfig {
    /// Tenants whose admins may import from this source: ids separated by commas, or `*` for all
    /// organizations.
    pub tenants: String,
    /// The location of the objects.
    pub location: SourceLocation,
}

/// The location of the objects of a source.
#[derive(Debug, Clone)]
pub enum SourceLocation {
    Directory(PathBuf),
    Bucket(Box<BucketSource>),
    Web(WebSource),
}

/// A bucket to import from, limited to keys with a prefix.
#[derive(Debug, Clone)]
pub struct BucketSource {
    /// The prefix of the keys; may be empty.
    pub prefix: String,
    /// The bucket. Settings that concern new objects are ignored.
    pub s3: S3Config,
}

/// Hosts whose URLs may be fetched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSource {
    /// Host names as in the URLs.
    pub hosts: Vec<String>,
    /// Whether hosts may be in private networks and use plain HTTP.
    pub allow_private_addresses: bool,
    /// Maximum time to connect, in seconds.
    pub connect_timeout_seconds: u64,
    /// Maximum time without a response, or without its further bytes, in seconds.
    pub request_timeout_seconds: u64,
}

impl ImportSourceConfig {
    /// Deserializes a table that was checked against the keys of its adapter.
    pub(super) fn read(mut table: Table) -> Result<Self, toml::de::Error> {
        let mut text = |name: &str| match table.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (adapter, tenants) = (text("adapter"), text("tenants"));
        let location = match adapter.as_str() {
            "s3" => SourceLocation::Bucket(Box::new(BucketSource {
                prefix: text("prefix"),
                s3: read_bucket(table)?,
            })),
            "url" => SourceLocation::Web(deserialize_table(table)?),
            _ => SourceLocation::Directory(text("path").into()),
        };
        Ok(Self { tenants, location })
    }

    /// Returns whether the admins of this tenant may import from the source. Every user is the admin of their
    /// personal tenant, so `*` does not include personal tenants.
    pub fn is_open_to(&self, tenant: TenantId, kind: TenantKind) -> bool {
        (self.tenants == "*" && kind == TenantKind::Organization)
            || parse_ids(&self.tenants).any(|id| id.parse() == Ok(tenant))
    }

    pub(super) fn check(&self, key: &str, storage: &StorageConfig, violations: &mut Violations) {
        if self.tenants != "*" && parse_ids(&self.tenants).any(|id| id.parse::<TenantId>().is_err()) {
            let message = format!(
                "must be \"*\" for all organizations, or tenant ids separated by commas, not `{}`",
                self.tenants
            );
            violations.add(format!("{key}.tenants"), message);
        }
        match &self.location {
            SourceLocation::Directory(path) => {
                check_directory(path, &format!("{key}.path"), storage, violations)
            }
            SourceLocation::Bucket(place) => place.check(key, storage, violations),
            SourceLocation::Web(place) => place.check(key, violations),
        }
    }
}

/// Deserializes a bucket to read from: the keys of a source over the defaults of a provider.
fn read_bucket(table: Table) -> Result<S3Config, toml::de::Error> {
    let mut all = Example::S3_PROVIDER.keys().unwrap_or_default();
    all.remove("adapter");
    all.extend(table);
    deserialize_table(all)
}

fn parse_ids(tenants: &str) -> impl Iterator<Item = &str> {
    tenants.split(',').map(str::trim)
}

fn check_directory(path: &Path, key: &str, storage: &StorageConfig, violations: &mut Violations) {
    if !path.is_absolute() {
        violations.add(key, format!("must be an absolute path, not `{}`", path.display()));
    }
    let path = resolve_path(path);
    let overlaps = |provider: &ProviderConfig| match provider {
        ProviderConfig::Local(local) => local.root.as_ref().is_some_and(|root| {
            let root = resolve_path(root);
            path.starts_with(&root) || root.starts_with(&path)
        }),
        ProviderConfig::Memory | ProviderConfig::Discard | ProviderConfig::S3(_) => false,
    };
    if path.is_absolute() && storage.providers.values().any(overlaps) {
        violations.add(
            key,
            format!(
                "must not contain, or be inside, the root of a local provider; `{}` does",
                path.display()
            ),
        );
    }
}

/// Resolves a path, including symbolic links. A path that does not exist is only made absolute.
fn resolve_path(path: &Path) -> PathBuf {
    let written = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.canonicalize().unwrap_or_else(|_| written())
}

impl BucketSource {
    fn check(&self, key: &str, storage: &StorageConfig, violations: &mut Violations) {
        self.s3.check(key, violations);
        for (name, provider) in &storage.providers {
            let ProviderConfig::S3(provider) = provider else { continue };
            if store_address(provider) != store_address(&self.s3) {
                continue;
            }
            if provider.bucket_per_tenant && is_tenant_bucket(&self.s3.bucket, &provider.bucket) {
                let message = format!(
                    "must not be a tenant bucket of `storage.providers.{name}`, but `{}` is",
                    self.s3.bucket
                );
                violations.add(format!("{key}.bucket"), message);
            } else if provider.bucket == self.s3.bucket
                && may_prefix_service_key(&self.prefix, &storage.key_prefix)
            {
                let message = format!(
                    "must be a prefix that no key of the service has, not `{}`: the bucket is also used by \
                     `storage.providers.{name}`, whose keys start with `storage.key_prefix` and a tenant id",
                    self.prefix
                );
                violations.add(format!("{key}.prefix"), message);
            }
        }
    }
}

/// Returns the host and port of a store, independent of the spelling of its URL.
fn store_address(s3: &S3Config) -> (Option<String>, Option<u16>) {
    let endpoint = s3.endpoint.clone();
    let endpoint = endpoint.or_else(|| format!("https://s3.{}.amazonaws.com", s3.region).parse().ok());
    let host =
        endpoint.as_ref().and_then(|url| url.host_str()).map(|host| host.trim_end_matches('.').to_owned());
    (host, endpoint.as_ref().and_then(url::Url::port_or_known_default))
}

/// Returns whether a bucket name is the prefix of the tenant buckets, or the name of a tenant bucket.
fn is_tenant_bucket(bucket: &str, prefix: &str) -> bool {
    let is_id = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    bucket
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(is_id))
}

/// Returns whether a key of this service can start with `text`, or `text` can start with a key of this
/// service.
fn may_prefix_service_key(text: &str, key_prefix: &str) -> bool {
    if key_prefix.is_empty() {
        let is_of_id = |(place, byte): (usize, u8)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        };
        return text.bytes().take(36).enumerate().all(is_of_id);
    }
    let ours = format!("{key_prefix}/");
    text.starts_with(&ours) || ours.starts_with(text)
}

impl WebSource {
    /// Returns the maximum time to connect.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_seconds)
    }

    /// Returns the maximum time without a response, or without its further bytes.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    /// Returns whether URLs of this host may be fetched.
    pub fn allows_host(&self, host: &Host<&str>) -> bool {
        self.hosts.iter().filter_map(|name| Host::parse(name).ok()).any(|name| match (name, host) {
            (Host::Domain(name), Host::Domain(host)) => name == **host,
            (Host::Ipv4(name), Host::Ipv4(host)) => name == *host,
            (Host::Ipv6(name), Host::Ipv6(host)) => name == *host,
            _ => false,
        })
    }

    fn check(&self, key: &str, violations: &mut Violations) {
        let at = |name: &str| format!("{key}.{name}");
        if self.hosts.is_empty() {
            violations.add(at("hosts"), "must contain at least one host");
        }
        for (place, name) in self.hosts.iter().enumerate() {
            let key = format!("{}[{place}]", at("hosts"));
            let address = match Host::parse(name) {
                Ok(Host::Domain(_)) => continue,
                Ok(Host::Ipv4(v4)) => IpAddr::V4(v4),
                Ok(Host::Ipv6(v6)) => IpAddr::V6(v6),
                Err(_) => {
                    let message = format!(
                        "must be a host name without scheme and port, such as files.example.org, not `{name}`"
                    );
                    violations.add(key, message);
                    continue;
                }
            };
            if !self.allow_private_addresses && !is_public(address) {
                violations.add(key, format!("must not be an address in a private network, but `{name}` is"));
            }
        }
        violations.check_range(&at("connect_timeout_seconds"), self.connect_timeout_seconds, 1..=300);
        violations.check_range(&at("request_timeout_seconds"), self.request_timeout_seconds, 1..=3_600);
    }
}

#[cfg(test)]
#[path = "import_source_tests.rs"]
mod tests;
