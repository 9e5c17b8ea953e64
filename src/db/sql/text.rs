//! SQL text with typed arguments. The text is constant or one of a few variants, and refers to its arguments
//! as `$1`, `$2` and so on; an argument may occur more than once.

use std::{borrow::Cow, marker::PhantomData};

use super::{Operation, query};
use diesel::{
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    result::QueryResult,
    serialize::ToSql,
    sql_types::{HasSqlType, Untyped},
};

/// SQL text with its arguments.
pub(in crate::db) struct SqlText {
    text: Cow<'static, str>,
    arguments: Vec<Box<dyn QueryFragment<Pg> + Send>>,
}

/// Creates a statement from SQL text. `operation` is the bare verb phrase that identifies it in errors and
/// traces.
pub(in crate::db) fn statement(
    operation: &'static str,
    text: impl Into<Cow<'static, str>>,
) -> Operation<SqlText> {
    query(operation, SqlText { text: text.into(), arguments: Vec::new() })
}

struct Argument<ST, T> {
    value: T,
    sql_type: PhantomData<fn() -> ST>,
}

impl<ST, T> QueryFragment<Pg> for Argument<ST, T>
where
    Pg: HasSqlType<ST>,
    T: ToSql<ST, Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param_value_only::<ST, T>(&self.value)
    }
}

impl QueryFragment<Pg> for SqlText {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(&self.text);
        self.arguments.iter().try_for_each(|argument| argument.walk_ast(out.reborrow()))
    }
}

impl QueryId for SqlText {
    type QueryId = ();
    // The statement cache uses the text as its key.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for SqlText {
    type SqlType = Untyped;
}

impl Operation<SqlText> {
    /// Adds the next argument: `$1`, then `$2`, and so on.
    pub(in crate::db) fn bind<ST, T>(mut self, value: T) -> Self
    where
        ST: 'static,
        Pg: HasSqlType<ST>,
        T: ToSql<ST, Pg> + Send + 'static,
    {
        let SqlText { text, arguments } = &mut self.query.query;
        arguments.push(Box::new(Argument::<ST, T> { value, sql_type: PhantomData }));
        let number = arguments.len();
        debug_assert!(text.contains(&format!("${number}")), "{}: the text has no ${number}", self.name);
        self
    }
}
