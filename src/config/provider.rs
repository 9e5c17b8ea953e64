//! `[storage.providers.<name>]`: a storage provider, with the type selected by `adapter`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, de::DeserializeOwned};
use toml::{Table, Value};
use url::Url;

use super::{
    UploadsConfig,
    error::ConfigError,
    schema::Example,
    validation::Violations,
    values::{empty_as_none, empty_secret_as_none, empty_url_as_none},
};

/// The minimum length of a bucket name in S3.
const BUCKET_LENGTH_MIN: usize = 3;
/// The maximum length of a bucket name in S3.
const BUCKET_LENGTH_MAX: usize = 63;
/// The length of the suffix of a tenant bucket: a hyphen and the tenant id without hyphens.
const TENANT_SUFFIX_LENGTH: usize = 33;

/// The storage classes for archived objects: those that allow immediate reads.
const ARCHIVE_CLASSES: [&str; 4] = ["STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];

const DAY_SECONDS: u64 = 24 * 3600;
/// The maximum age of a multipart upload in days.
const ABANDONED_MULTIPART_DAYS_MAX: u32 = 365;
/// The days by which the store keeps a multipart upload longer than the longest lease.
const ABANDONED_MULTIPART_MARGIN_DAYS: u32 = 6;

/// A storage provider.
#[derive(Debug, Clone)]
pub enum ProviderConfig {
    /// A directory of this machine.
    Local(LocalConfig),
    /// The memory of this process. The data is lost when the process ends.
    Memory,
    /// Discards most data. For load tests.
    Discard,
    /// A bucket of an S3-compatible store.
    S3(Box<S3Config>),
}

/// A directory of this machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalConfig {
    /// The directory; `None` disables the provider.
    #[serde(deserialize_with = "empty_as_none")]
    pub root: Option<PathBuf>,
}

/// A bucket of an S3-compatible store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// The URL of the store; `None` for Amazon S3 in `region`.
    #[serde(deserialize_with = "empty_url_as_none")]
    pub endpoint: Option<Url>,
    /// Whether the endpoint may use plain HTTP.
    pub allow_http: bool,
    /// The region used in request signatures.
    pub region: String,
    /// The bucket, or the name prefix of the tenant buckets.
    pub bucket: String,
    /// Whether each tenant has a separate bucket.
    pub bucket_per_tenant: bool,
    /// Whether the bucket name is part of the host name.
    pub virtual_hosted_style: bool,
    /// The access key; `None` uses the credentials of the environment.
    #[serde(deserialize_with = "empty_as_none")]
    pub access_key_id: Option<String>,
    /// The secret of the access key.
    #[serde(deserialize_with = "empty_secret_as_none")]
    pub secret_access_key: Option<SecretString>,
    /// The session token of temporary credentials.
    #[serde(deserialize_with = "empty_secret_as_none")]
    pub session_token: Option<SecretString>,
    /// Whether request signatures cover the body.
    pub payload_signing: PayloadSigning,
    /// Encryption at rest by the store.
    pub encryption: Encryption,
    /// The key for [`Encryption::Kms`].
    #[serde(deserialize_with = "empty_as_none")]
    pub kms_key_id: Option<String>,
    /// The storage class of new objects; `None` for the default of the bucket.
    #[serde(deserialize_with = "empty_as_none")]
    pub storage_class: Option<String>,
    /// The storage class of archived objects; `None` keeps them in their class.
    #[serde(deserialize_with = "empty_as_none")]
    pub archive_storage_class: Option<String>,
    /// Tags of new objects.
    pub tags: BTreeMap<String, String>,
    /// Whether the store supports rejecting writes to existing keys.
    pub conditional_writes: bool,
    /// Maximum time to connect, in seconds.
    pub connect_timeout_seconds: u64,
    /// Maximum time without a response, in seconds.
    pub request_timeout_seconds: u64,
    /// PEM file with certificate authorities to trust in addition to those of the system.
    #[serde(deserialize_with = "empty_as_none")]
    pub ca_file: Option<PathBuf>,
    /// The age at which the store aborts incomplete multipart uploads, in days. At least the longest lease of an upload
    /// and a margin.
    pub abandoned_multipart_days: u32,
}

