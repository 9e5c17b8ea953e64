//! Functions and operators of the database that the query builder does not know.

use diesel::{
    expression::AsExpression,
    pg::{Pg, data_types::PgInterval},
    sql_types::{
        BigInt, Binary, Bool, Integer, Interval, Nullable, SingleValue, SqlType, Text, Timestamptz,
        Uuid as SqlUuid,
    },
};

use super::xid::Xid8;

#[diesel::declare_sql_function]
extern "SQL" {
    /// The time of the transaction, by the database's clock.
    #[sql_name = "app.now"]
    fn now() -> Timestamptz;

    /// The first of two values that is not NULL.
    #[sql_name = "coalesce"]
    fn coalesce<T: SqlType + SingleValue>(value: Nullable<T>, fallback: T) -> T;

    /// The first of two values that is not NULL, or NULL.
    #[sql_name = "coalesce"]
    fn coalesce_nullable<T: SqlType + SingleValue>(value: Nullable<T>, fallback: Nullable<T>) -> Nullable<T>;

    /// Whether a condition is true for all rows, or NULL if there are none.
    #[aggregate]
    fn bool_and(condition: Bool) -> Nullable<Bool>;

    /// Whether a condition is true for any row, or NULL if there are none.
    #[aggregate]
    fn bool_or(condition: Bool) -> Nullable<Bool>;

    /// The lesser of two values.
    #[sql_name = "least"]
    fn least<T: SqlType + SingleValue>(one: T, other: T) -> T;

    /// The greater of two values.
    #[sql_name = "greatest"]
    fn greatest<T: SqlType + SingleValue>(one: T, other: T) -> T;

    /// The bytes of a value from a position, which starts at 1. Of a large value that is not compressed, only these
    /// bytes are read.
    #[sql_name = "substr"]
    fn slice_bytes(value: Nullable<Binary>, from: Integer, length: Integer) -> Nullable<Binary>;

    /// The sum of values.
    #[aggregate]
    #[sql_name = "sum"]
    fn sum_numeric(value: BigInt) -> Nullable<Numeric>;
}

#[diesel::declare_sql_function]
extern "SQL" {
    /// The current time by the database's clock, which advances within a transaction.
    fn clock_timestamp() -> Timestamptz;

    /// The id of the current transaction.
    fn pg_current_xact_id() -> Xid8;

    /// The outcome of a transaction, or NULL if it is too old.
    fn pg_xact_status(transaction: Xid8) -> Nullable<Text>;

    /// The epoch of the positions that this transaction writes. Begins one in a new incarnation of the database.
    #[sql_name = "app.position_epoch"]
    fn position_epoch() -> Integer;

    /// The value of a setting.
    fn current_setting(name: Text) -> Text;

    /// Drops the partitions of a table that end before a time, and returns their number.
    #[sql_name = "app.drop_partitions"]
    fn drop_partitions(table: Text, period: Interval, before: Timestamptz) -> Integer;

    /// Erases rows of one table of a tenant that is being deleted, and returns their number.
    #[sql_name = "app.erase_tenant_rows"]
    fn erase_tenant_rows(tenant: SqlUuid, row_max: Integer) -> BigInt;

    /// Removes a provisional tenant without first calls in progress, and returns the outcome.
    #[sql_name = "app.remove_provisional_tenant"]
    fn remove_provisional_tenant(tenant: SqlUuid) -> Text;
}

diesel::infix_operator!(PlusInterval, " + ", Timestamptz, backend: Pg);
diesel::infix_operator!(MinusInterval, " - ", Timestamptz, backend: Pg);

// Whether a principal is one of the viewer's. PostgreSQL evaluates the subquery once per statement.
diesel::postfix_operator!(IsOfViewer, " = ANY ((SELECT app.principals())::text[])", Bool, backend: Pg);

diesel::postfix_operator!(ToBigint, "::bigint", Nullable<BigInt>, backend: Pg);

/// Returns the sum of a column, or NULL if there are no rows. A sum that exceeds a bigint is an error.
pub(in crate::db) fn sum_of<C: AsExpression<BigInt>>(column: C) -> ToBigint<sum_numeric<C>> {
    ToBigint::new(sum_numeric(column))
}

/// An interval as an argument of a query.
type IntervalArgument = diesel::dsl::AsExprOf<PgInterval, Interval>;

/// Returns the database's time plus an interval.
pub(in crate::db) fn now_plus(interval: PgInterval) -> PlusInterval<now, IntervalArgument> {
    PlusInterval::new(now(), diesel::IntoSql::into_sql::<Interval>(interval))
}

/// Returns the database's time minus an interval.
pub(in crate::db) fn now_minus(interval: PgInterval) -> MinusInterval<now, IntervalArgument> {
    MinusInterval::new(now(), diesel::IntoSql::into_sql::<Interval>(interval))
}

/// Returns the database's time plus an interval, or NULL without one.
pub(in crate::db) fn now_plus_optional(
    interval: Option<PgInterval>,
) -> PlusInterval<now, diesel::dsl::AsExprOf<Option<PgInterval>, Nullable<Interval>>> {
    PlusInterval::new(now(), diesel::IntoSql::into_sql::<Nullable<Interval>>(interval))
}

/// Converts a duration. Saturates at 292,000 years.
pub(in crate::db) fn interval(duration: std::time::Duration) -> PgInterval {
    PgInterval::from_microseconds(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

pub(in crate::db) fn hours(hours: u32) -> PgInterval {
    PgInterval::from_microseconds(i64::from(hours) * 3_600_000_000)
}

pub(in crate::db) fn days(days: u32) -> PgInterval {
    PgInterval::from_days(i32::try_from(days).unwrap_or(i32::MAX))
}

pub(in crate::db) fn seconds(seconds: u32) -> PgInterval {
    PgInterval::from_microseconds(i64::from(seconds) * 1_000_000)
}

/// Returns an interval of seconds. Saturates at 136 years.
pub(in crate::db) fn seconds_u64(number: u64) -> PgInterval {
    seconds(u32::try_from(number).unwrap_or(u32::MAX))
}
