//! Changes of the usage that quotas count.

/// A change of usage and reservations, applied only if the result stays within the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaDelta {
    pub used_bytes: i64,
    pub reserved_bytes: i64,
    pub file_count: i64,
    pub reserved_file_count: i64,
}

impl QuotaDelta {
    /// One added file of `bytes`.
    pub fn for_added_file(bytes: i64) -> Self {
        Self { used_bytes: bytes, file_count: 1, ..Self::default() }
    }

    /// A change of the used bytes of existing files.
    pub fn for_bytes(bytes: i64) -> Self {
        Self { used_bytes: bytes, ..Self::default() }
    }

    /// One removed file of `bytes`.
    pub fn for_removed_file(bytes: i64) -> Self {
        Self::for_added_file(bytes).negated()
    }

    /// Returns the delta that reverts this one.
    #[must_use]
    pub fn negated(self) -> Self {
        Self {
            used_bytes: -self.used_bytes,
            reserved_bytes: -self.reserved_bytes,
            file_count: -self.file_count,
            reserved_file_count: -self.reserved_file_count,
        }
    }
}

/// A change of the usage of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDelta {
    pub user_id: String,
    pub delta: QuotaDelta,
}

impl UserDelta {
    /// Describes a change of the usage of a user.
    pub fn new(user_id: &str, delta: QuotaDelta) -> Self {
        Self { user_id: user_id.to_owned(), delta }
    }
}
