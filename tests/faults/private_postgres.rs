//! A private PostgreSQL that a test can restart without affecting other tests.

use std::{
    ffi::OsStr,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use url::Url;

use crate::harness::{Service, Setup, service_test_in};

/// Runs a test against a service whose database server the test can restart.
pub(crate) fn private_server_test<F, Fut>(arrange: impl FnOnce(&mut Setup), test: F)
where
    F: FnOnce(Service, Arc<PrivatePostgres>) -> Fut,
    Fut: Future<Output = ()>,
{
    // The server runs until the database of the test is dropped.
    let postgres = Arc::new(PrivatePostgres::start());
    let for_test = Arc::clone(&postgres);
    service_test_in(Some(postgres.url()), arrange, |s| test(s, for_test));
}

/// Waits until the service serves requests again after an operation on its database server.
pub(crate) async fn wait_until_serving(s: &Service) {
    s.wait_until("the service serves requests again", || async {
        s.db.ping().await.is_ok() && s.alice().quota().await.is_ok()
    })
    .await;
}

/// A running server. Dropping it stops the server.
pub(crate) struct PrivatePostgres {
    bin: PathBuf,
    directory: tempfile::TempDir,
    /// The user that runs the server if the test runs as root, because PostgreSQL refuses to run as root.
    account: Option<(u32, u32)>,
    /// The name of the directory of its data.
    data: Mutex<&'static str>,
}

impl PrivatePostgres {
    /// Starts a server without fsync: acknowledged data survives a crash of the server, but not of the
    /// machine.
    pub(crate) fn start() -> Self {
        let bin = std::env::var_os("STRONGROOM_POSTGRES_BIN").expect("run through scripts/with-postgres");
        // The path of the socket must be short, and the user of the server must be able to access it.
        let directory = tempfile::Builder::new().prefix("strongroom-pg-").tempdir_in("/tmp").unwrap();
        let account = find_account();
        if let Some((uid, gid)) = account {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let server = Self { bin: bin.into(), directory, account, data: Mutex::new("data") };
        server.run("initdb", ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]);
        server.start_postmaster();
        server
    }

    fn start_postmaster(&self) {
        let options = format!("-k {} -c listen_addresses='' -c fsync=off", self.directory.path().display());
        self.run("pg_ctl", ["start", "-w", "-o", &options]);
    }

    /// Returns the URL for the superuser.
    pub(crate) fn url(&self) -> Url {
        let directory = self.directory.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{directory}/postgres").parse().unwrap()
    }

    /// Runs an operation that blocks, such as a restart, on a thread of its own.
    pub(crate) async fn operate(self: &Arc<Self>, operation: impl FnOnce(&Self) + Send + 'static) {
        let server = Arc::clone(self);
        tokio::task::spawn_blocking(move || operation(&server)).await.unwrap();
    }

    /// Restarts the server. Mode `fast` terminates all sessions; `immediate` is a crash with recovery.
    pub(crate) fn restart(&self, mode: &str) {
        self.run("pg_ctl", ["restart", "-w", "-m", mode]);
    }

    /// Replaces the server with a promoted standby: the system identifier stays, and a new timeline begins.
    /// No transaction is lost if none is running.
    pub(crate) fn fail_over(&self) {
        self.back_up();
        self.restore_backup();
    }

    /// Makes a physical backup.
    pub(crate) fn back_up(&self) {
        let primary = std::mem::replace(&mut *self.data.lock().unwrap(), "replica");
        let sockets = self.directory.path().display().to_string();
        let options =
            ["--username=postgres", "--checkpoint=fast", "--write-recovery-conf", "--host", &sockets];
        self.run("pg_basebackup", options);
        *self.data.lock().unwrap() = primary;
    }

    /// Replaces the server with its backup, on a new timeline. The transactions since the backup are lost.
    pub(crate) fn restore_backup(&self) {
        self.run("pg_ctl", ["stop", "-w", "-m", "fast"]);
        *self.data.lock().unwrap() = "replica";
        self.start_postmaster();
        self.run("pg_ctl", ["promote", "-w"]);
    }

    fn run<const N: usize>(&self, program: &str, arguments: [impl AsRef<OsStr>; N]) {
        let mut command = Command::new(self.bin.join(program));
        let home = self.directory.path();
        let data = home.join(*self.data.lock().unwrap());
        command.args(arguments).arg("-D").arg(data).current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        // Use a file, because the server would inherit the pipe and keep it open.
        let log = std::fs::File::create(home.join(program)).unwrap();
        let status = command.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
        let output = || std::fs::read_to_string(home.join(program)).unwrap_or_default();
        assert!(status.success() || std::thread::panicking(), "{program}: {}", output());
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.run("pg_ctl", ["stop", "-w", "-m", "immediate"]);
    }
}

fn find_account() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    ["postgres", "nobody"].iter().find_map(|name| {
        let mut fields = passwd.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}
