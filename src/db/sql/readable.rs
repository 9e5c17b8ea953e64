//! Columns whose values can be unreadable, so that one bad value does not fail the query for all rows.

use std::collections::HashMap;

use diesel::{
    deserialize::{self, FromSql, Queryable},
    pg::{Pg, PgValue},
    sql_types::{Jsonb, SingleValue},
};
use serde_json::value::RawValue;

/// The value of a column, or the reason that it cannot be read.
///
/// Rows that are read together with rows of others use it for every column that the database does not restrict
/// to readable values.
#[derive(Debug, Clone)]
pub(in crate::db) struct Readable<T>(Result<T, String>);

impl<T> Readable<T> {
    /// Wraps a value.
    pub(in crate::db) fn new(value: T) -> Self {
        Self(Ok(value))
    }

    /// Returns the value. If it cannot be read, adds `column` to `damage` and returns `fallback`.
    pub(in crate::db) fn or_damaged(self, column: &'static str, damage: &mut Damage, fallback: T) -> T {
        self.0.unwrap_or_else(|error| {
            damage.add(column, error);
            fallback
        })
    }
}

impl<T, ST> FromSql<ST, Pg> for Readable<T>
where
    T: FromSql<ST, Pg>,
{
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(T::from_sql(bytes).map_err(|error| error.to_string())))
    }

    fn from_nullable_sql(bytes: Option<PgValue<'_>>) -> deserialize::Result<Self> {
        Ok(Self(T::from_nullable_sql(bytes).map_err(|error| error.to_string())))
    }
}

impl<T, ST> Queryable<ST, Pg> for Readable<T>
where
    ST: SingleValue,
    Self: FromSql<ST, Pg>,
{
    type Row = Self;

    fn build(row: Self) -> deserialize::Result<Self> {
        Ok(row)
    }
}

/// The columns of a row that cannot be read, with the reasons.
#[derive(Debug, Default)]
pub(in crate::db) struct Damage(Vec<String>);

impl Damage {
    /// Adds a column.
    pub(in crate::db) fn add(&mut self, column: &str, reason: impl std::fmt::Display) {
        self.0.push(format!("{column}: {reason}"));
    }

    /// Returns the columns and the reasons, unless the row is intact.
    pub(in crate::db) fn found(self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

/// A JSON object whose values are not parsed yet, so that one unreadable value does not affect the others.
#[derive(Debug)]
pub(in crate::db) struct JsonEntries(HashMap<String, Box<RawValue>>);

impl JsonEntries {
    /// Returns the value of a key, if there is one.
    pub(in crate::db) fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.get(key).map(AsRef::as_ref)
    }
}

impl FromSql<Jsonb, Pg> for JsonEntries {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        // The binary format is a version number and the text.
        match bytes.as_bytes() {
            [1, text @ ..] => Ok(Self(serde_json::from_slice(text)?)),
            _ => Err("unknown version of the jsonb format".into()),
        }
    }
}

impl<ST> Queryable<ST, Pg> for JsonEntries
where
    ST: SingleValue,
    Self: FromSql<ST, Pg>,
{
    type Row = Self;

    fn build(row: Self) -> deserialize::Result<Self> {
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_value_is_reported_and_replaced() {
        let mut damage = Damage::default();
        assert_eq!(Readable(Ok(1)).or_damaged("one", &mut damage, 0), 1);
        assert_eq!(Readable(Err("too large".to_owned())).or_damaged("two", &mut damage, 0), 0);
        assert_eq!(damage.found().as_deref(), Some("two: too large"));
        assert_eq!(Damage::default().found(), None);
    }
}
