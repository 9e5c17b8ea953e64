//! A PostgreSQL that one test may restart without disturbing the others.

use std::{
    ffi::OsStr,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Stdio},
};

use url::Url;

/// A running server; dropping it ends it.
pub(crate) struct OwnPostgres {
    bin: PathBuf,
    directory: tempfile::TempDir,
    /// Whom to become when started by root, as which PostgreSQL refuses to run.
    account: Option<(u32, u32)>,
}

impl OwnPostgres {
    /// What it acknowledges survives a crash of its own, though not one of the machine.
    pub(crate) fn start() -> Self {
        let bin = std::env::var_os("STRONGROOM_POSTGRES_BIN").expect("run through scripts/with-postgres");
        // A socket's path must be short, and the server's user must reach it.
        let directory = tempfile::Builder::new().prefix("strongroom-own-").tempdir_in("/tmp").unwrap();
        let account = account();
        if let Some((uid, gid)) = account {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let server = Self { bin: bin.into(), directory, account };
        server.run("initdb", ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]);
        let options = format!("-k {} -c listen_addresses='' -c fsync=off", server.directory.path().display());
        server.run("pg_ctl", ["start", "-w", "-o", &options]);
        server
    }

    /// Its address, as its superuser.
    pub(crate) fn url(&self) -> Url {
        let directory = self.directory.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{directory}/postgres").parse().unwrap()
    }

    /// Asks it to go and to come again: `fast` ends its sessions, `immediate` is a crash that it recovers from.
    pub(crate) fn restart(&self, mode: &str) {
        self.run("pg_ctl", ["restart", "-w", "-m", mode]);
    }

    fn run<const N: usize>(&self, program: &str, arguments: [impl AsRef<OsStr>; N]) {
        let mut command = Command::new(self.bin.join(program));
        let home = self.directory.path();
        command.args(arguments).arg("-D").arg(home.join("data")).current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.account {
            command.uid(uid).gid(gid);
        }
        // The server that pg_ctl leaves behind must not hold a pipe of ours open.
        let log = std::fs::File::create(home.join(program)).unwrap();
        let status = command.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap();
        let said = || std::fs::read_to_string(home.join(program)).unwrap_or_default();
        assert!(status.success() || std::thread::panicking(), "{program}: {}", said());
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        self.run("pg_ctl", ["stop", "-w", "-m", "immediate"]);
    }
}

fn account() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    ["postgres", "nobody"].iter().find_map(|name| {
        let mut fields = passwd.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}
