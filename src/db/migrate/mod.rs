//! The embedded migrations and functions. They are applied under an advisory lock, as the role
//! `strongroom_migrate`. `migrations/README.md` describes the files.

mod embedded;
mod schema;
mod template;

use std::path::Path;

use diesel::{QueryableByName, sql_types::Text};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::MigrationHarness;
use secrecy::{ExposeSecret, SecretString};

pub use self::schema::SchemaError;
pub(super) use self::schema::check as check_schema;
pub use self::template::{TemplateError, replace_state_names};
use self::{
    embedded::{MIGRATIONS, Migrations, render_functions},
    schema::SchemaVersion,
};
use super::{
    DbError, DbErrorKind,
    connect::{ConnectionSetup, check_plaintext, tls_config},
    sql::statement,
};

const ROLES: &str = include_str!("../roles.sql");
/// The key of the lock is arbitrary, but all versions of the service must use the same one.
const LOCK: &str = "SELECT pg_advisory_lock(7301444403450283617)";

/// The database to migrate.
#[derive(Debug, Clone, Copy)]
pub struct MigrationTarget<'a> {
    /// The connection URL of a role that can become `strongroom_migrate`.
    pub url: &'a SecretString,
    /// The CA that signed the server's certificate. Without it, the connection is not encrypted.
    pub tls_ca_file: Option<&'a Path>,
    /// Whether a connection without TLS may leave this machine.
    pub allow_plaintext: bool,
}

impl<'a> From<&'a SecretString> for MigrationTarget<'a> {
    fn from(url: &'a SecretString) -> Self {
        Self { url, tls_ca_file: None, allow_plaintext: false }
    }
}

/// The status of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// The name of its directory.
    pub name: String,
    pub is_applied: bool,
}

/// The result of [`up`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// The versions of the applied migrations.
    pub applied: Vec<String>,
    /// Whether a newer version of the service has migrated the database. Its functions were left unchanged.
    pub is_database_newer: bool,
}

/// Creates the roles, applies all pending migrations, and creates or replaces all functions.
pub async fn up<'a>(target: impl Into<MigrationTarget<'a>>) -> Result<MigrationReport, DbError> {
    let mut connection = connect(target.into()).await?;
    connection.batch_execute(ROLES).await.map_err(|error| DbError::from_driver("create roles", error))?;
    lock(&mut connection).await?;
    let former = schema::read_version(&mut connection).await?;
    let mut harness = AsyncMigrationHarness::new(connection);
    let applied: Vec<String> = harness
        .run_pending_migrations(Migrations)
        .map_err(migration_error)?
        .into_iter()
        .map(|version| version.to_string())
        .collect();
    let is_database_newer = former.is_some_and(|version| version.is_newer());
    if !is_database_newer {
        apply_functions(&mut harness.into_inner()).await?;
    }
    Ok(MigrationReport { applied, is_database_newer })
}

/// Creates or replaces all functions and stores the version of the schema, in one transaction.
async fn apply_functions(connection: &mut AsyncPgConnection) -> Result<(), DbError> {
    let functions = render_functions().map_err(|error| migration_error(error.into()))?;
    let sql = format!("BEGIN;\n{functions}{};\nCOMMIT;", SchemaVersion::embedded().store_sql());
    connection.batch_execute(&sql).await.map_err(|error| DbError::from_driver("create functions", error))
}

/// Reverts the newest applied migration. Returns its version, or `None` if no migration is applied.
///
/// The functions remain, except for those that the migration drops. `up` replaces them, unless the database
/// still has a newer migration than the version that runs `up`.
pub async fn down<'a>(target: impl Into<MigrationTarget<'a>>) -> Result<Option<String>, DbError> {
    let mut connection = connect(target.into()).await?;
    lock(&mut connection).await?;
    if list_applied(&mut connection).await?.is_empty() {
        return Ok(None);
    }
    let mut harness = AsyncMigrationHarness::new(connection);
    let reverted = harness.revert_last_migration(Migrations).map_err(migration_error)?.to_string();
    let mut connection = harness.into_inner();
    // Without migrations there is no schema that could have a version.
    if let Some(migration) = list_applied(&mut connection).await?.into_iter().max() {
        let sql = SchemaVersion { migration, functions: 0 }.store_sql();
        connection
            .batch_execute(&sql)
            .await
            .map_err(|error| DbError::from_driver("store schema version", error))?;
    }
    Ok(Some(reverted))
}

