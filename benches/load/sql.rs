//! SQL statements for setup and for queries about the server.

use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::Outcome;

pub(crate) async fn execute(url: &str, sql: &str) -> Outcome<()> {
    query(url, sql).await.map(|_| ())
}

/// Returns the first column of the first row.
pub(crate) async fn query_value(url: &str, sql: &str) -> Outcome<String> {
    let rows = query(url, sql).await?;
    let first = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    first.ok_or_else(|| format!("{sql}: no row").into())
}

async fn query(url: &str, sql: &str) -> Outcome<Vec<SimpleQueryMessage>> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let rows = client.simple_query(sql).await;
    drop(client);
    connection.await??;
    Ok(rows?)
}
