//! How queries are written, run and named.
//!
//! Queries of one or two tables use diesel's query builder over [`super::schema`]; the compiler checks their
//! tables, columns and types. SQL text is for statements that the query builder cannot express, or that are
//! slower with it; see `docs/decisions/0006-diesel-dsl-and-where-not.md`. Both are prepared once per connection,
//! and both run under the name of their operation.

mod functions;
mod literals;
mod operation;
mod readable;
mod stored_time;
mod tenant_table;
mod text;
mod types;
pub(super) mod xid;

pub(super) use functions::*;
pub(super) use literals::{InSql, StateLiteral, literal, sql};
pub(super) use operation::{Operation, query};
pub(super) use readable::{Damage, JsonEntries, Readable};
pub(super) use stored_time::StoredTime;
pub(super) use tenant_table::{AcrossTenants, OfTenant, tenant_tables};
pub(super) use text::{SqlText, statement};
