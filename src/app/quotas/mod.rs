//! What a tenant may store and what it stores.

pub mod get;
mod subject;
pub mod update;
pub mod usage;
