//! A server and a worker start only on a database whose committed transactions survive a crash, unless the
//! configuration says that they need not.

use tokio_postgres::NoTls;

use crate::{
    database::{APP_LOGIN, SYSTEM_LOGIN, TestDatabase},
    postgres::Postgres,
    server::{Server, Site},
};

const SETTINGS: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

/// Starts a process and returns the error with which it refuses the database.
async fn refusal_of(site: &Site, command: &str) -> String {
    let mut command = site.command(&[command]);
    command.env("STRONGROOM_DATABASE__ALLOW_UNSAFE", "false");
    let output = command.output().await.unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// Checks that both processes refuse the database because of these settings, and only these.
async fn assert_refused(site: &Site, unsafe_settings: &[&str]) {
    for command in ["serve", "worker"] {
        let error = refusal_of(site, command).await;
        assert!(
            error.contains("refusing to start") && error.contains("database.allow_unsafe = true"),
            "{error}"
        );
        for setting in SETTINGS {
            let is_named = error.contains(&format!("{setting} = off"));
            assert_eq!(is_named, unsafe_settings.contains(&setting), "{command}, {setting}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn database_that_may_lose_commits_is_refused() {
    let postgres = Postgres::start().await;
    let database = TestDatabase::create_migrated_in(&postgres.url(), "unsafe").await;
    let superuser_url = database.superuser_url();
    let site = Site::with_database(database);
    for setting in SETTINGS {
        postgres.kill();
        postgres.restart_with(&format!("-c {setting}=off")).await;
        assert_refused(&site, &[setting]).await;
    }
    postgres.kill();
    postgres.restart_with("-c fsync=off -c full_page_writes=off -c synchronous_commit=off").await;
    assert_refused(&site, &SETTINGS).await;
    // The other commands of a site allow it.
    site.start_server().await.kill().await;

    // What counts is the setting that is in effect for a role of the service.
    postgres.kill();
    postgres.restart().await;
    let (client, connection) = tokio_postgres::connect(&superuser_url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let set = async |login: &str, value: &str| {
        client.batch_execute(&format!("ALTER ROLE {login} SET synchronous_commit = {value}")).await.unwrap();
    };
    for (login, url_key) in [(SYSTEM_LOGIN, "database.system_url"), (APP_LOGIN, "database.url")] {
        set(login, "off").await;
        assert_refused(&site, &["synchronous_commit"]).await;
        let error = refusal_of(&site, "serve").await;
        assert!(error.contains(&format!("(source: user; seen by: {url_key})")), "{error}");
        set(login, "on").await;
    }
    // A commit that no standby has is still on the disk of the primary.
    for value in ["local", "remote_write", "on"] {
        set(APP_LOGIN, value).await;
        let mut command = site.command(&["serve", "--with-worker"]);
        command.env("STRONGROOM_DATABASE__ALLOW_UNSAFE", "false");
        Server::start(command).await.kill().await;
    }
}
