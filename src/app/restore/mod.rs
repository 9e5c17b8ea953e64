//! Compares the database with the stores after it was restored to an earlier time: the stores then have objects that
//! the database does not know, and may lack objects that the database needs.
//!
//! - [`check`] compares the database and the stores, both ways, and applies the decision of an operator about the
//!   objects of the lost hours.
//! - `readopt` makes such an object a file again, unless it is a copy of a stored version (`stored_copy`). `label`
//!   describes the file of each new object in its metadata, for that purpose.
//! - [`quarantine`] lists, releases and deletes the objects that an operator keeps.
//!
//! `app/owner/adopt.rs` records the lost hours. Until the decision, `app/owner` refuses all deletions.

pub mod check;
pub(in crate::app) mod label;
mod outcome;
pub mod quarantine;
mod readopt;
pub mod report;
mod stored_copy;
