//! Migrations: compiled in, applied under an advisory lock by whoever may become `strongroom_migrate`.

use std::path::Path;

use diesel::{
    QueryableByName,
    migration::{Migration, MigrationSource},
    pg::Pg,
    sql_types::Text,
};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use secrecy::{ExposeSecret, SecretString};

use super::{
    DbError, DbErrorKind,
    pool::{encrypted, tls},
    statement::statement,
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");
const ROLES: &str = include_str!("roles.sql");
/// Any fixed number will do, as long as every version of the service uses the same.
const LOCK: &str = "SELECT pg_advisory_lock(7301444403450283617)";

/// Where to migrate, and how to get there.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// As a role that may become `strongroom_migrate`.
    pub url: &'a SecretString,
    /// The CA that signed the server's certificate; without it the connection is not encrypted.
    pub tls_ca_file: Option<&'a Path>,
}

impl<'a> From<&'a SecretString> for Server<'a> {
    fn from(url: &'a SecretString) -> Self {
        Self { url, tls_ca_file: None }
    }
}

/// One migration, and whether it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its version and verb, as its folder is called.
    pub name: String,
    /// Whether it is applied.
    pub is_applied: bool,
}

/// Creates the roles and applies what is pending. Returns the names applied.
pub async fn up<'a>(server: impl Into<Server<'a>>) -> Result<Vec<String>, DbError> {
    let mut connection = connect(server.into()).await?;
    connection.batch_execute(ROLES).await.map_err(|error| DbError::from_driver("create roles", error))?;
    let mut harness = harness(connection).await?;
    let applied = harness
        .run_pending_migrations(MIGRATIONS)
        .map_err(failed)?
        .into_iter()
        .map(|version| version.to_string())
        .collect();
    Ok(applied)
}

/// Reverts the newest migration. Returns its name, or nothing when none is applied.
pub async fn down<'a>(server: impl Into<Server<'a>>) -> Result<Option<String>, DbError> {
    let mut harness = harness(connect(server.into()).await?).await?;
    if harness.applied_migrations().map_err(failed)?.is_empty() {
        return Ok(None);
    }
    harness.revert_last_migration(MIGRATIONS).map(|version| Some(version.to_string())).map_err(failed)
}

/// Every migration this version knows, oldest first.
pub async fn status<'a>(server: impl Into<Server<'a>>) -> Result<Vec<MigrationStatus>, DbError> {
    let mut connection = connect(server.into()).await?;
    let applied = applied(&mut connection).await?;
    let mut known: Vec<MigrationStatus> = MigrationSource::<Pg>::migrations(&MIGRATIONS)
        .map_err(failed)?
        .iter()
        .map(|migration| {
            let version = migration.name().version().to_string();
            MigrationStatus { name: migration.name().to_string(), is_applied: applied.contains(&version) }
        })
        .collect();
    known.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(known)
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Reads without creating anything: asking for the status changes nothing.
async fn applied(connection: &mut AsyncPgConnection) -> Result<Vec<String>, DbError> {
    let table: Vec<Version> = statement(
        "look for migrations",
        "SELECT relname::text AS version FROM pg_class WHERE oid = to_regclass('public.__diesel_schema_migrations')",
    )
    .load(connection)
    .await?;
    if table.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Version> =
        statement("list migrations", "SELECT version FROM public.__diesel_schema_migrations")
            .load(connection)
            .await?;
    Ok(rows.into_iter().map(|row| row.version).collect())
}

async fn connect(server: Server<'_>) -> Result<AsyncPgConnection, DbError> {
    let url = server.url.expose_secret();
    let connection = match server.tls_ca_file {
        Some(ca_file) => {
            let tls = tls(ca_file)
                .map_err(|error| DbError::new(DbErrorKind::Other, "read database.tls_ca_file", error))?;
            encrypted(tls, url.to_owned()).await
        }
        None => AsyncPgConnection::establish(url).await,
    };
    connection.map_err(|error| DbError::new(DbErrorKind::Unavailable, "connect to the database", error))
}

async fn harness(
    mut connection: AsyncPgConnection,
) -> Result<AsyncMigrationHarness<AsyncPgConnection>, DbError> {
    let session = format!("SET ROLE strongroom_migrate; SET search_path = public; {LOCK}");
    connection
        .batch_execute(&session)
        .await
        .map_err(|error| DbError::from_driver("become strongroom_migrate", error))?;
    Ok(AsyncMigrationHarness::new(connection))
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> DbError {
    DbError::new(DbErrorKind::Other, "migrate", error)
}

/// Gives one of the service's roles a login of this name, unless it has it.
pub async fn create_login(url: &SecretString, login: &str, role: &str) -> Result<(), DbError> {
    // Both names are ours; the check keeps it so.
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if !is_plain(login) || !is_plain(role) {
        return Err(DbError::new(DbErrorKind::Other, "create login", "role names are lower case"));
    }
    let sql = format!(
        "DO $$ BEGIN
             IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{login}') THEN
                 CREATE ROLE {login} LOGIN INHERIT;
             END IF;
         EXCEPTION WHEN duplicate_object OR unique_violation THEN
             NULL; -- somebody else, in another database of this cluster, was faster
         END $$;
         GRANT {role} TO {login}"
    );
    connect(url.into())
        .await?
        .batch_execute(&sql)
        .await
        .map_err(|error| DbError::from_driver("create login", error))
}

/// Whether a server answers at this address.
pub async fn answers(url: &SecretString) -> bool {
    connect(url.into()).await.is_ok()
}
