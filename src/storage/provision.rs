//! Capabilities, free space and initialization of a store.

use std::fmt;

/// The guarantees and optional features that a store supports. See the [module](super).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether a write fails if an object with the key exists. If false, the only protection against
    /// overwriting is that a key is generated once and never reused.
    pub conditional_writes: bool,
    /// [`presign`](super::ObjectStorage::presign) returns URLs.
    pub presigned_urls: bool,
    /// Objects that are put or copied with the class
    /// [`Archive`](crate::domain::storage_class::StorageClass::Archive) are stored in a separate storage
    /// class, from which they can be read without delay.
    pub storage_classes: bool,
}

/// The free and the total space of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free space in bytes.
    pub free_bytes: u64,
    /// Total space in bytes.
    pub total_bytes: u64,
}

/// Options of [`initialize`](super::ObjectStorage::initialize).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// The age in days at which the store aborts incomplete multipart uploads by itself. This is a safeguard
    /// in addition to the sweeping of Strongroom. `None` creates no such rule.
    pub abort_incomplete_after_days: Option<u32>,
}

/// The result of an initialization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// The steps in the order in which they were performed.
    pub steps: Vec<InitStep>,
}

/// One step of an initialization.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct InitStep {
    /// The resource, such as `bucket strongroom`.
    pub subject: String,
    /// The result of the step.
    pub outcome: InitOutcome,
}

/// The result of an initialization step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InitOutcome {
    /// The resource was created or changed.
    Done,
    /// The resource already existed and was left unchanged.
    AlreadyExists,
    /// The store has a setting that the operator should know; contains its effect.
    Noted(String),
    /// The store does not support the resource or denies access to it; contains the reason. The resource is
    /// optional.
    Unsupported(String),
}

/// A bucket whose settings can keep the bytes of deleted objects.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BucketProtection {
    /// The name of the bucket.
    pub bucket: String,
    /// Whether the bucket keeps the former versions of its objects, or kept them before.
    pub has_versions: bool,
    /// Whether the bucket can lock versions against deletion.
    pub has_object_lock: bool,
}

/// Formats what stays after a deletion, and what the operator can do.
impl fmt::Display for BucketProtection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.has_object_lock {
            true => f.write_str(
                "object lock: the bytes of a deleted object stay until its lock ends, and after that until a \
                 lifecycle rule with NoncurrentVersionExpiration deletes them",
            ),
            false => f.write_str(
                "versioning: a deletion deletes every version of its object, which needs the permissions \
                 s3:ListBucketVersions and s3:DeleteObjectVersion; without them the bytes stay",
            ),
        }
    }
}

impl InitReport {
    /// Creates a report with a single step.
    pub(super) fn single_step(subject: impl Into<String>, outcome: InitOutcome) -> Self {
        Self { steps: vec![InitStep { subject: subject.into(), outcome }] }
    }
}
