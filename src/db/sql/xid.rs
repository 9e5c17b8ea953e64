//! Transaction ids: the type of their columns, and their values.

use diesel::{query_builder::QueryId, sql_types::SqlType};

/// A 64-bit transaction id.
#[derive(Debug, Clone, Copy, QueryId, SqlType)]
#[diesel(postgres_type(oid = 5069, array_oid = 271))]
#[allow(unreachable_pub, reason = "the tables of the schema are public items with columns of this type")]
pub struct Xid8;

/// The id of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::db) struct Xid(pub(in crate::db) u64);
