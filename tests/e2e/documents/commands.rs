//! Runs the commands of the documents.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{Block, Document, assert_none, documents, repository};
use crate::server::strongroom_command;

/// The language of blocks that run. Blocks of other shells are rejected, so that every command is tested.
const SHELL: &str = "sh";
const OTHER_SHELLS: [&str; 6] = ["", "bash", "shell", "console", "zsh", "shell-session"];

/// The login, the grants and the backup that `docs/operations.md` describes, for other documents that use
/// `$BACKUP_URL`.
const CREATE_BACKUP: &str = r#"psql --quiet "$MIGRATE_URL" <<'SQL'
CREATE ROLE files_backup LOGIN IN ROLE strongroom_backup;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO strongroom_backup;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO strongroom_backup;
SQL
pg_dump --enable-row-security --format=custom --file=backup.dump "$BACKUP_URL"
"#;

/// The maximum time for the commands of one document.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(300);

/// A `strongroom dev` with the environment that the documents assume.
struct Site {
    directory: tempfile::TempDir,
    dev: Child,
    environment: BTreeMap<String, OsString>,
}

impl Site {
    async fn start() -> Self {
        // The path of a socket has at most 107 bytes, so the directory is not in TMPDIR, which may be long.
        let directory = tempfile::Builder::new().prefix("strongroom-docs").tempdir_in("/tmp").unwrap();
        // As root, PostgreSQL runs as another user, which must be able to enter the directory of its data.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let mut dev = strongroom_command();
        dev.args(["dev", "--data-dir", "./data", "--port", "0", "--edge-port", "0"])
            .current_dir(directory.path())
            .envs(second_provider(directory.path()))
            // A background sweep would hold the lock that a documented sweep needs.
            .env("STRONGROOM_SWEEPING__ENABLED", "false")
            .env("STRONGROOM_POSTGRES_BIN", postgres_bin())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.path().join("dev.log")).unwrap());
        let mut dev = dev.spawn().unwrap();
        let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines();
        let ready = timeout(Duration::from_secs(120), lines.next_line()).await.unwrap().unwrap();
        assert!(ready.is_some_and(|line| line.starts_with("ready")), "dev ended before it was ready");
        let environment = environment(directory.path());
        Self { directory, dev, environment }
    }

    /// Runs a script in bash. Returns whether it succeeded, and its output.
    async fn run(&self, script: &str) -> (bool, String) {
        let path = self.directory.path().join("commands");
        fs::write(&path, script).unwrap();
        let mut bash = Command::new("bash");
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("STRONGROOM_")) {
            bash.env_remove(name);
        }
        bash.arg(&path).current_dir(self.directory.path()).envs(&self.environment);
        bash.stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(DOCUMENT_TIMEOUT, bash.output())
            .await
            .expect("the commands did not end in time")
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Stops the server. Returns its log if it exits with a failure.
    async fn stop(mut self) -> Option<String> {
        let pid = self.dev.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let status = self.dev.wait().await.unwrap();
        let log = fs::read_to_string(self.directory.path().join("dev.log")).unwrap();
        (!status.success()).then_some(log)
    }
}

fn postgres_bin() -> OsString {
    env::var_os("STRONGROOM_POSTGRES_BIN")
        .expect("STRONGROOM_POSTGRES_BIN is not set: run the tests through scripts/with-postgres")
}

