//! `[storage.providers.<name>]`: one store, its kind told by `adapter`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, de::DeserializeOwned};
use toml::{Table, Value};
use url::Url;

use super::{
    error::ConfigError,
    schema,
    validation::Violations,
    values::{no_secret_if_empty, no_url_if_empty, none_if_empty},
};

/// The shortest name of a bucket, in S3.
const BUCKET_LENGTH_MIN: usize = 3;
/// The longest.
const BUCKET_LENGTH_MAX: usize = 63;
/// What a tenant's bucket has besides: a hyphen and the tenant's id without hyphens.
const TENANT_SUFFIX_LENGTH: usize = 33;

/// The storage classes that archived bytes may be kept in: those whose objects are read at once.
const ARCHIVE_CLASSES: [&str; 4] = ["STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];

/// One provider.
#[derive(Debug, Clone)]
pub enum ProviderConfig {
    /// A directory of this machine.
    Local(LocalConfig),
    /// This process; gone when it ends.
    Memory,
    /// Nowhere: most bytes are discarded. For the load command.
    Discard,
    /// A bucket.
    S3(Box<S3Config>),
}

/// A directory of this machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalConfig {
    /// The directory; without it there is no such provider.
    #[serde(deserialize_with = "none_if_empty")]
    pub root: Option<PathBuf>,
}

/// A bucket of an S3-compatible store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// The store's address; none is Amazon's own in the region.
    #[serde(deserialize_with = "no_url_if_empty")]
    pub endpoint: Option<Url>,
    /// Whether the endpoint may be http.
    pub allow_http: bool,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket, or what the name of every tenant's bucket begins with.
    pub bucket: String,
    /// Whether every tenant has a bucket of its own.
    pub bucket_per_tenant: bool,
    /// Whether the bucket's name goes into the host's name.
    pub virtual_hosted_style: bool,
    /// Who signs; none takes the environment's credentials.
    #[serde(deserialize_with = "none_if_empty")]
    pub access_key_id: Option<String>,
    /// Its key.
    #[serde(deserialize_with = "no_secret_if_empty")]
    pub secret_access_key: Option<SecretString>,
    /// The token of temporary credentials.
    #[serde(deserialize_with = "no_secret_if_empty")]
    pub session_token: Option<SecretString>,
    /// Whether the signature covers the bytes.
    pub payload_signing: PayloadSigning,
    /// Encryption at rest by the store.
    pub encryption: Encryption,
    /// The key of [`Encryption::Kms`].
    #[serde(deserialize_with = "none_if_empty")]
    pub kms_key_id: Option<String>,
    /// The storage class of new objects; none is the bucket's own.
    #[serde(deserialize_with = "none_if_empty")]
    pub storage_class: Option<String>,
    /// The storage class of what is archived; none leaves it where it is.
    #[serde(deserialize_with = "none_if_empty")]
    pub archive_storage_class: Option<String>,
    /// Tags of new objects.
    pub tags: BTreeMap<String, String>,
    /// Whether the store refuses to overwrite when it is asked to.
    pub conditional_writes: bool,
    /// Time to connect, in seconds.
    pub connect_timeout_seconds: u64,
    /// Time without an answer, in seconds.
    pub request_timeout_seconds: u64,
    /// Authorities to trust besides the system's.
    #[serde(deserialize_with = "none_if_empty")]
    pub ca_file: Option<PathBuf>,
    /// When the store removes multipart uploads that nobody finished, in days.
    pub abandoned_multipart_days: u32,
}

/// Whether the signature of a request covers its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadSigning {
    /// Over http, but not over https.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Encryption at rest by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encryption {
    /// None is asked for.
    None,
    /// With the store's own keys.
    Aes256,
    /// With a key of the store's key service.
    Kms,
}

impl ProviderConfig {
    /// Reads a table that has been checked against its adapter's keys.
    pub(super) fn read(mut table: Table) -> Result<Self, toml::de::Error> {
        match table.remove("adapter").as_ref().and_then(Value::as_str) {
            Some("local") => keys(table).map(Self::Local),
            Some("discard") => Ok(Self::Discard),
            Some("s3") => keys(table).map(|s3| Self::S3(Box::new(s3))),
            _ => Ok(Self::Memory),
        }
    }

    pub(super) fn check(&self, key: &str, violations: &mut Violations) {
        if let Self::S3(s3) = self {
            s3.check(key, violations);
        }
    }

