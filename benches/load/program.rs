//! The programs to measure: this build and, in a comparison, another one. Each has its own databases, because
//! their schemas can differ.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use secrecy::SecretString;
use strongroom::db::migrate;

use crate::{
    Outcome,
    database::{APP_LOGIN, SYSTEM_LOGIN, TestDatabase},
};

/// A strongroom program.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// The beginning of the names of its databases.
    label: &'static str,
}

impl Program {
    /// Returns the program of this build.
    pub(crate) fn of_this_build() -> Self {
        Self { path: env!("CARGO_BIN_EXE_strongroom").into(), label: "load" }
    }

    /// Returns the program to compare with. `self` is this build.
    pub(crate) fn to_compare(path: &Path) -> Self {
        let path = if path == Path::new("self") { Self::of_this_build().path } else { path.to_owned() };
        Self { path, label: "load_other" }
    }

    /// Returns a command with these configuration keys, such as `storage.provider`, and no others.
    pub(crate) fn command<'a>(&self, settings: impl IntoIterator<Item = (&'a str, String)>) -> Command {
        let mut command = Command::new(&self.path);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STRONGROOM_")) {
            command.env_remove(name);
        }
        // The server of scripts/with-postgres may not sync. A program of an earlier version has no such key.
        let allow_unsafe =
            (self.path == Self::of_this_build().path).then(|| ("database.allow_unsafe", "true".to_owned()));
        for (key, value) in settings.into_iter().chain(allow_unsafe) {
            command.env(format!("STRONGROOM_{}", key.replace('.', "__").to_uppercase()), value);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Returns its path and the version that it reports.
    pub(crate) async fn describe(&self) -> Outcome<String> {
        let mut command = self.command([]);
        command.arg("--version");
        Ok(format!("{} ({})", run(command).await?.trim(), self.path.display()))
    }

    /// Creates a database with all migrations of this program and with logins for the service.
    pub(crate) async fn create_database(&self, name: &str) -> Outcome<TestDatabase> {
        let database = TestDatabase::create(&format!("{}_{name}", self.label)).await;
        let url = database.superuser_url();
        let mut command = self.command([("database.migrate_url", url.clone())]);
        command.args(["migrate", "up"]);
        run(command).await?;
        let url = SecretString::from(url);
        migrate::create_login(&url, APP_LOGIN, "strongroom_app").await?;
        migrate::create_login(&url, SYSTEM_LOGIN, "strongroom_system").await?;
        Ok(database)
    }
}

/// Runs a command to its end and returns its output.
async fn run(command: Command) -> Outcome<String> {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let text = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let output = tokio::process::Command::from(command).output().await;
    let output = output.map_err(|error| format!("{text}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            Err(format!("{text}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
        }
    }
}