/// Returns the status of every embedded migration, oldest first.
pub async fn status<'a>(target: impl Into<MigrationTarget<'a>>) -> Result<Vec<MigrationStatus>, DbError> {
    let mut connection = connect(target.into()).await?;
    let applied = list_applied(&mut connection).await?;
    let known = MIGRATIONS.iter().map(|migration| MigrationStatus {
        name: migration.name.to_owned(),
        is_applied: applied.iter().any(|version| version == migration.version()),
    });
    Ok(known.collect())
}

#[derive(QueryableByName)]
struct VersionRow {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Returns the applied versions. Does not create the migrations table: reading the status must not change
/// anything.
async fn list_applied(connection: &mut AsyncPgConnection) -> Result<Vec<String>, DbError> {
    // Neither the catalog nor diesel's table is in the schema of the query builder.
    let table: Vec<VersionRow> = statement(
        "find migrations table",
        "SELECT relname::text AS version FROM pg_class WHERE oid = to_regclass('public.__diesel_schema_migrations')",
    )
    .load(connection)
    .await?;
    if table.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<VersionRow> =
        statement("list migrations", "SELECT version FROM public.__diesel_schema_migrations")
            .load(connection)
            .await?;
    Ok(rows.into_iter().map(|row| row.version).collect())
}

async fn connect(target: MigrationTarget<'_>) -> Result<AsyncPgConnection, DbError> {
    check_plaintext("database.migrate_url", target.url, target.tls_ca_file, target.allow_plaintext)?;
    let tls = target
        .tls_ca_file
        .map(tls_config)
        .transpose()
        .map_err(|error| DbError::new(DbErrorKind::Other, "read database.tls_ca_file", error))?;
    let setup = ConnectionSetup { tls, keeps_statements: true };
    super::connect::connect(setup, target.url.expose_secret().to_owned())
        .await
        .map_err(|error| DbError::new(DbErrorKind::Unavailable, "connect to the database", error))
}

/// Switches to the owner of the tables, and takes the advisory lock. Waits while another run holds it.
async fn lock(connection: &mut AsyncPgConnection) -> Result<(), DbError> {
    let session = format!("SET ROLE strongroom_migrate; SET search_path = public; {LOCK}");
    connection
        .batch_execute(&session)
        .await
        .map_err(|error| DbError::from_driver("set role strongroom_migrate", error))
}

fn migration_error(error: Box<dyn std::error::Error + Send + Sync>) -> DbError {
    DbError::new(DbErrorKind::Other, "migrate", error)
}

/// Creates a login role that is a member of one of the service's roles. Does nothing if it exists.
pub async fn create_login(url: &SecretString, login: &str, role: &str) -> Result<(), DbError> {
    // The names are spliced into SQL. All callers pass constants; the check guards against others.
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if !is_plain(login) || !is_plain(role) {
        return Err(DbError::new(
            DbErrorKind::Other,
            "create login",
            "role names may contain only a-z and _",
        ));
    }
    let sql = format!(
        "DO $$ BEGIN
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{login}') THEN
                 CREATE ROLE {login} LOGIN INHERIT;
             END IF;
         EXCEPTION WHEN duplicate_object OR unique_violation THEN
             NULL; -- created concurrently from another database of this cluster
         END $$;
         GRANT {role} TO {login}"
    );
    connect(url.into())
        .await?
        .batch_execute(&sql)
        .await
        .map_err(|error| DbError::from_driver("create login", error))
}

/// Returns whether a connection to this URL can be established.
pub async fn is_reachable(url: &SecretString) -> bool {
    connect(url.into()).await.is_ok()
}
