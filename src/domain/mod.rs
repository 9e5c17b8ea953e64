//! The domain rules: pure functions and types without I/O and async. They import no other module of this
//! crate. Time and random values are passed in.

pub mod byte_range;
pub mod caller;
pub mod checksum;
pub mod clock;
pub mod digest;
pub mod encoded_size;
pub mod error_text;
pub mod event_position;
pub mod file;
pub mod file_fields;
pub mod file_list;
pub mod file_transitions;
pub mod file_update;
pub mod ids;
pub mod import_origin;
pub mod media_type;
pub mod object_key;
pub mod outgoing_address;
pub mod percent;
pub mod policy;
pub mod principal;
pub mod quota;
pub mod sql_enum;
pub mod storage_class;
pub mod tenant_record;
pub mod text;
pub mod upload;
pub mod upload_destination;
pub mod upload_spec;
pub mod violations;
pub mod webhook;
