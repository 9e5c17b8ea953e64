//! What is stored per category and kind, kept in the commit, so that a report never counts files.

use std::collections::BTreeMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, SmallInt, Text, Uuid as SqlUuid},
};

use super::{DbError, TenantTx, statement::statement, versions::Charge};
use crate::domain::{file::File, media_type::MediaKind};

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the contract's UsageEntry, explained there")]
pub struct UsageCounter {
    pub category: String,
    pub media_kind: MediaKind,
    pub file_count: i64,
    pub total_bytes: i64,
}

/// Changes of counters, summed per counter and in one order, which is also the order of locks.
#[derive(Debug, Clone, Default)]
pub struct UsageDelta(BTreeMap<(String, i16), (i64, i64)>);

impl UsageDelta {
    /// Whole files that came (`sign` 1) or went (-1): the file counts under the kind of its current version, bytes under
    /// that of the version that has them.
    pub fn file(&mut self, file: &File, charge: &Charge, sign: i64) {
        self.files(&file.category, file.media_kind, sign);
        for (kind, bytes) in &charge.0 {
            self.bytes(&file.category, *kind, sign * bytes);
        }
    }

    /// So many files more.
    pub fn files(&mut self, category: &str, kind: MediaKind, count: i64) {
        self.0.entry((category.to_owned(), kind.number())).or_default().0 += count;
    }

    /// So many bytes more.
    pub fn bytes(&mut self, category: &str, kind: MediaKind, bytes: i64) {
        self.0.entry((category.to_owned(), kind.number())).or_default().1 += bytes;
    }
}

/// Changes counters. One from which is taken exists.
pub async fn apply(tx: &mut TenantTx, delta: &UsageDelta) -> Result<(), DbError> {
    let (keys, values): (Vec<_>, Vec<_>) = delta.0.iter().map(|(key, value)| (key.clone(), *value)).unzip();
    let (categories, kinds): (Vec<String>, Vec<i16>) = keys.into_iter().unzip();
    let (counts, sums): (Vec<i64>, Vec<i64>) = values.into_iter().unzip();
    statement(
        "change usage counters",
        "WITH delta AS MATERIALIZED (
             SELECT * FROM unnest({}, {}, {}, {}) WITH ORDINALITY AS d (category, kind, count, sum, place)
         )
         INSERT INTO usage_counters AS counter (tenant_id, category, media_kind, file_count, total_bytes)
         SELECT {}, d.category, d.kind, greatest(d.count, 0), greatest(d.sum, 0) FROM delta AS d ORDER BY d.place
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

/// Every counter that counts anything, by category and kind.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<UsageCounter>, DbError> {
    let rows: Vec<CounterRow> = statement(
        "list usage counters",
        "SELECT category, media_kind, file_count, total_bytes FROM usage_counters
         WHERE tenant_id = {} AND (file_count > 0 OR total_bytes > 0) ORDER BY category, media_kind",
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
