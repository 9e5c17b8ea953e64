//! The usage of the files that a viewer may see, for viewers who may not see the counters of the tenant.

use diesel::{
    QueryableByName,
    sql_types::{BigInt, SmallInt, Text},
};

use super::{BindValue, Sql, is_plain};
use crate::{
    db::{DbError, TenantTx, Viewer, usage_counters::UsageCounter},
    domain::{
        file_list::{FileFilter, FileOrder},
        media_type::MediaKind,
    },
};

/// The usage of visible files.
#[derive(Debug)]
pub struct VisibleUsage {
    /// The counters, ordered by category and kind.
    pub counters: Vec<UsageCounter>,
    /// Whether there are more visible files than were counted.
    pub is_lower_bound: bool,
}

/// A counter, and the number of files of all counters.
#[derive(QueryableByName)]
struct UsageRow {
    #[diesel(sql_type = Text)]
    category: String,
    #[diesel(sql_type = SmallInt)]
    media_kind: MediaKind,
    #[diesel(sql_type = BigInt)]
    file_count: i64,
    #[diesel(sql_type = BigInt)]
    total_bytes: i64,
    #[diesel(sql_type = BigInt)]
    scanned: i64,
}

/// Sums the newest visible files, up to `max`, with all their versions. Counts in the same way as
/// `usage_counters`: a file under the kind of its current version, bytes under the kind of each version.
pub async fn sum_visible_usage(
    tx: &mut TenantTx,
    viewer: &Viewer,
    is_trash_counted: bool,
    max: usize,
) -> Result<VisibleUsage, DbError> {
    let filter = FileFilter { is_deleted_shown: is_trash_counted, ..FileFilter::default() };
    let mut sql = Sql::default();
    sql.push("WITH page AS (");
    sql.branches(tx, viewer, &filter, FileOrder::NEWEST_FIRST, None, max + 1);
    sql.with(
        "), visible AS MATERIALIZED (
             SELECT f.id, f.category, f.media_kind FROM page JOIN files AS f ON f.id = page.id AND f.tenant_id = ",
        BindValue::Uuid(tx.tenant().as_uuid()),
    );
    sql.with(
        "), counted AS (
             SELECT category, count(*) AS file_count, 0::numeric AS total_bytes, media_kind FROM visible GROUP BY 1, 4
             UNION ALL
             SELECT visible.category, 0, sum(v.size_bytes), v.media_kind FROM visible
             JOIN versions AS v ON v.file_id = visible.id AND v.tenant_id = ",
        BindValue::Uuid(tx.tenant().as_uuid()),
    );
    sql.push(
        " GROUP BY 1, 4)
         SELECT category, media_kind, sum(file_count)::bigint AS file_count, sum(total_bytes)::bigint AS total_bytes,
             (SELECT count(*) FROM visible) AS scanned
         FROM counted GROUP BY 1, 2 ORDER BY 1, 2",
    );
    let statement = sql.into_statement("sum visible usage", is_plain(viewer, &filter));
    let rows: Vec<UsageRow> = statement.load(tx.connection()?).await?;
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let is_lower_bound = rows.first().is_some_and(|row| row.scanned > max);
    let counters = rows.into_iter().map(|row| UsageCounter {
        category: row.category,
        media_kind: row.media_kind,
        file_count: row.file_count,
        total_bytes: row.total_bytes,
    });
    Ok(VisibleUsage { counters: counters.collect(), is_lower_bound })
}
