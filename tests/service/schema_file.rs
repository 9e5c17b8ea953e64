//! `src/db/schema.rs` is the schema of the migrated database. `scripts/schema` runs this test with
//! `STRONGROOM_WRITE_SCHEMA` set, which writes the file.

use std::{collections::BTreeMap, path::Path};

use crate::harness::service_test;

const PATH: &str = "src/db/schema.rs";

/// The first lines of the file.
const HEADER: &str = "\
//! The tables of the database, for the query builder. `scripts/schema` generates this file from the migrated
//! database, and a test compares them. Columns have their order in the table.
";

/// The imports of tables with a type of ours.
const IMPORTS: &str = "    use diesel::sql_types::*;

    use crate::db::sql::xid::Xid8;

";

/// The columns of all tables: table, column, type, whether NULL is allowed, and the position in the primary
/// key.
const COLUMNS: &str = "
    SELECT concat_ws('|', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
        coalesce(array_position(i.indkey::int[], a.attnum::int), -1))
    FROM pg_class AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND c.relname <> '__diesel_schema_migrations'
    ORDER BY c.relname COLLATE \"C\", a.attnum";

#[derive(Default)]
struct Table {
    columns: Vec<String>,
    primary_key: BTreeMap<i32, String>,
    has_tenant: bool,
}

/// Returns the name of the type in the query builder.
fn rust_type(sql_type: &str) -> String {
    if let Some(item) = sql_type.strip_suffix("[]") {
        return format!("Array<{}>", rust_type(item));
    }
    let name = match sql_type {
        "bigint" => "BigInt",
        "boolean" => "Bool",
        "bytea" => "Binary",
        "date" => "Date",
        "integer" => "Integer",
        "jsonb" => "Jsonb",
        "smallint" => "SmallInt",
        "text" => "Text",
        "timestamp with time zone" => "Timestamptz",
        "uuid" => "Uuid",
        "xid8" => "Xid8",
        other => panic!("the query builder has no type for {other}: add it to this test and to {PATH}"),
    };
    name.to_owned()
}

fn read_tables(lines: &[String]) -> BTreeMap<String, Table> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for line in lines {
        let [table, column, sql_type, nullable, key] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("unexpected column: {line}")
        };
        let table = tables.entry(table.to_owned()).or_default();
        let mut column_type = rust_type(sql_type);
        if nullable == "t" {
            column_type = format!("Nullable<{column_type}>");
        }
        table.columns.push(format!("        {column} -> {column_type},\n"));
        table.has_tenant |= column == "tenant_id";
        if key != "-1" {
            table.primary_key.insert(key.parse().unwrap(), column.to_owned());
        }
    }
    tables
}

/// Writes a macro call with one name per line, as rustfmt leaves it.
fn name_list(macro_name: &str, names: impl Iterator<Item = String>) -> String {
    let names: String = names.map(|name| format!("    {name},\n")).collect();
    format!("\n{macro_name}!(\n{names});\n")
}

fn write_schema(tables: &BTreeMap<String, Table>) -> String {
    let mut text = HEADER.to_owned();
    for (name, table) in tables {
        let key = table.primary_key.values().cloned().collect::<Vec<_>>().join(", ");
        let columns = table.columns.concat();
        let imports = if columns.contains("Xid8") { IMPORTS } else { "" };
        text += &format!("\ndiesel::table! {{\n{imports}    {name} ({key}) {{\n{columns}    }}\n}}\n");
    }
    text += &name_list("diesel::allow_tables_to_appear_in_same_query", tables.keys().cloned());
    let of_tenants = tables.iter().filter(|(_, table)| table.has_tenant).map(|(name, _)| name.clone());
    text + &name_list("super::sql::tenant_tables", of_tenants)
}

#[test]
fn schema_file_matches_the_database() {
    service_test(|s| async move {
        let expected = write_schema(&read_tables(&s.superuser.query_texts(COLUMNS).await));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PATH);
        if std::env::var_os("STRONGROOM_WRITE_SCHEMA").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let actual = std::fs::read_to_string(&path).unwrap();
        assert_eq!(actual, expected, "{PATH} differs from the database; run scripts/schema");
    });
}
