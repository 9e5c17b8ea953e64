//! The rows that the commit of an upload writes, read from the database. The pgbench baseline inserts the same
//! rows, so it needs no list of tables and columns, which migrations would change.

use std::fmt::Write as _;

use crate::{Outcome, sql};

/// The table in which the commit inserts or updates a row.
const COUNTERS: &str = "usage_counters";
/// The table in which the commit only updates a row.
const QUOTAS: &str = "quotas";

/// One table and its columns, without those that the database computes.
struct Table {
    name: String,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    type_name: String,
}

/// A row that the commit of the template wrote.
struct Row {
    table: Table,
    /// The values of the columns in their text form; `None` is NULL.
    values: Vec<Option<String>>,
}

/// The identifiers of an upload, which differ from one upload to the next.
struct Ids {
    tenant: String,
    file: String,
    blob: String,
    request: String,
}

/// Returns the statement that inserts the rows of one upload with new ids, for a tenant.
///
/// `file_id` is the first file of a tenant, uploaded with the request id `request`: its rows are the template.
/// `tenant` and `new_id` are SQL expressions of the type uuid.
pub(crate) async fn insert_statement(
    url: &str,
    file_id: &str,
    request: &str,
    tenant: &str,
    new_id: &str,
) -> Outcome<String> {
    let ids = read_ids(url, file_id, request).await?;
    let rows = read_rows(url, &ids).await?;
    let (counters, inserts): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.table.name == COUNTERS);
    let [counter] = counters.as_slice() else {
        return Err(format!("the commit of an upload wrote {} rows of {COUNTERS}", counters.len()).into());
    };
    let mut sql = format!(
        "WITH ids AS MATERIALIZED (\n    SELECT {tenant} AS tenant, {new_id} AS file, {new_id} AS blob, \
         {new_id} AS request\n)"
    );
    // Writing to a String cannot fail.
    for (number, row) in inserts.into_iter().enumerate() {
        let _ = write!(sql, ", row_{number} AS (\n    {}\n)", row.insert(&ids));
    }
    let _ = write!(
        sql,
        "\n{}\nON CONFLICT (tenant_id, category, media_kind) DO UPDATE SET file_count = counter.file_count + \
         excluded.file_count, total_bytes = counter.total_bytes + excluded.total_bytes",
        counter.insert(&ids).replacen(COUNTERS, &format!("{COUNTERS} AS counter"), 1)
    );
    Ok(sql)
}

async fn read_ids(url: &str, file_id: &str, request: &str) -> Outcome<Ids> {
    let ids = format!("SELECT tenant_id, blob_id FROM public.versions WHERE file_id = '{file_id}'");
    let rows = sql::query_rows(url, &ids).await?;
    let [row] = rows.as_slice() else {
        return Err(format!("the template has {} versions", rows.len()).into());
    };
    match row.as_slice() {
        [Some(tenant), Some(blob)] => Ok(Ids {
            tenant: tenant.clone(),
            file: file_id.to_owned(),
            blob: blob.clone(),
            request: request.to_owned(),
        }),
        _ => Err("the template has no ids".into()),
    }
}

/// Reads all rows of the template's transaction, except for the quota, which the script updates last.
async fn read_rows(url: &str, ids: &Ids) -> Outcome<Vec<Row>> {
    let transaction = format!("SELECT xmin FROM public.files WHERE id = '{}'", ids.file);
    let transaction = sql::query_value(url, &transaction).await?;
    let mut found = Vec::new();
    for table in read_tables(url).await? {
        let columns: Vec<_> = table.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let rows = format!(
            "SELECT {} FROM public.\"{}\" WHERE xmin::text = '{transaction}'",
            columns.join(", "),
            table.name
        );
        let mut rows = sql::query_rows(url, &rows).await?.into_iter();
        match (rows.next(), rows.next()) {
            (Some(values), None) if table.name != QUOTAS => found.push(Row { table, values }),
            (Some(_), Some(_)) => {
                return Err(format!("the commit of an upload wrote several rows of {}", table.name).into());
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Reads the tables of the service with the columns that an insert sets: not those that are generated, and not
/// those whose default is a new number.
async fn read_tables(url: &str) -> Outcome<Vec<Table>> {
    let columns = "SELECT c.relname, a.attname, format_type(a.atttypid, NULL)
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
          AND coalesce(pg_get_expr(d.adbin, d.adrelid), '') !~ 'nextval|pg_current_xact_id|change_xid'
        ORDER BY c.relname, a.attnum";
    let mut tables: Vec<Table> = Vec::new();
    for row in sql::query_rows(url, columns).await? {
        let [Some(table), Some(name), Some(type_name)] = row.as_slice() else {
            return Err("the catalog has a column without a name".into());
        };
        let column = Column { name: name.clone(), type_name: type_name.clone() };
        match tables.last_mut().filter(|last| last.name == *table) {
            Some(last) => last.columns.push(column),
            None => tables.push(Table { name: table.clone(), columns: vec![column] }),
        }
    }
    Ok(tables)
}

impl Row {
    /// Returns the statement that inserts this row with the ids of the subquery `ids`.
    fn insert(&self, ids: &Ids) -> String {
        let names: Vec<_> = self.table.columns.iter().map(|column| column.name.as_str()).collect();
        let values = self.table.columns.iter().zip(&self.values);
        let values: Vec<_> = values.map(|(column, value)| ids.expression(column, value.as_deref())).collect();
        format!(
            "INSERT INTO {} ({})\n    SELECT {} FROM ids",
            self.table.name,
            names.join(", "),
            values.join(", ")
        )
    }
}

impl Ids {
    /// Returns an expression for the value of the template, with new ids and the time of the transaction.
    fn expression(&self, column: &Column, value: Option<&str>) -> String {
        let Some(value) = value else { return "NULL".to_owned() };
        match column.type_name.as_str() {
            "timestamp with time zone" => "app.now()".to_owned(),
            "uuid" => match self.all().into_iter().find(|(id, _)| *id == value) {
                Some((_, name)) => format!("ids.{name}"),
                None => literal(value),
            },
            // Keys of objects contain ids.
            "text" => self
                .all()
                .into_iter()
                .fold(literal(value), |text, (id, name)| text.replace(id, &format!("' || ids.{name} || E'"))),
            _ => literal(value),
        }
    }

    /// Returns each id with its name in the subquery `ids`.
    fn all(&self) -> [(&str, &str); 4] {
        [(&self.tenant, "tenant"), (&self.file, "file"), (&self.blob, "blob"), (&self.request, "request")]
    }
}

/// Returns an SQL literal without colons, because pgbench replaces `:name` by a variable.
fn literal(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('\'', "\\'").replace(':', "\\x3a");
    format!("E'{value}'")
}
