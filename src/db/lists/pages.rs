//! Pages of file lists: the keys of the files, and their records.

use std::collections::HashMap;

use diesel::{
    QueryableByName,
    sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};

use super::{BindValue, Sql, is_plain, order_by};
use crate::{
    db::{
        DbError, TenantTx, Viewer,
        file_rows::{BASIC_COLUMNS, COLUMNS, FileRow},
        sql::{StoredTime, sql, statement},
    },
    domain::{
        file::File,
        file_list::{FileFilter, FileOrder, KeyValue, PagePosition, SortKey},
        ids::FileId,
    },
};

/// A request for one page.
#[derive(Debug, Clone)]
pub struct PageQuery<'a> {
    pub filter: &'a FileFilter,
    pub order: FileOrder,
    /// The position after which the page starts; `None` for the first page.
    pub after: Option<&'a PagePosition>,
    /// The maximum number of files.
    pub size: usize,
    /// The maximum number of rows that are read per returned row.
    pub scan_rows_per_row_max: usize,
}

impl PageQuery<'_> {
    /// The number of rows to look at. One more row than the page needs shows whether there is a next page.
    fn budget(&self, viewer: &Viewer) -> usize {
        if self.looks_at_more_rows(viewer) {
            self.size * self.scan_rows_per_row_max + 1
        } else {
            self.size + 1
        }
    }

    /// Returns whether more rows may be looked at than are returned.
    pub fn looks_at_more_rows(&self, viewer: &Viewer) -> bool {
        self.filter.is_selective(viewer)
    }
}

/// The columns of the records to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordColumns {
    /// Every column, with the description and the metadata.
    All,
    /// Without the description and the metadata, which are empty in the records.
    Basic,
}

impl RecordColumns {
    const fn names(self) -> &'static str {
        match self {
            Self::All => COLUMNS,
            Self::Basic => BASIC_COLUMNS,
        }
    }
}

/// The keys of the files of a page.
#[derive(Debug)]
pub struct PageKeys {
    /// The positions of the files, in the order of the list.
    pub files: Vec<PagePosition>,
    /// The position to continue from; `None` after the last file.
    pub next: Option<PagePosition>,
}

/// A page of files.
#[derive(Debug)]
pub struct Page {
    /// The files, without tags and attachments.
    pub files: Vec<File>,
    /// The positions of the files.
    pub positions: Vec<PagePosition>,
    /// The position to continue from; `None` after the last file.
    pub next: Option<PagePosition>,
}

/// Reads a page whose query looks at no more rows than it returns: keys and records in one query.
pub async fn read_page(
    tx: &mut TenantTx,
    viewer: &Viewer,
    query: &PageQuery<'_>,
    columns: RecordColumns,
) -> Result<Page, DbError> {
    let mut sql = Sql::default();
    sql.push(&format!("SELECT {}, {} FROM (", columns.names(), key_columns(query.order.key)));
    sql.branches(tx, viewer, query.filter, query.order, query.after, query.budget(viewer));
    sql.with(") AS page JOIN files AS f ON f.tenant_id = ", BindValue::Uuid(tx.tenant().as_uuid()));
    sql.push(&format!(" AND f.id = page.id ORDER BY {}", order_by("page", query.order)));
    let mut rows: Vec<PageRow> =
        sql.into_statement("list files", is_plain(viewer, query.filter)).load(tx.connection()?).await?;
    let has_more = rows.len() > query.size;
    rows.truncate(query.size);
    let (mut files, mut positions) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        let file = row.file.into_file();
        positions.push(PagePosition { key: row.key.into_value()?, id: file.id });
        files.push(file);
    }
    let next = positions.last().filter(|_| has_more).cloned();
    Ok(Page { files, positions, next })
}

/// A file and its sort key. The key is read as it is stored, because a damaged record has another value in its
/// place, after which no page could continue.
#[derive(QueryableByName)]
struct PageRow {
    #[diesel(embed)]
    file: FileRow,
    #[diesel(embed)]
    key: KeyColumns,
}

/// The columns of [`key_columns`]. The one of the list's order is not null.
#[derive(QueryableByName)]
struct KeyColumns {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    time_key: Option<StoredTime>,
    #[diesel(sql_type = Nullable<Text>)]
    text_key: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    number_key: Option<i64>,
}

impl KeyColumns {
    fn into_value(self) -> Result<KeyValue, DbError> {
        let time = |key: StoredTime| match key.timestamp() {
            Some(time) => KeyValue::Time(time),
            None => KeyValue::StoredTime(key.micros()),
        };
        let key = (self.time_key.map(time))
            .or(self.text_key.map(KeyValue::Text))
            .or(self.number_key.map(KeyValue::Number));
        key.ok_or_else(|| DbError::corrupt("list files", "sort key"))
    }
}

