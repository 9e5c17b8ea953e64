//! SQL statements for setup and for queries about the server.

use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::Outcome;

pub(crate) async fn execute(url: &str, sql: &str) -> Outcome<()> {
    query(url, sql).await.map(|_| ())
}

/// Returns the first column of the first row.
pub(crate) async fn query_value(url: &str, sql: &str) -> Outcome<String> {
    let rows = query_rows(url, sql).await?;
    let first = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
    first.ok_or_else(|| format!("{sql}: no row").into())
}

/// Returns the columns of all rows in their text form. `None` is NULL.
pub(crate) async fn query_rows(url: &str, sql: &str) -> Outcome<Vec<Vec<Option<String>>>> {
    let rows = query(url, sql).await?;
    let rows = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

async fn query(url: &str, sql: &str) -> Outcome<Vec<SimpleQueryMessage>> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let rows = client.simple_query(sql).await;
    drop(client);
    connection.await??;
    rows.map_err(|error| match error.as_db_error() {
        Some(error) => error.to_string().into(),
        None => error.into(),
    })
}
