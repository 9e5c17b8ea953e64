//! The position of a blob in lists of blobs of all tenants.

use uuid::Uuid;

use crate::domain::ids::{BlobId, TenantId};

/// The position of a blob in a list that is ordered by (tenant, id).
#[derive(Debug, Clone, Copy)]
pub struct BlobPosition {
    pub tenant: TenantId,
    pub blob: BlobId,
}

impl BlobPosition {
    /// Returns the columns that rows after a position exceed; without a position, all rows do.
    pub(super) fn to_columns(after: Option<Self>) -> (Uuid, Uuid) {
        after.map_or((Uuid::nil(), Uuid::nil()), |after| (after.tenant.as_uuid(), after.blob.as_uuid()))
    }
}
