//! Startup check: the service refuses a database that may lose or damage committed transactions in a crash.
//!
//! Of `synchronous_commit`, only `off` is refused. With every other value, `local` and `remote_write` too, a commit is
//! on the disk of the primary before it is acknowledged. The values differ in what a standby has by then, which is a
//! choice between availability and the loss at a failover.

use diesel::{QueryableByName, sql_types::Text};

use super::{
    DbError,
    pool::Pool,
    sql::statement,
    tenant_tx::{begin_with, commit},
};
use crate::admission::Holder;

/// Why a database is refused.
#[derive(Debug, thiserror::Error)]
pub enum DurabilityError {
    /// The settings could not be read.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Settings of the database are not safe.
    #[error(
        "refusing to start: the database has {settings}, so a crash of it could lose or damage committed files; turn \
         each setting on, or remove it where it is set (`ALTER ROLE … RESET …` for a user, `ALTER DATABASE … RESET …` \
         for a database); if the data may be lost, set `database.allow_unsafe = true` instead"
    )]
    Unsafe {
        /// The settings, each with its value, the source of the value, and the configuration keys of the URLs whose
        /// connections have it.
        settings: String,
    },
}

/// An unsafe setting of a connection.
#[derive(Debug, QueryableByName)]
struct UnsafeSetting {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    setting: String,
    /// Where it is set, such as `configuration file`, `database` or `user`.
    #[diesel(sql_type = Text)]
    source: String,
}

/// The values that are in effect for a connection of the service: of the server, of the database and of the role, and
/// those that a pooler sets.
const UNSAFE_SETTINGS: &str = "
    SELECT name, setting, source FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off' ORDER BY name";

/// Checks the settings of the connections of each pool, which is named by the configuration key of its URL. If
/// `is_allowed`, unsafe ones are logged.
pub(super) async fn check(
    pools: [(&'static str, &Pool); 2],
    is_allowed: bool,
) -> Result<(), DurabilityError> {
    let mut found = Vec::new();
    for (url_key, pool) in pools {
        let settings = read_unsafe_settings(pool).await?;
        found.extend(settings.into_iter().map(|setting| (url_key, setting)));
    }
    if found.is_empty() {
        return Ok(());
    }
    let settings = describe(&found);
    if is_allowed {
        tracing::warn!(
            settings,
            "accepted unsafe settings of the database, because of `database.allow_unsafe`; a crash of the database could \
             lose or damage committed files"
        );
        return Ok(());
    }
    Err(DurabilityError::Unsafe { settings })
}

async fn read_unsafe_settings(pool: &Pool) -> Result<Vec<UnsafeSetting>, DbError> {
    let mut connection = pool.acquire(Holder::PLATFORM).await?;
    // A pooler may give a statement outside a transaction two connections: to prepare it and to execute it.
    begin_with(&mut connection, "BEGIN").await?;
    // The schema has no system views.
    let settings = statement("read durability settings", UNSAFE_SETTINGS).load(&mut connection).await?;
    commit(connection).await?;
    Ok(settings)
}

/// Describes settings that were found over connections of these URLs, each setting once.
fn describe(found: &[(&'static str, UnsafeSetting)]) -> String {
    let mut described: Vec<(String, Vec<&str>)> = Vec::new();
    for (url_key, UnsafeSetting { name, setting, source }) in found {
        let text = format!("{name} = {setting} (source: {source}");
        match described.iter_mut().find(|(known, _)| *known == text) {
            Some((_, url_keys)) => url_keys.push(url_key),
            None => described.push((text, vec![url_key])),
        }
    }
    let each =
        described.into_iter().map(|(text, url_keys)| format!("{text}; seen by: {})", url_keys.join(", ")));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_described_once() {
        let of_url = |url_key, name: &str, source: &str| {
            let (name, setting, source) = (name.to_owned(), "off".to_owned(), source.to_owned());
            (url_key, UnsafeSetting { name, setting, source })
        };
        let found = [
            of_url("database.url", "fsync", "configuration file"),
            of_url("database.url", "synchronous_commit", "user"),
            of_url("database.system_url", "fsync", "configuration file"),
        ];
        assert_eq!(
            describe(&found),
            "fsync = off (source: configuration file; seen by: database.url, database.system_url), \
             synchronous_commit = off (source: user; seen by: database.url)"
        );
    }
}
