//! A private database for each test, in the server that `scripts/with-postgres` started.

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use secrecy::SecretString;
use strongroom::db::migrate;

pub(crate) const APP_LOGIN: &str = "e_two_e_app";
pub(crate) const SYSTEM_LOGIN: &str = "e_two_e_system";

pub(crate) struct TestDatabase {
    admin_url: String,
    pub(crate) name: String,
}

impl TestDatabase {
    /// Creates an empty database.
    pub(crate) async fn create(name: &str) -> Self {
        let admin_url = std::env::var("STRONGROOM_TEST_DATABASE_URL")
            .expect("STRONGROOM_TEST_DATABASE_URL is not set: run the tests through scripts/with-postgres");
        Self::create_in(admin_url, name).await
    }

    async fn create_in(admin_url: String, name: &str) -> Self {
        let name = format!("e2e_{name}_{}", std::process::id());
        execute(&admin_url, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        execute(&admin_url, &format!("CREATE DATABASE {name}")).await;
        Self { admin_url, name }
    }

    /// Creates a database with all migrations and with logins for the service.
    pub(crate) async fn create_migrated(name: &str) -> Self {
        Self::create(name).await.migrate().await
    }

    /// Does the same in another server. `admin_url` is the URL of its superuser.
    pub(crate) async fn create_migrated_in(admin_url: &str, name: &str) -> Self {
        Self::create_in(admin_url.to_owned(), name).await.migrate().await
    }

    async fn migrate(self) -> Self {
        let database = self;
        let url = SecretString::from(database.url("postgres"));
        migrate::up(&url).await.unwrap();
        migrate::create_login(&url, APP_LOGIN, "strongroom_app").await.unwrap();
        migrate::create_login(&url, SYSTEM_LOGIN, "strongroom_system").await.unwrap();
        database
    }

    /// Returns the URL for a role.
    pub(crate) fn url(&self, role: &str) -> String {
        let (_, rest) = self.admin_url.split_once('@').unwrap();
        let (host, _) = rest.rsplit_once('/').unwrap();
        format!("postgres://{role}@{host}/{}", self.name)
    }

    /// Returns the URL for the superuser.
    pub(crate) fn superuser_url(&self) -> String {
        self.url("postgres")
    }

    pub(crate) async fn drop_database(self) {
        execute(&self.admin_url, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

async fn execute(url: &str, sql: &str) {
    AsyncPgConnection::establish(url).await.unwrap().batch_execute(sql).await.unwrap();
}
