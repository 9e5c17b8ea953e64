//! The number and the total size of objects that a statement has changed.

use diesel::QueryableByName;

use super::schema::blobs;

/// The size of an object whose row a statement changed.
#[derive(QueryableByName)]
#[diesel(table_name = blobs)]
pub(super) struct SizeRow {
    pub(super) size_bytes: i64,
}

/// Returns the number and the total size in bytes of objects with these sizes.
pub(super) fn count_and_sum(sizes: impl ExactSizeIterator<Item = i64>) -> (i64, i64) {
    (i64::try_from(sizes.len()).unwrap_or(i64::MAX), sizes.sum())
}
