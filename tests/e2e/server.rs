//! Runs `strongroom serve` as a child process. Its addresses are read from its log.

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

/// A test installation: the database, identity provider, files and settings of a service, across its
/// restarts.
pub(crate) struct Site {
    pub(crate) database: TestDatabase,
    pub(crate) identity: IdentityProvider,
    directory: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
}

/// Returns a command that runs the binary without the `STRONGROOM_*` variables of the test environment.
pub(crate) fn strongroom_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STRONGROOM_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Site {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with_database(TestDatabase::create_migrated(name).await)
    }

    pub(crate) fn with_database(database: TestDatabase) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let identity = IdentityProvider::new(&directory.path().join("jwks.json"));
        Self { database, identity, directory, settings: Vec::new() }
    }

    /// Sets an environment variable for all commands of this site.
    pub(crate) fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.push((name, value.to_string()));
        self
    }

    pub(crate) fn set_all(mut self, settings: Vec<(&'static str, String)>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// Lets the identity provider name operators.
    pub(crate) fn with_operators(self) -> Self {
        let roles = r#", operators = true, roles = { member = "member", operator = "operator" }"#;
        let issuers = self.issuers(roles);
        self.set("STRONGROOM_AUTH__ISSUERS", issuers)
    }

    fn issuers(&self, more: &str) -> String {
        let jwks = self.path("jwks.json");
        format!(
            "[{{ issuer = \"{ISSUER}\", audience = \"{AUDIENCE}\", jwks_file = \"{}\"{more} }}]",
            jwks.display()
        )
    }

    /// Returns a command that runs the binary with the configuration of this site.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = strongroom_command();
        command
            .args(arguments)
            .env("STRONGROOM_SERVER__LISTEN", "127.0.0.1:0")
            .env("STRONGROOM_EDGE__LISTEN", "127.0.0.1:0")
            .env("STRONGROOM_DATABASE__URL", self.database.url(APP_LOGIN))
            .env("STRONGROOM_DATABASE__SYSTEM_URL", self.database.url(SYSTEM_LOGIN))
            // The server of scripts/with-postgres does not sync.
            .env("STRONGROOM_DATABASE__ALLOW_UNSAFE", "true")
            .env("STRONGROOM_STORAGE__PROVIDERS__LOCAL__ROOT", self.path("objects"))
            .env("STRONGROOM_AUTH__ISSUERS", self.issuers(""))
            .env("STRONGROOM_SECRETS__PAGE_TOKEN_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
            .env("STRONGROOM_TELEMETRY__LOG_FORMAT", "json")
            // These limits must not be reached on a busy machine.
            .env("STRONGROOM_DATABASE__ACQUIRE_TIMEOUT_SECONDS", "60")
            .env("STRONGROOM_DATABASE__STATEMENT_TIMEOUT_SECONDS", "60")
            .env("STRONGROOM_DEADLINES__UNARY_SECONDS", "120")
            .env("STRONGROOM_DEADLINES__LIST_SECONDS", "120")
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a server that also runs background jobs, and waits until it listens.
    pub(crate) async fn start_server(&self) -> Server {
        Server::start(self.command(&["serve", "--with-worker"])).await
    }

    /// Runs `strongroom fsck`. Returns whether all invariants hold, and the report.
    pub(crate) async fn run_fsck(&self, arguments: &[&str]) -> (bool, serde_json::Value) {
        let (code, report) = self.run_json(&[&["fsck", "--json"], arguments].concat()).await;
        (code == Some(0), report)
    }

    /// Runs a command that prints JSON. Returns its exit code and the JSON.
    pub(crate) async fn run_json(&self, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
        let output = self.command(arguments).output().await.unwrap();
        let printed = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            panic!("{arguments:?} did not print JSON: {}", String::from_utf8_lossy(&output.stderr));
        });
        (output.status.code(), printed)
    }

    pub(crate) async fn client(&self, server: &Server, user: &str) -> Client {
        let token = self.identity.token(user, "acme", "member");
        connect(&server.grpc, token).await
    }

    pub(crate) async fn close(self) {
        self.database.drop_database().await;
    }
}

pub(crate) async fn connect(server: &str, token: SecretString) -> Client {
    Client::connect(ClientOptions::new(server, token)).await.unwrap()
}

/// Held by tests whose load is as much as a machine with two cores can serve. Two of them at the same time would
/// measure the scheduler of the machine.
pub(crate) static WHOLE_MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A running server process.
pub(crate) struct Server {
    pub(crate) grpc: String,
    pub(crate) edge: String,
    /// The memory bound that the server logged at start, in bytes.
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
                panic!("the server exited before it listened: {log:#?}");
            };
            if let Some(addresses) = parse_listening(&line) {
                break addresses;
            }
            log.push(line);
        };
        let memory_bound_bytes = log
            .iter()
            .find_map(|line| parse_memory_bound(line))
            .expect("the server did not log its memory bound");
        let log = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.push(line);
            }
            log
        });
        Self { grpc, edge, memory_bound_bytes, child, log }
    }

    /// Kills the process with SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends SIGTERM, without waiting.
    pub(crate) async fn terminate(&self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    }

    /// Waits until the process exits, and returns its status and its log.
    pub(crate) async fn wait_for_exit(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().await.unwrap();
        (status, self.log.await.unwrap())
    }

    /// Returns the peak resident memory of the process, in bytes.
    pub(crate) fn peak_resident_bytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(Path::new(&status)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes * 1024
    }
}

/// Parses "at most 137 MiB = …".
fn parse_memory_bound(line: &str) -> Option<u64> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let mebibytes = line.get("bound")?.as_str()?.strip_prefix("at most ")?.split(' ').next()?;
    Some(mebibytes.parse::<u64>().ok()? << 20)
}

fn parse_listening(line: &str) -> Option<(String, String)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let message = line.get("message")?.as_str()?;
    let address = |name: &str| Some(format!("http://{}", line.get(name)?.as_str()?));
    if message == "listening" { Some((address("grpc")?, address("edge")?)) } else { None }
}
