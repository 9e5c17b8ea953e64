//! Usage counters per category and media kind. They are updated in the transaction of each change, so reports
//! need not count files.

use std::collections::BTreeMap;

use diesel::{
    BoolExpressionMethods as _, ExpressionMethods as _, QueryDsl as _, Queryable, Selectable,
    SelectableHelper as _,
    sql_types::{Array, BigInt, SmallInt, Text, Uuid as SqlUuid},
};

use super::{
    DbError, TenantTx,
    schema::usage_counters,
    sql::{OfTenant as _, query, statement},
    versions::Charge,
};
use crate::domain::{file::File, media_type::MediaKind};

/// A usage counter.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = usage_counters, check_for_backend(diesel::pg::Pg))]
pub struct UsageCounter {
    pub category: String,
    pub media_kind: MediaKind,
    pub file_count: i64,
    pub total_bytes: i64,
}

/// Changes of counters, summed and sorted per counter. The order is also the lock order.
#[derive(Debug, Clone, Default)]
pub struct UsageDelta(BTreeMap<(String, i16), (i64, i64)>);

impl UsageDelta {
    /// Adds (`sign` = 1) or subtracts (`sign` = -1) a file with all its versions. The file counts under the
    /// kind of its current version, bytes count under the kind of each version.
    pub fn add_file(&mut self, file: &File, charge: &Charge, sign: i64) {
        self.add_file_count(&file.category, file.media_kind, sign);
        for (kind, bytes) in &charge.0 {
            self.add_bytes(&file.category, *kind, sign * bytes);
        }
    }

    /// Returns the number of counters that it changes.
    pub fn counter_count(&self) -> usize {
        self.0.len()
    }

    /// Adds to the number of files.
    pub fn add_file_count(&mut self, category: &str, kind: MediaKind, count: i64) {
        self.0.entry((category.to_owned(), kind.number())).or_default().0 += count;
    }

    /// Adds to the number of bytes.
    pub fn add_bytes(&mut self, category: &str, kind: MediaKind, bytes: i64) {
        self.0.entry((category.to_owned(), kind.number())).or_default().1 += bytes;
    }
}

/// Applies changes to the counters, and creates missing ones. The caller must not decrease a counter that
/// does not exist.
pub async fn apply_delta(tx: &mut TenantTx, delta: &UsageDelta) -> Result<(), DbError> {
    let (keys, values): (Vec<_>, Vec<_>) = delta.0.iter().map(|(key, value)| (key.clone(), *value)).unzip();
    let (categories, kinds): (Vec<String>, Vec<i16>) = keys.into_iter().unzip();
    let (counts, sums): (Vec<i64>, Vec<i64>) = values.into_iter().unzip();
    // An `unnest` batch.
    statement(
        "change usage counters",
        "WITH delta AS MATERIALIZED (
             SELECT * FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS d (category, kind, count, sum, place)
         )
         INSERT INTO usage_counters AS counter (tenant_id, category, media_kind, file_count, total_bytes)
         SELECT $5, d.category, d.kind, greatest(d.count, 0), greatest(d.sum, 0) FROM delta AS d ORDER BY d.place
         ON CONFLICT (tenant_id, category, media_kind) DO UPDATE SET (file_count, total_bytes) = (
             SELECT counter.file_count + d.count, counter.total_bytes + d.sum FROM delta AS d
             WHERE d.category = counter.category AND d.kind = counter.media_kind)",
    )
    .bind::<Array<Text>, _>(categories)
    .bind::<Array<SmallInt>, _>(kinds)
    .bind::<Array<BigInt>, _>(counts)
    .bind::<Array<BigInt>, _>(sums)
    .bind::<SqlUuid, _>(tx.tenant())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Returns all non-zero counters, ordered by category and kind.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<UsageCounter>, DbError> {
    let counters = usage_counters::table
        .of(tx.tenant())
        .filter(usage_counters::file_count.gt(0).or(usage_counters::total_bytes.gt(0)))
        .order((usage_counters::category, usage_counters::media_kind))
        .select(UsageCounter::as_select());
    query("list usage counters", counters).load(tx.connection()?).await
}
