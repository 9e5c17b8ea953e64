//! Literals in SQL: the numbers of states, and shared pieces of SQL such as lists of columns.
//!
//! States are literals where a query needs a partial index: a plan for an argument cannot use one.

use diesel::{
    AppearsOnTable, Expression, SelectableExpression,
    expression::ValidGrouping,
    pg::Pg,
    query_builder::{AstPass, QueryFragment, QueryId},
    result::QueryResult,
    sql_types::SmallInt,
};

/// A value that SQL text may contain literally.
pub(in crate::db) trait InSql {
    /// Returns the text.
    fn in_sql(&self) -> String;
}

/// A list of columns, or another piece of SQL.
impl InSql for &'static str {
    fn in_sql(&self) -> String {
        (*self).to_owned()
    }
}

/// Builds SQL text once, and returns it as `&'static str`. Replaces each `{name}` with the value of that name:
/// the number of a state, or a piece of SQL. Arguments of the statement are `$1`, `$2` and so on.
macro_rules! sql {
    ($text:literal, $($name:ident = $value:expr),+ $(,)?) => {{
        static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            format!($text, $($name = $crate::db::sql::InSql::in_sql(&$value)),+)
        });
        TEXT.as_str()
    }};
}

pub(in crate::db) use sql;

/// The number of a state as a literal in a query of the query builder.
#[derive(Debug, Clone, Copy, QueryId, ValidGrouping)]
pub(in crate::db) struct StateLiteral<const NUMBER: i16>;

impl<const NUMBER: i16> Expression for StateLiteral<NUMBER> {
    type SqlType = SmallInt;
}

impl<T, const NUMBER: i16> AppearsOnTable<T> for StateLiteral<NUMBER> {}

impl<T, const NUMBER: i16> SelectableExpression<T> for StateLiteral<NUMBER> {}

impl<const NUMBER: i16> QueryFragment<Pg> for StateLiteral<NUMBER> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(&NUMBER.to_string());
        Ok(())
    }
}

/// Writes a state into the text of a query of the query builder: `literal!(UploadState::Open)`.
macro_rules! literal {
    ($state:expr) => {
        $crate::db::sql::StateLiteral::<{ $state.number() }>
    };
}

pub(in crate::db) use literal;
