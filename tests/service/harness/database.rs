//! One database per test, cloned from a template that each process migrates once, and a superuser's
//! connection to it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use secrecy::{ExposeSecret, SecretString};
use strongroom::{
    db::migrate::{self, replace_state_names},
    domain::file::ContentState,
};
use tokio::sync::{Mutex, OnceCell};
use tokio_postgres::{Client, NoTls, Row, types::ToSql};
use url::Url;

const URL: &str = "STRONGROOM_TEST_DATABASE_URL";
const BIN: &str = "STRONGROOM_POSTGRES_BIN";
const APP_LOGIN: &str = "strongroom_test_app";
const SYSTEM_LOGIN: &str = "strongroom_test_system";

/// The database of one test.
#[derive(Debug, Clone)]
pub(crate) struct TestDatabase {
    server: Url,
    name: String,
    /// The addresses that the two roles of the service connect to, if they differ from the server's: first the
    /// role for requests, then the role for work across tenants.
    pub(crate) addresses: Option<[SocketAddr; 2]>,
}

/// Returns the URL of the server that all tests share.
pub(crate) fn test_server_url() -> Url {
    let Ok(url) = std::env::var(URL) else {
        panic!("{URL} is not set; run through scripts/with-postgres");
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

/// Creates and migrates the template on the first call. Returns its name.
async fn create_template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let name = format!("strongroom_template_{}", std::process::id());
            let admin = connect(&url(&test_server_url(), "postgres", None)).await;
            admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
            migrate_and_create_logins(&url(&test_server_url(), &name, None)).await;
            // PostgreSQL copies a template only while nothing is connected to it.
            admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
            let others = format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'"
            );
            while admin.query_one(&others, &[]).await.unwrap().get::<_, i64>(0) > 0 {}
            name
        })
        .await
}

