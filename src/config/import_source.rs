//! `[imports.sources.<name>]`: one place to import from, its kind told by `adapter`.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::{Table, Value};
use url::Host;

use super::{
    provider::{ProviderConfig, S3Config, keys},
    schema::Example,
    storage::StorageConfig,
    validation::Violations,
};
use crate::domain::{caller::TenantKind, ids::TenantId, outgoing_address::is_public};

/// One source.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Whose admins may import from it: ids separated by commas, or `*` for all organisations.
    pub tenants: String,
    /// Where the objects are.
    pub place: SourcePlace,
}

/// Where the objects of a source are.
#[derive(Debug, Clone)]
pub enum SourcePlace {
    /// Below a directory.
    Directory(PathBuf),
    /// In a bucket.
    Bucket(Box<BucketPlace>),
    /// Behind URLs.
    Web(WebPlace),
}

/// A bucket, or the part of it whose keys begin with a text.
#[derive(Debug, Clone)]
pub struct BucketPlace {
    /// What the keys begin with; may be empty.
    pub prefix: String,
    /// The bucket. What is said there of new objects is not used.
    pub s3: S3Config,
}

/// Hosts whose URLs may be fetched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebPlace {
    /// Their names, as they stand in URLs.
    pub hosts: Vec<String>,
    /// Whether they may be in private networks, and speak plain HTTP.
    pub allow_private_addresses: bool,
    /// Time to connect, in seconds.
    pub connect_timeout_seconds: u64,
    /// Time without an answer, or without its next bytes, in seconds.
    pub request_timeout_seconds: u64,
}

impl SourceConfig {
    /// Reads a table that has been checked against its adapter's keys.
    pub(super) fn read(mut table: Table) -> Result<Self, toml::de::Error> {
        let mut text = |name: &str| match table.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (adapter, tenants) = (text("adapter"), text("tenants"));
        let place = match adapter.as_str() {
            "s3" => SourcePlace::Bucket(Box::new(BucketPlace { prefix: text("prefix"), s3: bucket(table)? })),
            "url" => SourcePlace::Web(keys(table)?),
            _ => SourcePlace::Directory(text("path").into()),
        };
        Ok(Self { tenants, place })
    }

    /// Whether this tenant's admins may import from it. Everybody is the admin of their own personal tenant, so a person has to
    /// be named.
    pub fn is_open_to(&self, tenant: TenantId, kind: TenantKind) -> bool {
        (self.tenants == "*" && kind == TenantKind::Organization)
            || ids(&self.tenants).any(|id| id.parse() == Ok(tenant))
    }

    pub(super) fn check(&self, key: &str, storage: &StorageConfig, violations: &mut Violations) {
        if self.tenants != "*" && ids(&self.tenants).any(|id| id.parse::<TenantId>().is_err()) {
            let message = "must be \"*\" for all organisations, or ids of tenants separated by commas";
            violations.refuse(format!("{key}.tenants"), message);
        }
        match &self.place {
            SourcePlace::Directory(path) => {
                check_directory(path, &format!("{key}.path"), storage, violations)
            }
            SourcePlace::Bucket(place) => place.check(key, storage, violations),
            SourcePlace::Web(place) => place.check(key, violations),
        }
    }
}

/// A bucket to read from: the keys of a source, over the defaults of a provider.
fn bucket(table: Table) -> Result<S3Config, toml::de::Error> {
    let mut all = Example::S3_PROVIDER.keys().unwrap_or_default();
    all.remove("adapter");
    all.extend(table);
    keys(all)
}

fn ids(tenants: &str) -> impl Iterator<Item = &str> {
    tenants.split(',').map(str::trim)
}

