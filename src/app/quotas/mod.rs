//! What a tenant may store and what it stores.

pub mod get;
pub(super) mod recent;
mod subject;
pub mod update;
pub mod usage;
