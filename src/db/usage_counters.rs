//! What is stored per category and kind, kept in the commit, so that a report never counts files.

use std::collections::BTreeMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, SmallInt, Text, Uuid as SqlUuid},
};

use super::{DbError, TenantTx, statement::statement};
use crate::domain::media_type::MediaKind;

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the contract's UsageEntry, explained there")]
pub struct UsageCounter {
    pub category: String,
    pub media_kind: MediaKind,
    pub file_count: i64,
    pub total_bytes: i64,
}

/// Files that came in, summed per counter and in one order, which is also the order of locks.
#[derive(Debug, Clone, Default)]
pub struct UsageGain(BTreeMap<(String, i16), (i64, i64)>);

impl UsageGain {
    /// Counts one file.
    pub fn count(&mut self, category: &str, kind: MediaKind, size_bytes: i64) {
        let slot = self.0.entry((category.to_owned(), kind.number())).or_default();
        slot.0 += 1;
        slot.1 += size_bytes;
    }
}

/// Adds what came in.
pub async fn add(tx: &mut TenantTx, gain: &UsageGain) -> Result<(), DbError> {
    let (keys, values): (Vec<_>, Vec<_>) = gain.0.iter().map(|(key, value)| (key.clone(), *value)).unzip();
    let (categories, kinds): (Vec<String>, Vec<i16>) = keys.into_iter().unzip();
    let (counts, sums): (Vec<i64>, Vec<i64>) = values.into_iter().unzip();
    statement(
        "add to usage counters",
        "INSERT INTO usage_counters AS counter (tenant_id, category, media_kind, file_count, total_bytes)
         SELECT {}, gain.category, gain.kind, gain.count, gain.sum
         FROM unnest({}, {}, {}, {}) WITH ORDINALITY AS gain (category, kind, count, sum, place) ORDER BY place
         ON CONFLICT (tenant_id, category, media_kind) DO UPDATE
         SET file_count = counter.file_count + excluded.file_count,
             total_bytes = counter.total_bytes + excluded.total_bytes",
    )
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Array<Text>, _>(categories)
    .bind::<Array<SmallInt>, _>(kinds)
    .bind::<Array<BigInt>, _>(counts)
    .bind::<Array<BigInt>, _>(sums)
    .execute(tx.connection()?)
    .await
    .map(|_| ())
}

/// Takes one file away.
pub async fn subtract(
    tx: &mut TenantTx,
    category: &str,
    kind: MediaKind,
    size_bytes: i64,
) -> Result<(), DbError> {
    statement(
        "take from usage counter",
        "UPDATE usage_counters SET file_count = file_count - 1, total_bytes = total_bytes - {}
         WHERE tenant_id = {} AND category = {} AND media_kind = {}",
    )
    .bind::<BigInt, _>(size_bytes)
    .bind::<SqlUuid, _>(tx.tenant().as_uuid())
    .bind::<Text, _>(category.to_owned())
    .bind::<SmallInt, _>(kind.number())
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
         WHERE tenant_id = {} AND file_count > 0 ORDER BY category, media_kind",
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