fn second_provider(directory: &Path) -> [(&'static str, OsString); 2] {
    [
        ("STRONGROOM_STORAGE__PROVIDERS__NEW__ADAPTER", "local".into()),
        ("STRONGROOM_STORAGE__PROVIDERS__NEW__ROOT", directory.join("new").into()),
    ]
}

/// Returns the environment of an operator: the configuration of the service, an operator's token, and the
/// addresses that `docs/operations.md` names.
fn environment(directory: &Path) -> BTreeMap<String, OsString> {
    let data = directory.join("data");
    let dev: Value = serde_json::from_slice(&fs::read(data.join("dev.json")).unwrap()).unwrap();
    let text = |value: &Value| OsString::from(value.as_str().unwrap());
    let sockets =
        data.join("postgres").canonicalize().expect("no PostgreSQL directory in the data directory");
    let sockets = sockets.to_str().unwrap().replace('/', "%2F");
    let database = |login: &str| OsString::from(format!("postgres://{login}@{sockets}/postgres"));
    let program = Path::new(env!("CARGO_BIN_EXE_strongroom")).parent().unwrap().to_owned();
    let paths = env::var_os("PATH").unwrap_or_default();
    let paths = [program, PathBuf::from(postgres_bin())].into_iter().chain(env::split_paths(&paths));
    let settings = [
        ("PATH", env::join_paths(paths).unwrap()),
        ("EDGE", text(&dev["edge"])),
        ("MIGRATE_URL", database("postgres")),
        ("BACKUP_URL", database("files_backup")),
        ("STRONGROOM_SERVER", text(&dev["grpc"])),
        ("STRONGROOM_TOKEN", text(&dev["tokens"]["operator"])),
        ("STRONGROOM_DATABASE__URL", database("strongroom_dev_app")),
        ("STRONGROOM_DATABASE__SYSTEM_URL", database("strongroom_dev_system")),
        ("STRONGROOM_DATABASE__MIGRATE_URL", database("postgres")),
        ("STRONGROOM_STORAGE__PROVIDERS__LOCAL__ROOT", data.join("objects").into()),
    ];
    let settings = settings.into_iter().chain(second_provider(directory));
    settings.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn runnable_blocks(document: &Document) -> Vec<Block> {
    let blocks = document.blocks().into_iter();
    blocks.filter(|block| block.language == SHELL && block.runner.is_none()).collect()
}

/// Joins all blocks into one script, which prints the location of each block before it runs.
fn script(path: &str, blocks: &[Block]) -> String {
    let mut script = "set -euo pipefail\nexec 2>&1\n".to_owned();
    let mentions = |text: &str| blocks.iter().any(|block| block.text.contains(text));
    if mentions("$BACKUP_URL") && !mentions("CREATE ROLE files_backup") {
        script.push_str(CREATE_BACKUP);
    }
    for block in blocks {
        script.push_str(&format!("echo '--- {path}:{}'\n{}", block.line, block.text));
    }
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_documents_run() {
    let mut findings = Vec::new();
    let mut count = 0;
    for document in documents() {
        let blocks = runnable_blocks(&document);
        if blocks.is_empty() {
            continue;
        }
        count += blocks.len();
        let site = Site::start().await;
        let (is_success, output) = site.run(&script(&document.path, &blocks)).await;
        let log = site.stop().await;
        if !is_success {
            findings.push(format!("{} failed in its last block below:\n{output}", document.path));
        } else if let Some(log) = log {
            findings.push(format!("{}: the server ended with a failure:\n{log}", document.path));
        }
    }
    assert_none(&findings);
    assert!(count > 10, "only {count} blocks were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_command_is_reported_with_its_block() {
    let document = Document::new("x.md", "```sh\ntrue\n```\n```sh\nfalse\n```\n```sh\necho never\n```\n");
    let directory = tempfile::tempdir().unwrap();
    let script = script(&document.path, &runnable_blocks(&document));
    fs::write(directory.path().join("commands"), script).unwrap();
    let bash = Command::new("bash").arg(directory.path().join("commands")).output().await.unwrap();
    assert!(!bash.status.success());
    assert!(String::from_utf8_lossy(&bash.stdout).trim_end().ends_with("--- x.md:4"));
}

/// Runs `scripts/quickstart` with the binary of these tests. The script compares the digests itself.
#[tokio::test(flavor = "multi_thread")]
async fn quickstart_stores_and_fetches_a_file() {
    let mut quickstart = Command::new(repository().join("scripts/quickstart"));
    quickstart.env("STRONGROOM_BIN", env!("CARGO_BIN_EXE_strongroom")).stdin(Stdio::null());
    let output = timeout(DOCUMENT_TIMEOUT, quickstart.output()).await.unwrap().unwrap();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", printed.concat());
}

/// Runs `scripts/release` with the binary of these tests. The script itself checks that the program is stripped
/// and that its symbols are complete. It needs the file format of Linux.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn release_moves_symbols_beside_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let run = |program: PathBuf, output: &str| {
        let mut release = Command::new(repository().join("scripts/release"));
        release.arg("--output").arg(directory.path().join(output));
        release.env("STRONGROOM_BIN", program).stdin(Stdio::null());
        async move { timeout(DOCUMENT_TIMEOUT, release.output()).await.unwrap().unwrap() }
    };
    let release = run(env!("CARGO_BIN_EXE_strongroom").into(), "release").await;
    assert!(release.status.success(), "{}", String::from_utf8_lossy(&release.stderr));
    let artifacts = directory.path().join("release");
    let digests = fs::read_to_string(artifacts.join("SHA256SUMS")).unwrap();
    for line in digests.lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        assert!(artifacts.join(name).exists(), "{name}");
        assert!(String::from_utf8_lossy(&release.stdout).contains(digest), "{digest}");
    }
    assert_eq!(digests.lines().count(), 2);

    let again = run(artifacts.join("strongroom"), "again").await;
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("already stripped"));
}

