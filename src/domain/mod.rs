//! The rules of the business, pure: no I/O, no async, nothing of ours imported. Time and randomness come in as values.

pub mod clock;
pub mod ids;
pub mod object_key;
