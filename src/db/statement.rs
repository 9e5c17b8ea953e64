//! SQL as we write it, with typed binds, and prepared once per connection.
//!
//! diesel's own `sql_query` is prepared anew at every call, which costs a third of a short statement. This is the same
//! with the cache on: the text is constant (or one of few shapes), every `{}` in it is a bind, in order.

use std::borrow::Cow;

use diesel::{
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    result::QueryResult,
    serialize::ToSql,
    sql_types::{HasSqlType, Untyped},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, methods::LoadQuery};

use super::DbError;

/// A statement with its binds.
pub(super) struct Statement<'a> {
    operation: &'static str,
    sql: Cow<'static, str>,
    binds: Vec<Box<dyn QueryFragment<Pg> + Send + 'a>>,
}

/// Writes a statement. `operation` is the bare verb phrase that errors and traces carry.
pub(super) fn statement<'a>(operation: &'static str, sql: impl Into<Cow<'static, str>>) -> Statement<'a> {
    Statement { operation, sql: sql.into(), binds: Vec::new() }
}

struct Bind<ST, T> {
    value: T,
    sql_type: std::marker::PhantomData<fn() -> ST>,
}

impl<ST, T> QueryFragment<Pg> for Bind<ST, T>
where
    Pg: HasSqlType<ST>,
    T: ToSql<ST, Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_bind_param::<ST, T>(&self.value)
    }
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut pieces = self.sql.split("{}");
        if let Some(first) = pieces.next() {
            out.push_sql(first);
        }
        for (bind, piece) in self.binds.iter().zip(pieces) {
            bind.walk_ast(out.reborrow())?;
            out.push_sql(piece);
        }
        Ok(())
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    // The cache is keyed by the text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

impl<'a> Statement<'a> {
    /// Binds the next `{}`.
    pub(super) fn bind<ST, T>(mut self, value: T) -> Self
    where
        ST: 'static,
        Pg: HasSqlType<ST>,
        T: ToSql<ST, Pg> + Send + 'a,
    {
        self.binds.push(Box::new(Bind::<ST, T> { value, sql_type: std::marker::PhantomData }));
        self
    }

    /// Runs it and returns its rows.
    pub(super) async fn load<T>(self, connection: &mut AsyncPgConnection) -> Result<Vec<T>, DbError>
    where
        T: Send,
        Self: for<'q> LoadQuery<'q, AsyncPgConnection, T>,
    {
        let operation = self.operation;
        debug_assert_eq!(self.sql.matches("{}").count(), self.binds.len(), "{operation}");
        RunQueryDsl::load(self, connection).await.map_err(|error| DbError::from_driver(operation, error))
    }

    /// Runs it and returns its row, if there is one.
    pub(super) async fn first<T>(self, connection: &mut AsyncPgConnection) -> Result<Option<T>, DbError>
    where
        T: Send,
        Self: for<'q> LoadQuery<'q, AsyncPgConnection, T>,
    {
        Ok(self.load(connection).await?.into_iter().next())
    }

    /// Runs it and returns its only row.
    pub(super) async fn one<T>(self, connection: &mut AsyncPgConnection) -> Result<T, DbError>
    where
        T: Send,
        Self: for<'q> LoadQuery<'q, AsyncPgConnection, T>,
    {
        let operation = self.operation;
        self.first(connection).await?.ok_or_else(|| DbError::corrupt(operation, "absence of a row"))
    }

    /// Runs it and returns how many rows it touched.
    pub(super) async fn execute(self, connection: &mut AsyncPgConnection) -> Result<usize, DbError> {
        let operation = self.operation;
        debug_assert_eq!(self.sql.matches("{}").count(), self.binds.len(), "{operation}");
        RunQueryDsl::execute(self, connection).await.map_err(|error| DbError::from_driver(operation, error))
    }
}
