//! The reason why bytes do not fit the quota of a tenant, and the way to free bytes.

use std::fmt;

use crate::domain::quota::Quota;

/// The figures of a quota that bytes do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaShortage {
    pub needed_bytes: i64,
    pub used_bytes: i64,
    pub reserved_bytes: i64,
    pub limit_bytes: i64,
    /// The bytes that are pending deletion, if they are the reason.
    pub pending_deletion: Option<PendingDeletion>,
    /// The bytes of files in the trash that the caller may see. `None` if they are not known, or if the trash does
    /// not count against the quota.
    pub trash_bytes: Option<i64>,
}

/// Bytes of purged files and of replaced objects that are not deleted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingDeletion {
    pub bytes: i64,
    /// The number of such bytes that do not count against the limit.
    pub bytes_max: i64,
}

impl QuotaShortage {
    /// Describes the quota that `needed_bytes` do not fit.
    pub fn new(quota: &Quota, needed_bytes: i64) -> Self {
        let pending = PendingDeletion::of(quota);
        // A check of several uploads can need any number of bytes.
        let fits_limit =
            (quota.used_bytes + quota.reserved_bytes).saturating_add(needed_bytes) <= quota.limit_bytes;
        Self {
            needed_bytes,
            used_bytes: quota.used_bytes,
            reserved_bytes: quota.reserved_bytes,
            limit_bytes: quota.limit_bytes,
            pending_deletion: (fits_limit && pending.bytes > pending.bytes_max).then_some(pending),
            trash_bytes: None,
        }
    }

    /// Describes the quota of which too many bytes are pending deletion to store a copy of `needed_bytes`.
    pub fn of_pending_deletion(quota: &Quota, needed_bytes: u64) -> Self {
        let needed_bytes = i64::try_from(needed_bytes).unwrap_or(i64::MAX);
        let pending_deletion = Some(PendingDeletion::of(quota));
        Self {
            needed_bytes,
            used_bytes: quota.used_bytes,
            reserved_bytes: quota.reserved_bytes,
            limit_bytes: quota.limit_bytes,
            pending_deletion,
            trash_bytes: None,
        }
    }
}

impl PendingDeletion {
    fn of(quota: &Quota) -> Self {
        Self { bytes: quota.pending_deletion_bytes, bytes_max: quota.pending_deletion_bytes_max() }
    }
}

impl fmt::Display for QuotaShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed_bytes, used_bytes, reserved_bytes, limit_bytes, .. } = self;
        write!(
            f,
            "{needed_bytes} more bytes exceed the tenant's quota: {used_bytes} bytes used and {reserved_bytes} \
             reserved of {limit_bytes}"
        )?;
        if let Some(PendingDeletion { bytes, bytes_max }) = self.pending_deletion {
            write!(
                f,
                "; {bytes} bytes of purged files and replaced objects are not deleted yet, and only {bytes_max} of \
                 them do not count against the limit; wait, or ask the operator to reclaim them"
            )?;
        } else if let Some(trash_bytes) = self.trash_bytes.filter(|bytes| *bytes > 0) {
            write!(f, "; {trash_bytes} bytes of them are in the trash; purging those files frees them")?;
        }
        Ok(())
    }
}
