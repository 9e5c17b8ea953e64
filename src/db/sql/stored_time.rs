//! Times as the database stores them, which [`Timestamp`] cannot all represent.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue},
    serialize::{self, Output, ToSql},
    sql_types::{BigInt, Timestamptz},
};

use crate::domain::clock::Timestamp;

/// A time in microseconds since the year 2000, including `infinity` and `-infinity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Timestamptz)]
pub(in crate::db) struct StoredTime(i64);

/// The start of the year 2000, in microseconds since 1970.
const YEAR_2000_MICROS: i64 = 946_684_800_000_000;

impl StoredTime {
    pub(in crate::db) const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub(in crate::db) const fn micros(self) -> i64 {
        self.0
    }

    /// Returns the time, if [`Timestamp`] can represent it.
    pub(in crate::db) fn timestamp(self) -> Option<Timestamp> {
        self.0.checked_add(YEAR_2000_MICROS).and_then(Timestamp::from_timestamp_micros)
    }
}

impl FromSql<Timestamptz, Pg> for StoredTime {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        <i64 as FromSql<BigInt, Pg>>::from_sql(bytes).map(Self)
    }
}

impl ToSql<Timestamptz, Pg> for StoredTime {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        <i64 as ToSql<BigInt, Pg>>::to_sql(&self.0, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_the_times_that_can_be_represented() {
        assert_eq!(StoredTime(-YEAR_2000_MICROS).timestamp(), Some(Timestamp::UNIX_EPOCH));
        for infinity in [i64::MAX, i64::MIN] {
            assert_eq!(StoredTime(infinity).timestamp(), None);
        }
    }
}
