//! The generated code of `proto/`, its codec, and the descriptor set that reflection serves.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code keeps its own style"
)]

pub mod codec;
pub mod struct_limits;
pub mod wire;

/// `strongroom.v1`, the data plane.
pub mod v1 {
    tonic::include_proto!("strongroom.v1");
}

/// What operators call.
pub mod admin {
    /// `strongroom.admin.v1`, the life of tenants.
    pub mod v1 {
        tonic::include_proto!("strongroom.admin.v1");
    }
}

/// Every file of `proto/` with its imports and comments, as an encoded `FileDescriptorSet`.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.binpb"));
