//! Usage counters per category and media kind. They are updated in the transaction of each change, so reports
//! need not count files.

use std::collections::BTreeMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, SmallInt, Text, Uuid as SqlUuid},
};

use super::{DbError, TenantTx, sql::statement, versions::Charge};
use crate::domain::{file::File, media_type::MediaKind};

/// A usage counter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the contract's UsageEntry, explained there")]
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
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

#[derive(QueryableByName)]
struct CounterRow {
    #[diesel(sql_type = Text)]
    category: String,
    #[diesel(sql_type = SmallInt)]
    media_kind: i16,
    #[diesel(sql_type = BigInt)]
    file_count: i64,
    #[diesel(sql_type = BigInt)]
    total_bytes: i64,
}

/// Returns all non-zero counters, ordered by category and kind.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<UsageCounter>, DbError> {
    let rows: Vec<CounterRow> = statement(
        "list usage counters",
        "SELECT category, media_kind, file_count, total_bytes FROM usage_counters
         WHERE tenant_id = $1 AND (file_count > 0 OR total_bytes > 0) ORDER BY category, media_kind",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .load(tx.connection()?)
    .await?;
    rows.into_iter()
        .map(|row| {
            let media_kind = MediaKind::from_number(row.media_kind)
                .ok_or_else(|| DbError::corrupt("list usage counters", "media kind"))?;
            Ok(UsageCounter {
                category: row.category,
                media_kind,
                file_count: row.file_count,
                total_bytes: row.total_bytes,
            })
        })
        .collect()
}
