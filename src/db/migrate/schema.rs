//! The comparison of the database's schema with the schema that this version of the service needs.
//!
//! `migrate up` stores the version of the schema as the comment of the schema `app`, and a digest of each
//! function's SQL as the comment of the function. Every role can read comments, and backups contain them.

use std::collections::BTreeMap;

use diesel::{
    QueryableByName,
    sql_types::{Nullable, Text},
};
use diesel_async::AsyncPgConnection;

use super::embedded::{EmbeddedFunction, FUNCTIONS, FUNCTIONS_REVISION, MIGRATIONS};
use crate::{
    admission::Holder,
    db::{
        DbError, DbErrorKind,
        pool::Pool,
        sql::statement,
        tenant_tx::{begin_with, commit},
    },
};

/// The reason for rejecting the schema of the database.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The schema could not be read.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The schema is older than this version needs, or a function was changed.
    #[error(
        "refusing to start: the schema of the database does not match this version: {}; run `strongroom migrate up`",
        .0.join(", ")
    )]
    Mismatch(Vec<String>),
}

/// The version of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SchemaVersion {
    /// The version of the newest applied migration.
    pub(super) migration: String,
    /// The revision of the functions. 0 after `migrate down`, when they may not match the migrations.
    pub(super) functions: u32,
}

const COMMENT_PREFIX: &str = "schema version ";

impl SchemaVersion {
    /// Returns the version that this version of the service needs.
    pub(super) fn embedded() -> Self {
        let migration = MIGRATIONS.last().map_or("", |migration| migration.version());
        Self { migration: migration.to_owned(), functions: FUNCTIONS_REVISION }
    }

    /// Returns whether a newer version of the service migrated the database.
    pub(super) fn is_newer(&self) -> bool {
        let embedded = Self::embedded();
        self.migration > embedded.migration || self.functions > embedded.functions
    }

    /// Returns the statement that stores the version in the database.
    pub(super) fn store_sql(&self) -> String {
        format!("COMMENT ON SCHEMA app IS '{COMMENT_PREFIX}{self}'")
    }

    fn parse(comment: &str) -> Option<Self> {
        let (migration, functions) = comment.strip_prefix(COMMENT_PREFIX)?.split_once('.')?;
        Some(Self { migration: migration.to_owned(), functions: functions.parse().ok()? })
    }
}

impl std::fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.migration, self.functions)
    }
}

/// A function of the schema `app`.
#[derive(Debug, Clone, QueryableByName)]
struct FunctionRow {
    #[diesel(sql_type = Text)]
    name: String,
    /// The mark that `migrate up` set.
    #[diesel(sql_type = Nullable<Text>)]
    comment: Option<String>,
    /// The text between the dollar quotes. Empty for functions with an SQL-standard body.
    #[diesel(sql_type = Text)]
    body: String,
}

#[derive(QueryableByName)]
struct CommentRow {
    #[diesel(sql_type = Nullable<Text>)]
    comment: Option<String>,
}

/// Reads the version of the schema. Returns `None` if the database has no schema, or the
/// comment of the schema contains no version.
pub(super) async fn read_version(
    connection: &mut AsyncPgConnection,
) -> Result<Option<SchemaVersion>, DbError> {
    // The catalog is not in the schema of the query builder.
    let row: Option<CommentRow> = statement(
        "read schema version",
        "SELECT obj_description(oid, 'pg_namespace') AS comment FROM pg_catalog.pg_namespace WHERE nspname = 'app'",
    )
    .first(connection)
    .await?;
    Ok(row.and_then(|row| SchemaVersion::parse(&row.comment?)))
}

async fn read_functions(connection: &mut AsyncPgConnection) -> Result<Vec<FunctionRow>, DbError> {
    // The catalog is not in the schema of the query builder.
    statement(
        "read functions",
        "SELECT p.proname::text AS name, obj_description(p.oid, 'pg_proc') AS comment, p.prosrc AS body
         FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
         WHERE n.nspname = 'app'",
    )
    .load(connection)
    .await
}