/// A row that was looked at: its id, its sort key, and whether it matches the filter.
#[derive(QueryableByName)]
struct KeyRow {
    #[diesel(sql_type = SqlUuid)]
    id: FileId,
    #[diesel(embed)]
    key: KeyColumns,
    #[diesel(sql_type = Bool)]
    matches: bool,
    /// The number of rows that were looked at.
    #[diesel(sql_type = BigInt)]
    scanned: i64,
}

/// Returns the sort key as the columns of [`KeyColumns`].
const fn key_columns(key: SortKey) -> &'static str {
    match key {
        SortKey::CreateTime => "key AS time_key, NULL::text AS text_key, NULL::bigint AS number_key",
        SortKey::Name => "NULL::timestamptz AS time_key, key AS text_key, NULL::bigint AS number_key",
        SortKey::SizeBytes => "NULL::timestamptz AS time_key, NULL::text AS text_key, key AS number_key",
    }
}

/// Reads the keys of a page. Of the rows that are only looked at, the database returns the last one.
pub async fn read_keys(
    tx: &mut TenantTx,
    viewer: &Viewer,
    query: &PageQuery<'_>,
) -> Result<PageKeys, DbError> {
    let budget = query.budget(viewer);
    let mut sql = Sql::default();
    sql.push(&format!(
        "SELECT id, {}, matches, scanned FROM (
            SELECT page.id, page.key, count(*) OVER () AS scanned,
                row_number() OVER (ORDER BY {}) AS place, coalesce((",
        key_columns(query.order.key),
        order_by("page", query.order)
    ));
    sql.conditions(query.filter);
    sql.push("), false) AS matches FROM (");
    sql.branches(tx, viewer, query.filter, query.order, query.after, budget);
    sql.with(") AS page JOIN files AS f ON f.tenant_id = ", BindValue::Uuid(tx.tenant().as_uuid()));
    sql.push(&format!(
        " AND f.id = page.id) AS seen WHERE matches OR place = scanned ORDER BY {} LIMIT ",
        order_by("seen", query.order)
    ));
    // A full page, the match after it, and the last row that was looked at.
    sql.with("", BindValue::Big(i64::try_from(query.size + 2).unwrap_or(i64::MAX)));
    let rows: Vec<KeyRow> =
        sql.into_statement("list file keys", is_plain(viewer, query.filter)).load(tx.connection()?).await?;
    collect_keys(rows, query.size, budget)
}

/// Collects the keys of the page. There is a next page if rows remain after a full page or if the budget was
/// exhausted.
fn collect_keys(rows: Vec<KeyRow>, size: usize, budget: usize) -> Result<PageKeys, DbError> {
    let mut files: Vec<PagePosition> = Vec::with_capacity(size.min(rows.len()));
    let (mut last, mut scanned) = (None, 0);
    for row in rows {
        if files.len() == size {
            return Ok(PageKeys { files, next: last });
        }
        scanned = usize::try_from(row.scanned).unwrap_or(usize::MAX);
        let position = PagePosition { key: row.key.into_value()?, id: row.id };
        if row.matches {
            files.push(position.clone());
        }
        last = Some(position);
    }
    Ok(PageKeys { files, next: last.filter(|_| scanned >= budget) })
}

/// Reads the records of visible files in the order of their ids. Omits files that no longer exist.
pub async fn read_records(
    tx: &mut TenantTx,
    ids: &[FileId],
    columns: RecordColumns,
) -> Result<Vec<File>, DbError> {
    macro_rules! text {
        ($columns:expr) => {
            sql!(
                "SELECT {columns} FROM files AS f WHERE f.tenant_id = $1 AND f.id = ANY ($2)",
                columns = $columns,
            )
        };
    }
    // The columns of a view as SQL text, which the query of a page needs too.
    let text = match columns {
        RecordColumns::All => text!(COLUMNS),
        RecordColumns::Basic => text!(BASIC_COLUMNS),
    };
    let rows: Vec<FileRow> = statement("read file records", text)
        .bind::<SqlUuid, _>(tx.tenant())
        .bind::<Array<SqlUuid>, _>(ids.to_vec())
        .load(tx.connection()?)
        .await?;
    let files = rows.into_iter().map(FileRow::into_file);
    let mut by_id: HashMap<FileId, File> = files.map(|file| (file.id, file)).collect();
    Ok(ids.iter().filter_map(|id| by_id.remove(id)).collect())
}