/// Finds blocks of other shells, and blocks whose runner does not contain their commands.
fn find_untested_blocks(document: &Document, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for block in document.blocks() {
        let location = format!("{}:{}", document.path, block.line);
        if OTHER_SHELLS.contains(&block.language.as_str()) {
            findings.push(format!(
                "{location}: a block of commands must be `{SHELL}`, and any other block `text`"
            ));
        }
        let Some(runner) = &block.runner else { continue };
        let Some(text) = read(runner) else {
            findings.push(format!("{location}: `{runner}` does not exist"));
            continue;
        };
        let tokens: Vec<&str> = text.split(|c| !is_part_of_word(c)).collect();
        for (command, word) in words_to_find(&block.text) {
            if !tokens.iter().any(|token| *token == word || token.ends_with(&format!("/{word}"))) {
                findings.push(format!(
                    "{location}: `{runner}` does not run `{command}`: it does not contain `{word}`"
                ));
            }
        }
    }
    findings
}

fn is_part_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')
}

/// Returns each command with each of its words that the runner must contain: all words except the name of the
/// program and placeholders (`ID`, `"$id"`, `./data`).
fn words_to_find(block: &str) -> Vec<(&str, &str)> {
    let commands = block.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let words = commands.flat_map(|command| command.split_whitespace().map(move |word| (command, word)));
    let is_literal = |word: &str| {
        word != "strongroom"
            && word.chars().all(is_part_of_word)
            && word.chars().any(|c| c.is_ascii_lowercase())
            && !word.starts_with("./")
    };
    words.filter(|(_, word)| is_literal(word)).collect()
}

#[test]
fn blocks_that_cannot_run_here_name_their_runner() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).ok();
    assert_none(
        &documents().iter().flat_map(|document| find_untested_blocks(document, read)).collect::<Vec<_>>(),
    );
}

#[test]
fn commands_that_their_runner_lacks_are_found() {
    let findings = |fence: &str| {
        let document = Document::new("x.md", &format!("<!-- run by: a.rs -->\n```{fence}\n```\n"));
        find_untested_blocks(&document, |path| {
            (path == "a.rs").then(|| "run([\"jobs\", \"show\", id])".to_owned())
        })
        .len()
    };
    assert_eq!(findings("sh\nstrongroom jobs show ID # prints it"), 0);
    assert_eq!(findings("sh\nstrongroom jobs retry ID"), 1);
    assert_eq!(findings("bash\nstrongroom jobs show ID"), 1);
    let nowhere = Document::new("x.md", "<!-- run by: b.rs -->\n```sh\na\n```\n");
    assert_eq!(find_untested_blocks(&nowhere, |_| None).len(), 1);
}
