//! The rules of the business, pure: no I/O, no async, nothing of ours imported. Time and randomness come in as values.

pub mod byte_range;
pub mod caller;
pub mod checksum;
pub mod clock;
pub mod digest;
pub mod event_position;
pub mod file;
pub mod file_fields;
pub mod file_list;
pub mod file_moves;
pub mod file_update;
pub mod ids;
pub mod imported;
pub mod media_type;
pub mod object_key;
pub mod outgoing_address;
pub mod policy;
pub mod principal;
pub mod quota;
pub mod sql_enum;
pub mod tenant_record;
pub mod text;
pub mod upload;
pub mod upload_spec;
pub mod violations;
pub mod webhook;
