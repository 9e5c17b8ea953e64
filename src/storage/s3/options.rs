//! The options of an S3-compatible store.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

/// Address, credentials and capabilities of an S3-compatible store.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The URL of the store, such as `https://s3.example.org`. `None`: Amazon S3 in `region`.
    pub endpoint: Option<String>,
    /// The region used in request signatures.
    pub region: String,
    /// The bucket name, or the name prefix of the tenants' buckets.
    pub bucket: String,
    /// Uses a separate bucket for each tenant, `<bucket>-<tenant id without hyphens>`. It is created as a
    /// private bucket on the tenant's first write.
    pub bucket_per_tenant: bool,
    /// The age in days at which the store aborts incomplete multipart uploads. Set on each new tenant bucket.
    pub abandoned_multipart_days: Option<u32>,
    /// Puts the bucket name into the host name instead of the path.
    pub virtual_hosted_style: bool,
    pub credentials: S3Credentials,
    /// Whether request signatures cover the body.
    pub payload_signing: PayloadSigning,
    /// Encryption at rest by the store.
    pub encryption: Encryption,
    /// The storage class of new objects, such as `STANDARD_IA`. `None`: the default of the bucket.
    pub storage_class: Option<String>,
    /// The storage class of archived objects, which must allow immediate reads. `None`: archived objects keep
    /// their class.
    pub archive_storage_class: Option<String>,
    /// Tags of every new object.
    pub tags: Vec<(String, String)>,
    /// Sends `If-None-Match: *` with writes. Set it to false for stores that ignore this header; then the
    /// only protection against overwriting is that keys are never reused.
    pub conditional_writes: bool,
    /// Allows an endpoint with plain HTTP.
    pub allow_http: bool,
    /// The maximum time without a response, or without further bytes of a download.
    pub request_timeout: Duration,
    /// The maximum time to establish a connection.
    pub connect_timeout: Duration,
    /// A PEM file with certificate authorities to trust in addition to those of the system.
    pub ca_file: Option<PathBuf>,
}

/// The credentials of an S3-compatible store.
#[derive(Debug, Clone)]
pub enum S3Credentials {
    /// A fixed access key.
    Static {
        /// The id of the access key.
        access_key_id: String,
        /// The secret of the access key.
        secret_access_key: SecretString,
        /// The session token of temporary credentials.
        session_token: Option<SecretString>,
    },
    /// The credentials in the environment of the process: variables such as `AWS_ACCESS_KEY_ID`, a web
    /// identity token, or the metadata service of the container or instance.
    Environment,
}

/// Whether the request signature covers the body, which costs an additional SHA-256 of all data. Otherwise a
/// CRC-64 is sent, which the store verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PayloadSigning {
    /// Signs the body over plain HTTP, but not over TLS, which protects it.
    #[default]
    Auto,
    /// Always signs the body.
    Always,
    /// Never signs the body. Over plain HTTP, only the CRC protects it.
    Never,
}

/// Encryption at rest by the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encryption {
    /// Requests no encryption; the default of the bucket applies.
    #[default]
    None,
    /// Encrypts with a key that the store manages (SSE-S3).
    Aes256,
    /// Encrypts with a key of the key management service (SSE-KMS).
    Kms {
        /// The id or ARN of the key.
        key_id: String,
    },
}
