//! What a tenant may store and what it stores.

pub mod get;
pub(super) mod recent;
pub(super) mod subject;
pub mod update;
pub mod usage;
