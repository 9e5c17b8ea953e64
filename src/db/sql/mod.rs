//! How queries are written, run and named.
//!
//! Queries of one or two tables use diesel's query builder over [`super::schema`]; the compiler checks their
//! tables, columns and types. SQL text is for what the query builder cannot say or says slower: see
//! [`statement`]. Both are prepared once per connection, and both run under the name of their operation.

mod functions;
mod operation;
mod state_numbers;
mod tenant_table;
mod text;
pub(super) mod types;

pub(super) use functions::*;
pub(super) use operation::{Operation, query};
pub(super) use state_numbers::{InSql, StateLiteral, literal, sql};
pub(super) use tenant_table::{AcrossTenants, OfTenant, tenant_tables};
pub(super) use text::{SqlText, statement};
