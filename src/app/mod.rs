//! The use cases. One verb, one file: the list of files is the list of features.
//!
//! The signature of a use case says who may call it: `&Caller` (someone in a tenant), `&Operator` (the platform's own
//! role), or [`Principal`] where both may. Effects are rows in the same transaction as the change: audit entries, events.

pub mod access;
pub mod error;
pub mod files;
pub mod quotas;
pub mod tenants;
pub mod uploads;

pub use error::{Credentials, Error};

use crate::domain::caller::{Caller, Operator};

/// Whoever a request comes from, verified.
#[derive(Debug, Clone)]
pub enum Principal {
    /// Someone in a tenant.
    Caller(Caller),
    /// The platform's operator.
    Operator(Operator),
}
