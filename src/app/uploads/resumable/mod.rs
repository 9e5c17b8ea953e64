//! Uploads that are created before their bytes and can be resumed until they are committed, cancelled, or
//! idle for longer than the lease. Their rows contain everything that another process needs to resume them.

pub(super) mod cancel;
pub(super) mod complete;
pub(super) mod create;
pub(super) mod get;
pub(super) mod list;
pub(super) mod resume;
pub(super) mod upload_part;
