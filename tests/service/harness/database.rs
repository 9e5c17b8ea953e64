//! A database per test, cloned from one that is migrated once in every process, and its superuser's own connection.

use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::SecretString;
use strongroom::db::migrate;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls, Row, types::ToSql};
use url::Url;

const URL: &str = "STRONGROOM_TEST_DATABASE_URL";
const APP_LOGIN: &str = "strongroom_test_app";
const SYSTEM_LOGIN: &str = "strongroom_test_system";

/// The database of one test.
#[derive(Debug, Clone)]
pub(crate) struct TestDatabase {
    name: String,
}

fn server() -> Url {
    let Ok(url) = std::env::var(URL) else {
        panic!("{URL} is not set: run through scripts/with-postgres");
    };
    url.parse().unwrap()
}

fn url(database: &str, login: Option<&str>) -> SecretString {
    let mut url = server();
    url.set_path(database);
    if let Some(login) = login {
        url.set_username(login).unwrap();
    }
    SecretString::from(url.to_string())
}

async fn connect(url: &SecretString) -> Client {
    use secrecy::ExposeSecret;
    let (client, connection) = tokio_postgres::connect(url.expose_secret(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Creates and migrates the template once; answers its name.
async fn template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let name = format!("strongroom_template_{}", std::process::id());
            let admin = connect(&url("postgres", None)).await;
            admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
            let of_template = url(&name, None);
            migrate::up(&of_template).await.unwrap();
            migrate::create_login(&of_template, APP_LOGIN, "strongroom_app").await.unwrap();
            migrate::create_login(&of_template, SYSTEM_LOGIN, "strongroom_system").await.unwrap();
            // A template is copied only while nobody is connected to it.
            admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
            let others = format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'"
            );
            while admin.query_one(&others, &[]).await.unwrap().get::<_, i64>(0) > 0 {}
            name
        })
        .await
}

impl TestDatabase {
    pub(crate) async fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let template = template().await;
        let name = format!("{template}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&url("postgres", None)).await;
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.unwrap();
        Self { name }
    }

    pub(crate) async fn remove(&self) {
        let admin = connect(&url("postgres", None)).await;
        admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await.unwrap();
    }

    pub(crate) fn app_url(&self) -> SecretString {
        url(&self.name, Some(APP_LOGIN))
    }

    pub(crate) fn system_url(&self) -> SecretString {
        url(&self.name, Some(SYSTEM_LOGIN))
    }

    pub(crate) fn superuser_url(&self) -> SecretString {
        url(&self.name, None)
    }

    /// A connection as the superuser, which row-level security does not bind.
    pub(crate) async fn owner(&self) -> Owner {
        Owner(connect(&self.superuser_url()).await)
    }

    /// A connection as the role that serves requests, without any context.
    pub(crate) async fn as_app(&self) -> Client {
        connect(&self.app_url()).await
    }

    /// A login that was given another role; for what the service must refuse.
    pub(crate) async fn login(&self, login: &str, role: &str) -> SecretString {
        migrate::create_login(&self.superuser_url(), login, role).await.unwrap();
        url(&self.name, Some(login))
    }
}

/// The superuser's connection.
pub(crate) struct Owner(Client);

impl Owner {
    pub(crate) async fn rows(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.0.query(sql, values).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The number that a query answers; 0 for none.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(&format!("SELECT ({sql})::bigint"), &[]).await;
        rows[0].get::<_, Option<i64>>(0).unwrap_or_default()
    }

    /// The texts of the first column.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        self.rows(sql, &[]).await.iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.0.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub(crate) async fn ping(&self) {
        self.0.simple_query("").await.unwrap();
    }
}
