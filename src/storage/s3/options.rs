//! What must be known about an S3-compatible store before it can be used.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

/// Which store, how to be let in, and what it can do.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Its address, such as `https://s3.example.org`. Absent: Amazon's own of the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The name of the bucket, or what the names of the tenants' buckets begin with.
    pub bucket: String,
    /// A bucket for each tenant, `<bucket>-<tenant id without hyphens>`, made private at the first write.
    pub bucket_per_tenant: bool,
    /// The store gives up multipart uploads of this age, in days: a rule that a tenant's new bucket gets at once.
    pub abandoned_multipart_days: Option<u32>,
    /// The bucket stands in the host name rather than in the path.
    pub virtual_hosted_style: bool,
    /// How to be let in.
    pub credentials: S3Credentials,
    /// Whether the signature covers the bytes.
    pub payload_signing: PayloadSigning,
    /// How the store encrypts what it keeps.
    pub encryption: Encryption,
    /// A storage class such as `STANDARD_IA`; absent: the bucket's own.
    pub storage_class: Option<String>,
    /// The class of what is archived, whose objects can be read at once; absent: there is none.
    pub archive_storage_class: Option<String>,
    /// Tags for every object.
    pub tags: Vec<(String, String)>,
    /// Writes say `If-None-Match: *`. Turn it off for stores that ignore that: then nothing guards against
    /// overwriting but that keys are minted once.
    pub conditional_writes: bool,
    /// Allows an address that begins with `http://`.
    pub allow_http: bool,
    /// The longest wait for an answer, and for the next bytes of a download.
    pub request_timeout: Duration,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// A file of certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// How to be let in.
#[derive(Debug, Clone)]
pub enum S3Credentials {
    /// A key.
    Static {
        /// Its id.
        access_key_id: String,
        /// Its secret.
        secret_access_key: SecretString,
        /// What comes with a key that was lent for a while.
        session_token: Option<SecretString>,
    },
    /// What the process finds around it: `AWS_ACCESS_KEY_ID` and its like, a web identity's token, a container's
    /// or an instance's metadata service.
    Environment,
}

/// Whether the signature covers the bytes, which costs a second SHA-256 of everything. Where it does not, a
/// CRC-64 goes along that the store compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PayloadSigning {
    /// Over plain HTTP, not over TLS, which guards the bytes itself.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never: on a plain connection only the CRC guards the bytes.
    Never,
}

/// How the store encrypts what it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encryption {
    /// As the bucket is set up.
    #[default]
    None,
    /// With a key of the store's own (SSE-S3).
    Aes256,
    /// With a key of the key management service (SSE-KMS).
    Kms {
        /// Its id or ARN.
        key_id: String,
    },
}
