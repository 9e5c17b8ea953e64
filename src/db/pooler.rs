//! Detects a connection pooler that does not carry over prepared statements.
//!
//! PgBouncer in transaction mode carries them over from version 1.21, if `max_prepared_statements` is set.
//! Behind an older one, a statement that was prepared in one transaction is missing in the next, or exists
//! twice.

use secrecy::ExposeSecret;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    DbError, DbErrorKind,
    connect::{ConnectError, connect_client},
    pool::Pool,
};

/// The number of attempts to get one connection of the server for two clients in turn. Another process may
/// take it in between.
const ATTEMPTS: usize = 8;

const OPERATION: &str = "look for a connection pooler";

/// The reason why the service does not use this connection URL.
#[derive(Debug, thiserror::Error)]
pub enum PoolerError {
    /// The database could not be reached.
    #[error(transparent)]
    Database(#[from] DbError),
    /// A pooler gives each transaction another connection, and loses its prepared statements.
    #[error(
        "refusing to start: `{url_key}` leads to a connection pooler in transaction mode that does not carry over \
         prepared statements. Set `database.prepared_statements = false`, or use PgBouncer 1.21 or newer with \
         `max_prepared_statements` above 0"
    )]
    LosesStatements {
        /// The configuration key of the connection URL.
        url_key: &'static str,
    },
}

/// Checks that prepared statements can be used through `pool`.
pub(super) async fn check(pool: &Pool, url_key: &'static str) -> Result<(), PoolerError> {
    if !pool.setup().keeps_statements {
        return Ok(());
    }
    match loses_statements(pool).await.map_err(connect_error)? {
        true => Err(PoolerError::LosesStatements { url_key }),
        false => Ok(()),
    }
}

/// Prepares a statement with one client, and looks for it with another client that the pooler gave the same
/// connection of the server. Without a pooler in transaction mode this cannot happen.
async fn loses_statements(pool: &Pool) -> Result<bool, ConnectError> {
    let url = pool.url().expose_secret();
    let first = connect_client(pool.setup(), url).await?;
    let second = connect_client(pool.setup(), url).await?;
    for attempt in 0..ATTEMPTS {
        first.batch_execute("BEGIN").await?;
        let backend = read_text(&first, "SELECT pg_backend_pid()").await?;
        let text = format!("SELECT 'strongroom probe {}.{attempt}'", backend.as_deref().unwrap_or_default());
        let statement = first.prepare(&text).await?;
        first.batch_execute("COMMIT").await?;
        second.batch_execute("BEGIN").await?;
        if read_text(&second, "SELECT pg_backend_pid()").await? != backend {
            second.batch_execute("COMMIT").await?;
            continue;
        }
        let prepared = format!(
            "SELECT name FROM pg_prepared_statements WHERE statement = '{}'",
            text.replace('\'', "''")
        );
        let name = read_text(&second, &prepared).await?;
        let is_lost = name.as_deref().is_some_and(is_name_of_driver);
        if let Some(name) = name.filter(|_| is_lost) {
            // The next client of this session may choose the same name.
            second.batch_execute(&format!("DEALLOCATE \"{name}\"")).await?;
        }
        second.batch_execute("COMMIT").await?;
        drop(statement);
        return Ok(is_lost);
    }
    Ok(false)
}

/// Returns whether the driver of this process chose the name. A pooler that carries statements over chooses
/// names of its own.
fn is_name_of_driver(name: &str) -> bool {
    name.strip_prefix('s').is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the first value of a query that is sent without preparing it.
async fn read_text(client: &Client, sql: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }))
}

fn connect_error(error: ConnectError) -> DbError {
    DbError::new(DbErrorKind::Unavailable, OPERATION, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_pooler_are_not_names_of_the_driver() {
        assert!(is_name_of_driver("s0"));
        assert!(!is_name_of_driver("PGBOUNCER_7"));
    }
}