/// Checks that the database has the schema that this version needs. Only reads.
///
/// A schema of a newer version is accepted with a warning: migrations expand first, so the previous version
/// works with it during an update.
pub(in crate::db) async fn check(pool: &Pool) -> Result<(), SchemaError> {
    let mut connection = pool.acquire(Holder::PLATFORM).await?;
    // A pooler may give a statement outside a transaction two connections: to prepare it and to execute it.
    begin_with(&mut connection, "BEGIN").await?;
    let version = read_version(&mut connection).await?;
    let found = read_functions(&mut connection).await?;
    commit(connection).await?;
    let mut problems = find_pending(version.as_ref());
    let functions = find_wrong_functions(&found)
        .map_err(|error| DbError::new(DbErrorKind::Other, "render functions", error))?;
    problems.extend(functions);
    if let Some(version) = version.filter(SchemaVersion::is_newer) {
        tracing::warn!(
            database = %version,
            service = %SchemaVersion::embedded(),
            differences = problems.join(", "),
            "the schema of the database is newer than this version of the service"
        );
        return Ok(());
    }
    if problems.is_empty() { Ok(()) } else { Err(SchemaError::Mismatch(problems)) }
}

/// Finds migrations that are newer than the version of the database.
fn find_pending(version: Option<&SchemaVersion>) -> Vec<String> {
    let applied = version.map_or("", |version| &version.migration);
    let pending = MIGRATIONS.iter().filter(|migration| migration.version() > applied);
    pending.map(|migration| format!("migration {} is pending", migration.name)).collect()
}

/// Finds functions that are missing, or that were not created from the embedded SQL.
fn find_wrong_functions(found: &[FunctionRow]) -> Result<Vec<String>, super::template::TemplateError> {
    let found: BTreeMap<&str, &FunctionRow> = found.iter().map(|row| (row.name.as_str(), row)).collect();
    let mut problems = Vec::new();
    for function in FUNCTIONS {
        let sql = function.render()?;
        match found.get(function.name) {
            None => problems.push(format!("function app.{} is missing", function.name)),
            Some(row) if !row.is_from(&sql) => {
                problems.push(format!("function app.{} differs", function.name))
            }
            Some(_) => {}
        }
    }
    Ok(problems)
}

impl FunctionRow {
    /// Returns whether the function was created from this SQL. The mark covers the whole SQL, and the body
    /// shows that nobody has replaced the function since.
    fn is_from(&self, sql: &str) -> bool {
        let has_body = self.body.is_empty() || sql.contains(&format!("$${}$$", self.body));
        has_body && self.comment.as_deref() == Some(&EmbeddedFunction::comment(sql))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(migration: &str, functions: u32) -> SchemaVersion {
        SchemaVersion { migration: migration.to_owned(), functions }
    }

    fn stored_functions() -> Vec<FunctionRow> {
        let row = |function: &EmbeddedFunction| {
            let sql = function.render().unwrap();
            let body = sql.split("$$").nth(1).unwrap_or_default().to_owned();
            let comment = Some(EmbeddedFunction::comment(&sql));
            FunctionRow { name: function.name.to_owned(), comment, body }
        };
        FUNCTIONS.iter().map(row).collect()
    }

    #[test]
    fn stored_version_is_read_back() {
        let stored = version("20270101000000", 7);
        let sql = stored.store_sql();
        assert_eq!(SchemaVersion::parse(sql.split('\'').nth(1).unwrap()), Some(stored));
        assert_eq!(SchemaVersion::parse("standard public schema"), None);
    }

    #[test]
    fn newer_migration_or_function_is_newer() {
        let embedded = SchemaVersion::embedded();
        assert!(!embedded.is_newer());
        assert!(!version("2020", 0).is_newer());
        assert!(version("99991231235959", 0).is_newer());
        assert!(version(&embedded.migration, embedded.functions + 1).is_newer());
    }

    #[test]
    fn pending_migrations_are_found() {
        assert_eq!(find_pending(None).len(), MIGRATIONS.len());
        let newest = SchemaVersion::embedded();
        assert_eq!(find_pending(Some(&newest)), [""; 0]);
        let first = version(MIGRATIONS[0].version(), 1);
        assert_eq!(find_pending(Some(&first)).len(), MIGRATIONS.len() - 1);
    }

    #[test]
    fn wrong_functions_are_found() {
        let mut found = stored_functions();
        assert_eq!(find_wrong_functions(&found).unwrap(), [""; 0]);
        found.retain(|row| row.name != "now");
        for row in &mut found {
            match row.name.as_str() {
                "protect" => row.body.push_str("-- changed"),
                "tenant_id" => row.comment = None,
                _ => {}
            }
        }
        let expected =
            ["function app.now is missing", "function app.protect differs", "function app.tenant_id differs"];
        assert_eq!(find_wrong_functions(&found).unwrap(), expected);
    }
}
