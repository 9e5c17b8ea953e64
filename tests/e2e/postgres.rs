//! A private PostgreSQL that a test can kill and restart. It runs with fsync, as in production.

use std::{fs, os::unix::fs::chown, path::PathBuf, process::Stdio};

use tokio::process::Command;

pub(crate) struct Postgres {
    bin: PathBuf,
    /// The user that runs the server if the test runs as root, because PostgreSQL refuses to run as root.
    account: Option<(u32, u32)>,
    directory: tempfile::TempDir,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        let bin = std::env::var_os("STRONGROOM_POSTGRES_BIN")
            .expect("STRONGROOM_POSTGRES_BIN is not set: run the tests through scripts/with-postgres");
        // A socket path has at most 107 bytes, so do not use TMPDIR, which may be long.
        let directory = tempfile::Builder::new().prefix("strongroom-e2e-pg").tempdir_in("/tmp").unwrap();
        let account = find_account().await;
        if let Some((uid, gid)) = account {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let postgres = Self { bin: PathBuf::from(bin), account, directory };
        let mut initdb = postgres.command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
        assert!(initdb.status().await.unwrap().success(), "initdb failed");
        postgres.restart().await;
        postgres
    }

    /// Returns the URL for the superuser.
    pub(crate) fn url(&self) -> String {
        let sockets = self.directory.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{sockets}/postgres")
    }

    /// Kills the postmaster and its child processes with SIGKILL, at the same time.
    pub(crate) fn kill(&self) {
        assert!(self.kill_if_running(), "the postmaster is not running");
    }

    /// Returns whether the postmaster was running. A stopped postmaster starts no more processes. One that it started
    /// after the list was read would survive, and could wait for a lock of a killed one without end.
    fn kill_if_running(&self) -> bool {
        let Some(pid) = self.pid() else { return false };
        let was_running = send_signal("-STOP", std::slice::from_ref(&pid));
        while was_running && !is_stopped(&pid) {}
        let processes = [list_children(&pid), vec![pid]].concat();
        send_signal("-KILL", &processes);
        was_running
    }

    /// Returns how often the server has recovered from a crash.
    pub(crate) fn count_crash_recoveries(&self) -> u64 {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
        log.matches("automatic recovery in progress").count() as u64
    }

    /// Starts the server and waits until it has recovered. Child processes of a killed postmaster may hold
    /// its shared memory for a moment, and until then a new postmaster exits at once, so the start is
    /// retried.
    pub(crate) async fn restart(&self) {
        self.restart_with("").await;
    }

    /// Does the same with more options, which override the others.
    pub(crate) async fn restart_with(&self, more: &str) {
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c max_connections=200 -c fsync=on {more}",
            self.directory.path().display()
        );
        for _ in 0..200 {
            let mut start = self.command("pg_ctl");
            start.args(["-w", "-t", "60", "-o", &options, "-l"]).arg(self.directory.path().join("log"));
            if start.arg("start").status().await.unwrap().success() {
                return;
            }
        }
        panic!("{}", fs::read_to_string(self.directory.path().join("log")).unwrap());
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("-D").arg(self.directory.path().join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn pid(&self) -> Option<String> {
        let file = fs::read_to_string(self.directory.path().join("data/postmaster.pid")).ok()?;
        file.lines().next().map(str::to_owned)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill_if_running();
    }
}

/// Sends a signal. Returns whether all of the processes exist.
fn send_signal(signal: &str, pids: &[String]) -> bool {
    std::process::Command::new("kill").arg(signal).args(pids).output().unwrap().status.success()
}

/// Returns whether a process is stopped or has ended.
fn is_stopped(pid: &str) -> bool {
    let state = std::process::Command::new("ps").args(["-o", "stat=", "-p", pid]).output().unwrap();
    matches!(state.stdout.first(), None | Some(b'T' | b'Z'))
}

/// Returns the child processes of a process.
fn list_children(pid: &str) -> Vec<String> {
    let listed = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().unwrap();
    assert!(listed.status.success(), "ps failed");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let pairs = listed.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
    pairs.filter(|(_, parent)| parent.trim() == pid).map(|(child, _)| child.to_owned()).collect()
}

async fn find_account() -> Option<(u32, u32)> {
    if id(&["-u"]).await != Some(0) {
        return None;
    }
    for name in ["postgres", "nobody"] {
        if let (Some(uid), Some(gid)) = (id(&["-u", name]).await, id(&["-g", name]).await) {
            return Some((uid, gid));
        }
    }
    panic!("PostgreSQL does not run as root, and there is no user postgres or nobody");
}

async fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().await.unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