/// Runs a program of PostgreSQL.
fn run_program(name: &str, arguments: &[&str]) {
    let bin = std::env::var_os(BIN)
        .unwrap_or_else(|| panic!("{BIN} is not set; run through scripts/with-postgres"));
    let output =
        std::process::Command::new(std::path::Path::new(&bin).join(name)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn migrate_and_create_logins(database: &SecretString) {
    migrate::up(database).await.unwrap();
    migrate::create_login(database, APP_LOGIN, "strongroom_app").await.unwrap();
    migrate::create_login(database, SYSTEM_LOGIN, "strongroom_system").await.unwrap();
}

impl TestDatabase {
    /// Creates a database on the test's own server, or on the shared server if there is none.
    pub(crate) async fn create(own_server: Option<Url>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        if let Some(server) = own_server {
            let name = "postgres".to_owned();
            migrate_and_create_logins(&url(&server, &name, None)).await;
            return Self { server, name, addresses: None };
        }
        let template = create_template().await;
        let (server, name) =
            (test_server_url(), format!("{template}_{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let admin = connect(&url(&server, "postgres", None)).await;
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await.unwrap();
        Self { server, name, addresses: None }
    }

    /// Copies the database to another one of the server, as operators do.
    pub(crate) async fn dump_and_restore(&self) -> Self {
        self.restore_to(Self { name: format!("{}_copy", self.name), ..self.clone() }).await
    }

    /// Copies the database to another server.
    pub(crate) async fn dump_and_restore_on(&self, server: Url) -> Self {
        // Creates the roles.
        migrate_and_create_logins(&url(&server, "postgres", None)).await;
        self.restore_to(Self { server, name: "restored".to_owned(), addresses: None }).await
    }

    async fn restore_to(&self, copy: Self) -> Self {
        let admin = connect(&url(&copy.server, "postgres", None)).await;
        admin.batch_execute(&format!("CREATE DATABASE {}", copy.name)).await.unwrap();
        let urls = [self.superuser_url(), copy.superuser_url()];
        tokio::task::spawn_blocking(move || {
            let [from, to] = urls.each_ref().map(ExposeSecret::expose_secret);
            let dump = tempfile::NamedTempFile::new().unwrap();
            let file = dump.path().to_str().unwrap();
            run_program("pg_dump", &["--format=custom", "--file", file, from]);
            run_program("pg_restore", &["--exit-on-error", "--dbname", to, file]);
        })
        .await
        .unwrap();
        copy
    }

    /// Drops the database. A test with its own server deletes the whole server instead.
    pub(crate) async fn drop_database(&self) {
        if self.name == "postgres" {
            return;
        }
        let admin = connect(&url(&self.server, "postgres", None)).await;
        admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await.unwrap();
    }

    pub(crate) fn app_url(&self) -> SecretString {
        self.with_address_of(0, url(&self.server, &self.name, Some(APP_LOGIN)))
    }

    pub(crate) fn system_url(&self) -> SecretString {
        self.with_address_of(1, url(&self.server, &self.name, Some(SYSTEM_LOGIN)))
    }

    fn with_address_of(&self, role: usize, url: SecretString) -> SecretString {
        let Some(address) = self.addresses.map(|addresses| addresses[role]) else { return url };
        let mut url: Url = url.expose_secret().parse().unwrap();
        url.set_ip_host(address.ip()).unwrap();
        url.set_port(Some(address.port())).unwrap();
        SecretString::from(url.to_string())
    }

    pub(crate) fn superuser_url(&self) -> SecretString {
        url(&self.server, &self.name, None)
    }

    /// Connects as the superuser, which bypasses row-level security.
    pub(crate) async fn connect_as_superuser(&self) -> Superuser {
        Superuser::connect(self.superuser_url()).await
    }

    /// Connects as the role that serves requests, without a tenant context.
    pub(crate) async fn connect_as_app(&self) -> Client {
        connect(&self.app_url()).await
    }

    /// Creates a login with this role and returns its URL.
    pub(crate) async fn create_login(&self, login: &str, role: &str) -> SecretString {
        migrate::create_login(&self.superuser_url(), login, role).await.unwrap();
        url(&self.server, &self.name, Some(login))
    }
}

/// The superuser's connection, which is reopened after a restart of the server. Its SQL names states like that
/// of the migrations: `{upload_state.open}`.
pub(crate) struct Superuser {
    url: SecretString,
    client: Mutex<Arc<Client>>,
}

impl Superuser {
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

    pub(crate) async fn query_rows(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        let sql = replace_state_names(sql).unwrap();
        self.client().await.query(&sql, values).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Returns the number that a query selects, 0 for NULL.
    pub(crate) async fn query_number(&self, sql: &str) -> i64 {
        let rows = self.query_rows(&format!("SELECT ({sql})::bigint"), &[]).await;
        rows[0].get::<_, Option<i64>>(0).unwrap_or_default()
    }

    /// Returns the texts of the first column.
    pub(crate) async fn query_texts(&self, sql: &str) -> Vec<String> {
        self.query_rows(sql, &[]).await.iter().map(|row| row.get(0)).collect()
    }

    pub(crate) async fn execute(&self, sql: &str) {
        let sql = replace_state_names(sql).unwrap();
        self.client().await.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Sets the content state of all files and versions, including transitions that the triggers reject.
    pub(crate) async fn set_content_state(&self, state: ContentState) {
        for table in ["versions", "files"] {
            let set = format!("UPDATE {table} SET content_state = {}", state.number());
            self.execute_without_triggers(table, &set).await;
        }
    }

    /// Executes SQL while the triggers of a table are disabled.
    pub(crate) async fn execute_without_triggers(&self, table: &str, sql: &str) {
        let sql = format!(
            "ALTER TABLE {table} DISABLE TRIGGER USER; {sql}; ALTER TABLE {table} ENABLE TRIGGER USER"
        );
        self.execute(&sql).await;
    }

    pub(crate) async fn ping(&self) {
        self.client().await.simple_query("").await.unwrap();
    }
}