fn check_directory(path: &Path, key: &str, storage: &StorageConfig, violations: &mut Violations) {
    if !path.is_absolute() {
        violations.refuse(key, "must be an absolute path");
    }
    let path = as_it_is(path);
    let overlaps = |provider: &ProviderConfig| match provider {
        ProviderConfig::Local(local) => local.root.as_ref().is_some_and(|root| {
            let root = as_it_is(root);
            path.starts_with(&root) || root.starts_with(&path)
        }),
        ProviderConfig::Memory | ProviderConfig::Discard | ProviderConfig::S3(_) => false,
    };
    if path.is_absolute() && storage.providers.values().any(overlaps) {
        violations.refuse(key, "must not lie inside the root of a local provider, or around one");
    }
}

/// Where a path leads, whatever it is written like. One that is not there yet is taken as it is written.
fn as_it_is(path: &Path) -> PathBuf {
    let written = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.canonicalize().unwrap_or_else(|_| written())
}

impl BucketPlace {
    fn check(&self, key: &str, storage: &StorageConfig, violations: &mut Violations) {
        self.s3.check(key, violations);
        for (name, provider) in &storage.providers {
            let ProviderConfig::S3(provider) = provider else { continue };
            if address(provider) != address(&self.s3) {
                continue;
            }
            if provider.bucket_per_tenant && is_of_tenants(&self.s3.bucket, &provider.bucket) {
                let message =
                    format!("is a bucket of `storage.providers.{name}`, whose tenants each have one");
                violations.refuse(format!("{key}.bucket"), message);
            } else if provider.bucket == self.s3.bucket && may_begin_a_key(&self.prefix, &storage.key_prefix)
            {
                let message = format!(
                    "must be set, to a text that no key of the service begins with: the bucket is that of \
                     `storage.providers.{name}`, whose keys begin with `storage.key_prefix` and a tenant's id"
                );
                violations.refuse(format!("{key}.prefix"), message);
            }
        }
    }
}

/// Where a store is, whatever its name was spelled like: its host and port.
fn address(s3: &S3Config) -> (Option<String>, Option<u16>) {
    let endpoint = s3.endpoint.clone();
    let endpoint = endpoint.or_else(|| format!("https://s3.{}.amazonaws.com", s3.region).parse().ok());
    let host =
        endpoint.as_ref().and_then(|url| url.host_str()).map(|host| host.trim_end_matches('.').to_owned());
    (host, endpoint.as_ref().and_then(url::Url::port_or_known_default))
}

/// Whether a bucket's name is the one that tenants' buckets begin with, or that of such a bucket.
fn is_of_tenants(bucket: &str, begin: &str) -> bool {
    let is_id = |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    bucket
        .strip_prefix(begin)
        .is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(is_id))
}

/// Whether a key that this service made can begin with a text, or a text that begins so can be a key that it made.
fn may_begin_a_key(text: &str, key_prefix: &str) -> bool {
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

impl WebPlace {
    /// Time to connect.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_seconds)
    }

    /// Time without an answer, or without its next bytes.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    /// Whether URLs of this host may be fetched.
    pub fn names(&self, host: &Host<&str>) -> bool {
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
            violations.refuse(at("hosts"), "must name at least one host that may be fetched from");
        }
        for (place, name) in self.hosts.iter().enumerate() {
            let key = format!("{}[{place}]", at("hosts"));
            let address = match Host::parse(name) {
                Ok(Host::Domain(_)) => continue,
                Ok(Host::Ipv4(v4)) => IpAddr::V4(v4),
                Ok(Host::Ipv6(v6)) => IpAddr::V6(v6),
                Err(_) => {
                    violations.refuse(key, "must be the name of a host alone, such as files.example.org");
                    continue;
                }
            };
            if !self.allow_private_addresses && !is_public(address) {
                violations.refuse(key, "must not be an address of a private network");
            }
        }
        violations.range(&at("connect_timeout_seconds"), self.connect_timeout_seconds, 1..=300);
        violations.range(&at("request_timeout_seconds"), self.request_timeout_seconds, 1..=3_600);
    }
}

#[cfg(test)]
#[path = "import_source_tests.rs"]
mod tests;
