//! `strongroom serve` as a child process, found through the line it logs when it listens.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use secrecy::SecretString;
use strongroom::client::{Client, ClientOptions};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::{
    database::{APP_LOGIN, SYSTEM_LOGIN, TestDatabase},
    identity::{AUDIENCE, ISSUER, IdentityProvider},
};

/// Everything one test's service needs that outlives its process.
pub(crate) struct Site {
    pub(crate) database: TestDatabase,
    pub(crate) identity: IdentityProvider,
    directory: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
}

pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STRONGROOM_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Site {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(TestDatabase::migrated(name).await)
    }

    /// A site around a database.
    pub(crate) fn with(database: TestDatabase) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let identity = IdentityProvider::new(&directory.path().join("jwks.json"));
        Self { database, identity, directory, settings: Vec::new() }
    }

    /// Configures it otherwise than by default.
    pub(crate) fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    /// Configures more of it.
    pub(crate) fn set_all(mut self, settings: Vec<(&'static str, String)>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// A command of the binary, configured for this site.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let jwks = self.path("jwks.json");
        let issuer = format!(
            "[{{ issuer = \"{ISSUER}\", audience = \"{AUDIENCE}\", jwks_file = \"{}\" }}]",
            jwks.display()
        );
        let mut command = binary();
        command
            .args(arguments)
            .env("STRONGROOM_SERVER__LISTEN", "127.0.0.1:0")
            .env("STRONGROOM_EDGE__LISTEN", "127.0.0.1:0")
            .env("STRONGROOM_DATABASE__URL", self.database.url(APP_LOGIN))
            .env("STRONGROOM_DATABASE__SYSTEM_URL", self.database.url(SYSTEM_LOGIN))
            .env("STRONGROOM_STORAGE__PROVIDERS__LOCAL__ROOT", self.path("objects"))
            .env("STRONGROOM_AUTH__ISSUERS", issuer)
            .env("STRONGROOM_SECRETS__PAGE_TOKEN_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
            .env("STRONGROOM_TELEMETRY__LOG_FORMAT", "json")
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the service, which does background work too, and waits until it listens.
    pub(crate) async fn serve(&self) -> Server {
        Server::start(self.command(&["serve", "--with-worker"])).await
    }

    /// Runs `fsck`, and answers its report and whether it found everything clean.
    pub(crate) async fn fsck(&self, arguments: &[&str]) -> (bool, serde_json::Value) {
        let (code, report) = self.run(&[&["fsck", "--json"], arguments].concat()).await;
        (code == Some(0), report)
    }

    /// Runs a command, and answers its exit code and what it printed, which is JSON.
    pub(crate) async fn run(&self, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
        let output = self.command(arguments).output().await.unwrap();
        let printed = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            panic!("{arguments:?} said: {}", String::from_utf8_lossy(&output.stderr));
        });
        (output.status.code(), printed)
    }

    pub(crate) async fn client(&self, server: &Server, user: &str) -> Client {
        let token = self.identity.token(user, "acme", "member");
        connect(&server.grpc, token).await
    }

    pub(crate) async fn close(self) {
        self.database.drop().await;
    }
}

pub(crate) async fn connect(server: &str, token: SecretString) -> Client {
    Client::connect(ClientOptions::new(server, token)).await.unwrap()
}

/// A running service.
pub(crate) struct Server {
    pub(crate) grpc: String,
    pub(crate) edge: String,
    /// What it said at its start that it may need at most, in bytes.
    pub(crate) memory_bound_bytes: u64,
    child: Child,
    log: JoinHandle<Vec<String>>,
}

impl Server {
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        let (grpc, edge) = loop {
            let Some(line) = lines.next_line().await.unwrap() else {
                panic!("the service ended before it listened: {log:#?}");
            };
            if let Some(addresses) = listening(&line) {
                break addresses;
            }
            log.push(line);
        };
        let memory_bound_bytes =
            log.iter().find_map(|line| memory_bound(line)).expect("it says its memory bound");
        let log = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.push(line);
            }
            log
        });
        Self { grpc, edge, memory_bound_bytes, child, log }
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop, without waiting.
    pub(crate) async fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    }

    /// Waits for its end; answers its status and its log.
    pub(crate) async fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().await.unwrap();
        (status, self.log.await.unwrap())
    }

    /// The most memory it ever held, in bytes.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(Path::new(&status)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }
}

/// "at most 137 MiB = …".
fn memory_bound(line: &str) -> Option<u64> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let mebibytes = line.get("bound")?.as_str()?.strip_prefix("at most ")?.split(' ').next()?;
    Some(mebibytes.parse::<u64>().ok()? << 20)
}

fn listening(line: &str) -> Option<(String, String)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let message = line.get("message")?.as_str()?;
    let address = |name: &str| Some(format!("http://{}", line.get(name)?.as_str()?));
    if message == "listening" { Some((address("grpc")?, address("edge")?)) } else { None }
}
