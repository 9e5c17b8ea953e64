//! SQL statements with typed binds, prepared once per connection.
//!
//! Diesel's `sql_query` prepares a statement for every call, which takes a third of the time of a short
//! statement. This type works the same but uses the statement cache. The text is constant or one of a few
//! variants; each `{}` in it is a bind.

use std::{borrow::Cow, marker::PhantomData};

use diesel::{
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    result::QueryResult,
    serialize::ToSql,
    sql_types::{HasSqlType, Untyped},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, methods::LoadQuery};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};

use tracing::{Instrument as _, info_span};

use super::DbError;

/// A statement with its binds.
pub(super) struct Statement {
    operation: &'static str,
    sql: Cow<'static, str>,
    binds: Vec<Box<dyn QueryFragment<Pg> + Send>>,
    is_cached: bool,
}

/// Creates a statement. `operation` is the bare verb phrase that identifies it in errors and traces.
pub(super) fn statement(operation: &'static str, sql: impl Into<Cow<'static, str>>) -> Statement {
    Statement { operation, sql: sql.into(), binds: Vec::new(), is_cached: true }
}

struct Bind<ST, T> {
    value: T,
    sql_type: PhantomData<fn() -> ST>,
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

impl QueryFragment<Pg> for Statement {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if !self.is_cached {
            out.unsafe_to_cache_prepared();
        }
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

impl QueryId for Statement {
    type QueryId = ();
    // The statement cache uses the text as its key.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement {
    type SqlType = Untyped;
}

impl Statement {
    /// Excludes the statement from the cache. For SQL with too many variants to keep them all prepared.
    pub(super) fn uncached(mut self) -> Self {
        self.is_cached = false;
        self
    }

    /// Binds the next `{}`.
    pub(super) fn bind<ST, T>(mut self, value: T) -> Self
    where
        ST: 'static,
        Pg: HasSqlType<ST>,
        T: ToSql<ST, Pg> + Send + 'static,
    {
        self.binds.push(Box::new(Bind::<ST, T> { value, sql_type: PhantomData }));
        self
    }

    /// Executes the statement and returns its rows.
    ///
    /// The futures are boxed, because the compiler fails to prove that the deeply nested types of the driver
    /// are `Send`.
    pub(super) fn load<T>(self, connection: &mut AsyncPgConnection) -> BoxFuture<'_, Result<Vec<T>, DbError>>
    where
        T: Send + 'static,
        Self: LoadQuery<'static, AsyncPgConnection, T>,
    {
        let operation = self.operation;
        debug_assert_eq!(self.sql.matches("{}").count(), self.binds.len(), "{operation}");
        let rows = RunQueryDsl::load(self, connection);
        rows.map_err(move |error| DbError::from_driver(operation, error))
            .instrument(info_span!("sql", operation))
            .boxed()
    }

    /// Executes the statement and returns its first row, if there is one.
    pub(super) fn first<T>(
        self,
        connection: &mut AsyncPgConnection,
    ) -> BoxFuture<'_, Result<Option<T>, DbError>>
    where
        T: Send + 'static,
        Self: LoadQuery<'static, AsyncPgConnection, T>,
    {
        self.load(connection).map_ok(|rows| rows.into_iter().next()).boxed()
    }

    /// Executes the statement and returns its only row. A missing row is an error.
    pub(super) fn one<T>(self, connection: &mut AsyncPgConnection) -> BoxFuture<'_, Result<T, DbError>>
    where
        T: Send + 'static,
        Self: LoadQuery<'static, AsyncPgConnection, T>,
    {
        let operation = self.operation;
        let only = move |row: Option<T>| row.ok_or_else(|| DbError::corrupt(operation, "missing row"));
        self.first(connection).map(move |row| row.and_then(only)).boxed()
    }

    /// Executes the statement and returns the number of affected rows.
    pub(super) fn execute(self, connection: &mut AsyncPgConnection) -> BoxFuture<'_, Result<usize, DbError>> {
        let operation = self.operation;
        debug_assert_eq!(self.sql.matches("{}").count(), self.binds.len(), "{operation}");
        let count = RunQueryDsl::execute(self, connection);
        count
            .map_err(move |error| DbError::from_driver(operation, error))
            .instrument(info_span!("sql", operation))
            .boxed()
    }
}