    /// Whether both keep their bytes in one directory or one bucket, as far as their settings tell.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(two)) => one.root.is_some() && one.root == two.root,
            (Self::S3(one), Self::S3(two)) => {
                !one.bucket.is_empty() && one.bucket == two.bucket && one.endpoint == two.endpoint
            }
            _ => false,
        }
    }
}

fn keys<T: DeserializeOwned>(table: Table) -> Result<T, toml::de::Error> {
    Value::Table(table).try_into()
}

impl LocalConfig {
    pub(super) fn check_root(&self, key: &str, violations: &mut Violations) {
        if self.root.is_none() {
            let message = "is required: the directory to keep bytes in";
            violations.refuse(format!("{key}.root"), message);
        }
    }
}

impl S3Config {
    /// The defaults of the reference, for whoever sets the rest by hand; there is no bucket yet.
    ///
    /// # Errors
    /// Only if the compiled-in `default.toml` were wrong, which a test excludes.
    pub fn defaults() -> Result<Self, ConfigError> {
        match schema::s3_keys().map(ProviderConfig::read) {
            Some(Ok(ProviderConfig::S3(s3))) => Ok(*s3),
            _ => Err(ConfigError::Refused(Vec::new())),
        }
    }

    /// Time to connect.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_seconds)
    }

    /// Time without an answer.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    fn check(&self, key: &str, violations: &mut Violations) {
        let at = |name: &str| format!("{key}.{name}");
        violations.not_empty(&at("region"), &self.region);
        self.check_bucket(&at("bucket"), violations);
        if let Some(endpoint) = &self.endpoint {
            match endpoint.scheme() {
                "https" => {}
                "http" if self.allow_http => {}
                "http" => violations.refuse(at("endpoint"), "is http: use https, or set `allow_http`"),
                _ => violations.refuse(at("endpoint"), "must be an https or http URL"),
            }
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            violations.refuse(key, "needs both of `access_key_id` and `secret_access_key`, or neither");
        }
        if self.session_token.is_some() && self.access_key_id.is_none() {
            violations.refuse(at("session_token"), "belongs to an `access_key_id`, which is not set");
        }
        if self.kms_key_id.is_some() != (self.encryption == Encryption::Kms) {
            violations.refuse(at("kms_key_id"), "belongs to `encryption` = \"kms\": both or neither");
        }
        self.check_archive_class(&at("archive_storage_class"), violations);
        if self.tags.len() > 10 {
            violations.refuse(at("tags"), format!("may be 10 at most, not {}", self.tags.len()));
        }
        violations.range(&at("connect_timeout_seconds"), self.connect_timeout_seconds, 1..=300);
        violations.range(&at("request_timeout_seconds"), self.request_timeout_seconds, 1..=3_600);
        violations.range(&at("abandoned_multipart_days"), self.abandoned_multipart_days, 1..=365);
    }

    fn check_archive_class(&self, key: &str, violations: &mut Violations) {
        let Some(class) = self.archive_storage_class.as_deref() else { return };
        if !ARCHIVE_CLASSES.contains(&class) {
            let message = format!(
                "must be empty or one of {}, not `{class}`: objects of other classes, such as GLACIER and DEEP_ARCHIVE, \
                 cannot be read without a restore of hours, and whoever unarchives a file or checks it reads them",
                ARCHIVE_CLASSES.join(", ")
            );
            violations.refuse(key, message);
        } else if self.storage_class.as_deref() == Some(class) {
            violations.refuse(key, "is `storage_class` already: leave it out, there is nothing to move");
        }
    }

    /// The rules of S3 itself: a name that breaks them fails at the first upload, or only at that of a new tenant.
    fn check_bucket(&self, key: &str, violations: &mut Violations) {
        let name = self.bucket.as_str();
        if name.is_empty() {
            return violations.not_empty(key, name);
        }
        let (length_max, why) = match self.bucket_per_tenant {
            true => (BUCKET_LENGTH_MAX - TENANT_SUFFIX_LENGTH, " (with `bucket_per_tenant`, 33 more follow)"),
            false => (BUCKET_LENGTH_MAX, ""),
        };
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_well_formed = name.chars().all(|c| is_plain(c) || c == '-' || c == '.')
            && name.starts_with(is_plain)
            && name.ends_with(is_plain)
            && !name.contains("..");
        if !is_well_formed || !(BUCKET_LENGTH_MIN..=length_max).contains(&name.len()) {
            let message = format!(
                "must have {BUCKET_LENGTH_MIN} to {length_max} characters{why}: lower-case letters, digits, \"-\" and \".\", \
                 a letter or digit first and last, no two \".\" together"
            );
            violations.refuse(key, message);
        }
    }
}