/// Whether request signatures cover the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadSigning {
    /// Signs the body over http, but not over https.
    Auto,
    /// Always signs the body.
    Always,
    /// Never signs the body.
    Never,
}

/// Encryption at rest by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// Requests no encryption.
    None,
    /// Encrypts with a key that the store manages.
    Aes256,
    /// Encrypts with a key of the store's key management service.
    Kms,
}

impl ProviderConfig {
    /// Deserializes a table that was checked against the keys of its adapter.
    pub(super) fn read(mut table: Table) -> Result<Self, toml::de::Error> {
        match table.remove("adapter").as_ref().and_then(Value::as_str) {
            Some("local") => deserialize_table(table).map(Self::Local),
            Some("discard") => Ok(Self::Discard),
            Some("s3") => deserialize_table(table).map(|s3| Self::S3(Box::new(s3))),
            _ => Ok(Self::Memory),
        }
    }

    pub(super) fn check(&self, key: &str, violations: &mut Violations) {
        if let Self::S3(s3) = self {
            s3.check(key, violations);
        }
    }

    /// Raises the age at which the store aborts multipart uploads to the longest lease, rounded up to days, plus a
    /// margin: an upload whose parts renew its lease may be older than the lease.
    pub(super) fn keep_multiparts_for(&mut self, uploads: &UploadsConfig) {
        if let Self::S3(s3) = self {
            let lease_days = u32::try_from(uploads.lease_seconds.div_ceil(DAY_SECONDS)).unwrap_or(u32::MAX);
            let days_min = lease_days.saturating_add(ABANDONED_MULTIPART_MARGIN_DAYS);
            s3.abandoned_multipart_days =
                s3.abandoned_multipart_days.max(days_min.min(ABANDONED_MULTIPART_DAYS_MAX));
        }
    }

    /// Returns whether both use the same directory or bucket, according to their settings.
    pub(super) fn is_same_location(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(two)) => one.root.is_some() && one.root == two.root,
            (Self::S3(one), Self::S3(two)) => {
                !one.bucket.is_empty() && one.bucket == two.bucket && one.endpoint == two.endpoint
            }
            _ => false,
        }
    }
}

pub(super) fn deserialize_table<T: DeserializeOwned>(table: Table) -> Result<T, toml::de::Error> {
    Value::Table(table).try_into()
}

impl LocalConfig {
    pub(super) fn check_root(&self, key: &str, violations: &mut Violations) {
        if self.root.is_none() {
            let message = "is required: set the directory for objects";
            violations.add(format!("{key}.root"), message);
        }
    }
}

impl S3Config {
    /// Returns the defaults, for callers that set the other fields in code. The bucket is empty.
    ///
    /// # Errors
    /// Fails only if the compiled-in `default.toml` is invalid, which a test rules out.
    pub fn defaults() -> Result<Self, ConfigError> {
        match Example::S3_PROVIDER.keys().map(ProviderConfig::read) {
            Some(Ok(ProviderConfig::S3(s3))) => Ok(*s3),
            _ => Err(ConfigError::Invalid(Vec::new())),
        }
    }

