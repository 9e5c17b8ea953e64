//! Uploads that are created before their bytes and can be resumed until they are committed, cancelled, or
//! idle for longer than the lease. Their rows contain everything another replica needs to resume them. A new
//! writer takes over the upload's lease and fences the previous writer.

pub mod cancel;
pub mod complete;
pub mod create;
pub mod get;
pub mod list;
pub mod resume;
pub mod upload_part;
