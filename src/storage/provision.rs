//! A store as a whole: what it can do, how much room it has, and how it is made ready.

/// Which promises the store keeps by itself and what it offers beyond them. See the [module](super).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// A write refuses a key that is taken. Where this is false, nothing guards against overwriting but that
    /// keys are minted once.
    pub conditional_writes: bool,
    /// [`presign`](super::ObjectStorage::presign) gives URLs.
    pub presigned_urls: bool,
    /// What is put or copied in the class [`Archive`](crate::domain::storage_class::StorageClass::Archive) is kept in a class
    /// of its own, and can be read at once there.
    pub storage_classes: bool,
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What can still be written.
    pub free_bytes: u64,
    /// What there is in all.
    pub total_bytes: u64,
}

/// How the store shall be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// The store itself gives multipart uploads up that are older than so many days. A second net below our own
    /// sweeping; absent: no such rule is made.
    pub abort_incomplete_after_days: Option<u32>,
}

/// What was found and done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// In order.
    pub steps: Vec<InitStep>,
}

/// One thing that a store needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct InitStep {
    /// What it is: `bucket strongroom`.
    pub subject: String,
    /// What became of it.
    pub outcome: InitOutcome,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InitOutcome {
    /// It was made.
    Done,
    /// It was there.
    AlreadyThere,
    /// The store does not know such a thing, or does not let us; the reason is here. Nothing depends on it.
    Unsupported(String),
}

impl InitReport {
    /// A report of one step.
    pub(super) fn of(subject: impl Into<String>, outcome: InitOutcome) -> Self {
        Self { steps: vec![InitStep { subject: subject.into(), outcome }] }
    }
}
