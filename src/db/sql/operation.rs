//! Running a query under the name of its operation.

use diesel::{
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    result::QueryResult,
};
use diesel_async::{
    AsyncPgConnection, RunQueryDsl,
    methods::{ExecuteDsl, LoadQuery},
};
use futures::{FutureExt as _, TryFutureExt as _, future::BoxFuture};
use tracing::{Instrument as _, info_span};

use crate::db::DbError;

/// A query, and the bare verb phrase that identifies it in errors and traces.
pub(in crate::db) struct Operation<Q> {
    pub(super) name: &'static str,
    pub(super) query: Prepared<Q>,
}

/// Names a query of the query builder.
pub(in crate::db) fn query<Q>(operation: &'static str, query: Q) -> Operation<Q> {
    Operation { name: operation, query: Prepared { query, is_cached: true } }
}

/// A query that is prepared once per connection, unless it is [`uncached`](Operation::uncached).
///
/// Diesel prepares some queries for every call, among them all
/// updates and upserts, because their text may vary without limit. Ours have few variants, and preparing
/// takes a third of the time of a short statement.
pub(in crate::db) struct Prepared<Q> {
    pub(super) query: Q,
    is_cached: bool,
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Prepared<Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.query.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &Pg) -> QueryResult<bool> {
        Ok(self.is_cached)
    }
}

impl<Q: QueryId> QueryId for Prepared<Q> {
    type QueryId = Q::QueryId;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}

impl<Q: Query> Query for Prepared<Q> {
    type SqlType = Q::SqlType;
}

/// The futures are boxed, because the compiler fails to prove that the deeply nested types of the driver are
/// `Send`.
impl<Q> Operation<Q> {
    /// Prepares the query for every call. For queries with too many variants to keep them all prepared.
    pub(in crate::db) fn uncached(mut self) -> Self {
        self.query.is_cached = false;
        self
    }

    /// Runs the query and returns its rows.
    pub(in crate::db) fn load<'a, T>(
        self,
        connection: &'a mut AsyncPgConnection,
    ) -> BoxFuture<'a, Result<Vec<T>, DbError>>
    where
        T: Send + 'a,
        Prepared<Q>: LoadQuery<'a, AsyncPgConnection, T> + 'a,
    {
        let Self { name, query } = self;
        RunQueryDsl::load(query, connection)
            .map_err(move |error| DbError::from_driver(name, error))
            .instrument(info_span!("sql", operation = name))
            .boxed()
    }

    /// Runs the query and returns its first row, if there is one.
    pub(in crate::db) fn first<'a, T>(
        self,
        connection: &'a mut AsyncPgConnection,
    ) -> BoxFuture<'a, Result<Option<T>, DbError>>
    where
        T: Send + 'a,
        Prepared<Q>: LoadQuery<'a, AsyncPgConnection, T> + 'a,
    {
        self.load(connection).map_ok(|rows| rows.into_iter().next()).boxed()
    }

    /// Runs the query and returns its first row. A missing row is an error.
    pub(in crate::db) fn one<'a, T>(
        self,
        connection: &'a mut AsyncPgConnection,
    ) -> BoxFuture<'a, Result<T, DbError>>
    where
        T: Send + 'a,
        Prepared<Q>: LoadQuery<'a, AsyncPgConnection, T> + 'a,
    {
        let name = self.name;
        let only = move |row: Option<T>| row.ok_or_else(|| DbError::corrupt(name, "missing row"));
        self.first(connection).map(move |row| row.and_then(only)).boxed()
    }

    /// Runs the query and returns the number of affected rows.
    pub(in crate::db) fn execute<'a>(
        self,
        connection: &'a mut AsyncPgConnection,
    ) -> BoxFuture<'a, Result<usize, DbError>>
    where
        Prepared<Q>: ExecuteDsl<AsyncPgConnection> + 'a,
    {
        let Self { name, query } = self;
        RunQueryDsl::execute(query, connection)
            .map_err(move |error| DbError::from_driver(name, error))
            .instrument(info_span!("sql", operation = name))
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use diesel::ExpressionMethods as _;

    use super::*;
    use crate::db::{
        schema::schedules,
        sql::{now, statement},
    };

    #[test]
    fn updates_and_texts_are_prepared_once() {
        let update = || diesel::update(schedules::table).set(schedules::next_time.eq(now()));
        assert!(!update().is_safe_to_cache_prepared(&Pg).unwrap(), "diesel prepares updates for every call");
        assert!(query("x", update()).query.is_safe_to_cache_prepared(&Pg).unwrap());
        assert!(!query("x", update()).uncached().query.is_safe_to_cache_prepared(&Pg).unwrap());
        assert!(statement("x", "SELECT 1").query.is_safe_to_cache_prepared(&Pg).unwrap());
    }
}
