//! The migration of a database that contains rows of an earlier version.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde_json::Value;
use strongroom::db::migrate;
use tokio_postgres::{Client, NoTls};

use crate::database::TestDatabase;

/// The newest migration of the baseline.
const BASELINE: &str = "20261130001400";
const ROWS: &str = include_str!("baseline_rows.sql");

/// Selects all tables, except for partitions and the list of migrations.
const TABLES: &str = "
    SELECT relname::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
      AND relname <> '__diesel_schema_migrations'";

#[tokio::test(flavor = "multi_thread")]
async fn migrations_keep_rows_of_baseline() {
    let database = TestDatabase::create("baseline").await;
    let url = SecretString::from(database.superuser_url());
    migrate::up(&url).await.unwrap();
    let later = revert_to_baseline(&url).await;

    let client = connect(&database).await;
    client.batch_execute(ROWS).await.unwrap();
    let before = read_rows(&client).await;
    let empty: Vec<_> = before.iter().filter(|(_, rows)| rows.is_empty()).map(|(table, _)| table).collect();
    assert!(empty.is_empty(), "no rows in {empty:?}");
    assert!(before.len() >= 25, "{} tables", before.len());

    // Twice, so that rows also survive `down`.
    for _ in 0..2 {
        let report = migrate::up(&url).await.unwrap();
        assert_eq!(report.applied, later);
        assert!(!report.is_database_newer);
        assert_rows_kept(&before, &read_rows(&client).await);
        assert_eq!(revert_to_baseline(&url).await, later);
        assert_eq!(read_rows(&client).await, before);
    }
    drop(client);
    database.drop_database().await;
}

/// A dump of the version before epochs was restored into a server with lower transaction ids, and is upgraded.
#[tokio::test(flavor = "multi_thread")]
async fn restored_events_belong_to_former_epoch() {
    // The webhook in these rows belongs to another server. Without it, the ids of events show that they do.
    for (name, removed) in [("restored_events", ""), ("restored_events_only", "DELETE FROM webhooks")] {
        assert_restored_events(name, removed).await;
    }
}

async fn assert_restored_events(name: &str, removed: &str) {
    let database = TestDatabase::create(name).await;
    let url = SecretString::from(database.superuser_url());
    migrate::up(&url).await.unwrap();
    revert_to_baseline(&url).await;
    let client = connect(&database).await;
    for rows in [ROWS, "UPDATE events SET xid = '200000000000000'", removed] {
        client.batch_execute(rows).await.unwrap();
    }
    migrate::up(&url).await.unwrap();
    let readable = "SELECT bool_and((e.epoch, e.xid) < (SELECT b.epoch, b.xid FROM app.event_bound() AS b)) FROM events AS e";
    for epoch in [1, 1] {
        assert!(client.query_one(readable, &[]).await.unwrap().get::<_, bool>(0));
        let current = client.query_one("SELECT app.position_epoch()", &[]).await.unwrap();
        assert_eq!(current.get::<_, i32>(0), epoch);
    }
    let webhooks =
        "SELECT coalesce(bool_and(p.epoch = w.position_epoch), true) FROM webhooks AS w JOIN app.position_epochs AS p
                    USING (incarnation)";
    assert!(client.query_one(webhooks, &[]).await.unwrap().get::<_, bool>(0), "it continues at its position");
    drop(client);
    database.drop_database().await;
}

/// Reverts all migrations after the baseline. Returns their versions, oldest first.
async fn revert_to_baseline(url: &SecretString) -> Vec<String> {
    let mut reverted = Vec::new();
    let is_later = |migration: &migrate::MigrationStatus| {
        migration.is_applied && migration.name.split('_').next() > Some(BASELINE)
    };
    while migrate::status(url).await.unwrap().iter().any(is_later) {
        reverted.insert(0, migrate::down(url).await.unwrap().unwrap());
    }
    reverted
}

async fn connect(database: &TestDatabase) -> Client {
    let (client, connection) = tokio_postgres::connect(&database.superuser_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Returns the rows of each table, sorted by their text.
async fn read_rows(client: &Client) -> BTreeMap<String, Vec<Value>> {
    let mut tables = BTreeMap::new();
    for table in client.query(TABLES, &[]).await.unwrap() {
        let table: String = table.get(0);
        let sql = format!("SELECT to_jsonb(t)::text FROM {table} AS t ORDER BY 1");
        let rows = client.query(&sql, &[]).await.unwrap();
        let rows = rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap());
        tables.insert(table, rows.collect());
    }
    tables
}

/// Checks that each former row exists with its former values. Migrations may add tables and columns.
#[track_caller]
fn assert_rows_kept(before: &BTreeMap<String, Vec<Value>>, after: &BTreeMap<String, Vec<Value>>) {
    let contains = |new: &Value, old: &Value| {
        old.as_object().unwrap().iter().all(|(column, value)| new.get(column) == Some(value))
    };
    for (table, rows) in before {
        assert_eq!(after[table].len(), rows.len(), "{table}");
        for row in rows {
            assert!(
                after[table].iter().any(|new| contains(new, row)),
                "{table}: {row} became {:?}",
                after[table]
            );
        }
    }
}
