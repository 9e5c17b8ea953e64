//! A database per test, cloned from one that is migrated once in every process, and its superuser's own connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use secrecy::{ExposeSecret, SecretString};
use strongroom::{db::migrate, domain::file::ContentState};
use tokio::sync::{Mutex, OnceCell};
use tokio_postgres::{Client, NoTls, Row, types::ToSql};
use url::Url;

const URL: &str = "STRONGROOM_TEST_DATABASE_URL";
const APP_LOGIN: &str = "strongroom_test_app";
const SYSTEM_LOGIN: &str = "strongroom_test_system";

/// The database of one test.
#[derive(Debug, Clone)]
pub(crate) struct TestDatabase {
    server: Url,
    name: String,
    /// Where the service's two roles go in, if not at the server's own door: the one for requests, and the one for work
    /// across tenants.
    pub(crate) doors: Option<[SocketAddr; 2]>,
}

/// The server that the tests are lent.
pub(crate) fn server() -> Url {
    let Ok(url) = std::env::var(URL) else {
        panic!("{URL} is not set: run through scripts/with-postgres");
    };
    url.parse().unwrap()
}

fn url(server: &Url, database: &str, login: Option<&str>) -> SecretString {
    let mut url = server.clone();
    url.set_path(database);
    if let Some(login) = login {
        url.set_username(login).unwrap();
    }
    SecretString::from(url.to_string())
}

async fn connect(url: &SecretString) -> Client {
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
            let admin = connect(&url(&server(), "postgres", None)).await;
            admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
            prepare(&url(&server(), &name, None)).await;
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

async fn prepare(database: &SecretString) {
    migrate::up(database).await.unwrap();
    migrate::create_login(database, APP_LOGIN, "strongroom_app").await.unwrap();
    migrate::create_login(database, SYSTEM_LOGIN, "strongroom_system").await.unwrap();
}

impl TestDatabase {
    /// A database in a server of one test's own, or else in the one that the tests are lent.
    pub(crate) async fn create(own_server: Option<Url>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        if let Some(server) = own_server {
            let name = "postgres".to_owned();
            prepare(&url(&server, &name, None)).await;
            return Self { server, name, doors: None };
        }
        let template = template().await;
        let (server, name) = (server(), format!("{template}_{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let admin = connect(&url(&server, "postgres", None)).await;
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.unwrap();
        Self { server, name, doors: None }
    }

    /// A server of the test's own goes as a whole.
    pub(crate) async fn remove(&self) {
        if self.name == "postgres" {
            return;
        }
        let admin = connect(&url(&self.server, "postgres", None)).await;
        admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await.unwrap();
    }

    pub(crate) fn app_url(&self) -> SecretString {
        self.through(0, url(&self.server, &self.name, Some(APP_LOGIN)))
    }

    pub(crate) fn system_url(&self) -> SecretString {
        self.through(1, url(&self.server, &self.name, Some(SYSTEM_LOGIN)))
    }

    fn through(&self, door: usize, url: SecretString) -> SecretString {
        let Some(door) = self.doors.map(|doors| doors[door]) else { return url };
        let mut url: Url = url.expose_secret().parse().unwrap();
        url.set_ip_host(door.ip()).unwrap();
        url.set_port(Some(door.port())).unwrap();
        SecretString::from(url.to_string())
    }

    pub(crate) fn superuser_url(&self) -> SecretString {
        url(&self.server, &self.name, None)
    }

    /// A connection as the superuser, which row-level security does not bind.
    pub(crate) async fn owner(&self) -> Owner {
        Owner::connect(self.superuser_url()).await
    }

    /// A connection as the role that serves requests, without any context.
    pub(crate) async fn as_app(&self) -> Client {
        connect(&self.app_url()).await
    }

    /// A login that was given another role; for what the service must refuse.
    pub(crate) async fn login(&self, login: &str, role: &str) -> SecretString {
        migrate::create_login(&self.superuser_url(), login, role).await.unwrap();
        url(&self.server, &self.name, Some(login))
    }
}

/// The superuser's connection; made anew when the server was gone in between.
pub(crate) struct Owner {
    url: SecretString,
    client: Mutex<Arc<Client>>,
}

impl Owner {
    async fn connect(url: SecretString) -> Self {
        let client = Mutex::new(Arc::new(connect(&url).await));
        Self { url, client }
    }

    async fn client(&self) -> Arc<Client> {
        let mut client = self.client.lock().await;
        if client.is_closed() {
            *client = Arc::new(connect(&self.url).await);
        }
        Arc::clone(&client)
    }

    pub(crate) async fn rows(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.client().await.query(sql, values).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
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
        self.client().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Puts the content of everything into a state, past the guards that allow but few moves.
    pub(crate) async fn put_content_state(&self, state: ContentState) {
        for table in ["versions", "files"] {
            let set = format!("UPDATE {table} SET content_state = {}", state.number());
            self.past_guards(table, &set).await;
        }
    }

    /// Runs something that the triggers of a table would refuse.
    pub(crate) async fn past_guards(&self, table: &str, sql: &str) {
        let sql = format!(
            "ALTER TABLE {table} DISABLE TRIGGER USER; {sql}; ALTER TABLE {table} ENABLE TRIGGER USER"
        );
        self.run(&sql).await;
    }

    pub(crate) async fn ping(&self) {
        self.client().await.simple_query("").await.unwrap();
    }
}