    /// Returns the maximum time to connect.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_seconds)
    }

    /// Returns the maximum time without a response.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    pub(super) fn check(&self, key: &str, violations: &mut Violations) {
        let at = |name: &str| format!("{key}.{name}");
        violations.check_not_empty(&at("region"), &self.region);
        self.check_bucket(&at("bucket"), violations);
        if let Some(endpoint) = &self.endpoint {
            match endpoint.scheme() {
                "https" => {}
                "http" if self.allow_http => {}
                "http" => violations.add(
                    at("endpoint"),
                    format!("must use https unless `allow_http` is true, not `{endpoint}`"),
                ),
                _ => {
                    violations.add(at("endpoint"), format!("must be an https or http URL, not `{endpoint}`"))
                }
            }
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            violations.add(key, "must have both `access_key_id` and `secret_access_key`, or neither");
        }
        if self.session_token.is_some() && self.access_key_id.is_none() {
            violations.add(at("session_token"), "requires `access_key_id`, which is not set");
        }
        if self.kms_key_id.is_some() != (self.encryption == Encryption::Kms) {
            violations.add(at("kms_key_id"), "must be set if and only if `encryption` is \"kms\"");
        }
        self.check_archive_storage_class(&at("archive_storage_class"), violations);
        if self.tags.len() > 10 {
            violations.add(at("tags"), format!("must have at most 10 entries, not {}", self.tags.len()));
        }
        violations.check_range(&at("connect_timeout_seconds"), self.connect_timeout_seconds, 1..=300);
        violations.check_range(&at("request_timeout_seconds"), self.request_timeout_seconds, 1..=3_600);
        let days = self.abandoned_multipart_days;
        violations.check_range(&at("abandoned_multipart_days"), days, 1..=ABANDONED_MULTIPART_DAYS_MAX);
    }

    fn check_archive_storage_class(&self, key: &str, violations: &mut Violations) {
        let Some(class) = self.archive_storage_class.as_deref() else { return };
        if !ARCHIVE_CLASSES.contains(&class) {
            let message = format!(
                "must be empty or one of {}, not `{class}`: objects of other classes, such as GLACIER and \
                 DEEP_ARCHIVE, cannot be read without a restore that takes hours",
                ARCHIVE_CLASSES.join(", ")
            );
            violations.add(key, message);
        } else if self.storage_class.as_deref() == Some(class) {
            violations.add(key, format!("must differ from `storage_class`; both are `{class}`"));
        }
    }

    /// Checks the bucket naming rules of S3. Otherwise an invalid name would fail only at the first upload,
    /// or at the first upload of a new tenant.
    fn check_bucket(&self, key: &str, violations: &mut Violations) {
        let name = self.bucket.as_str();
        if name.is_empty() {
            return violations.check_not_empty(key, name);
        }
        let (length_max, reason) = match self.bucket_per_tenant {
            true => (
                BUCKET_LENGTH_MAX - TENANT_SUFFIX_LENGTH,
                " (with `bucket_per_tenant`, 33 more are appended)",
            ),
            false => (BUCKET_LENGTH_MAX, ""),
        };
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_well_formed = name.chars().all(|c| is_plain(c) || c == '-' || c == '.')
            && name.starts_with(is_plain)
            && name.ends_with(is_plain)
            && !name.contains("..");
        if !is_well_formed || !(BUCKET_LENGTH_MIN..=length_max).contains(&name.len()) {
            let message = format!(
                "must have {BUCKET_LENGTH_MIN} to {length_max} characters{reason}: lower-case letters, digits, \"-\" \
                 and \".\", a letter or digit first and last, and no consecutive \".\"; not `{name}`"
            );
            violations.add(key, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn store_keeps_multiparts_longer_than_the_longest_lease() {
        let days = |lease_seconds: u64, configured: u32| {
            let uploads = UploadsConfig { lease_seconds, ..Config::defaults().unwrap().uploads };
            let s3 = S3Config { abandoned_multipart_days: configured, ..S3Config::defaults().unwrap() };
            let mut provider = ProviderConfig::S3(Box::new(s3));
            provider.keep_multiparts_for(&uploads);
            match provider {
                ProviderConfig::S3(s3) => s3.abandoned_multipart_days,
                other => panic!("expected a bucket, not {other:?}"),
            }
        };
        assert_eq!([days(86_400, 7), days(86_400, 1), days(86_401, 7), days(604_800, 7)], [7, 7, 8, 13]);
        assert_eq!(days(604_800, 30), 30, "a longer age is kept");
    }
}
