//! A private PostgreSQL below the data directory, reached through a Unix socket that nobody else can open.
//!
//! PostgreSQL refuses to run as root; started by root it runs as `postgres` or `nobody`. That user must be able to reach
//! its directory: where a folder above the data directory is closed to it, the cluster lives below /var/tmp instead,
//! under a name derived from the data directory's path.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use secrecy::SecretString;
use tokio::process::{Child, Command};

use super::Failure;
use crate::domain::digest::Digest;

/// The login that serves requests.
pub(super) const APP_LOGIN: &str = "strongroom_dev_app";
/// The login that works across tenants.
pub(super) const SYSTEM_LOGIN: &str = "strongroom_dev_system";

/// How often and how long to look whether the server answers.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS_MAX: u32 = 1200;
/// The longest path of a socket's directory: 107 bytes in all, less the name of the socket.
const SOCKET_DIRECTORY_BYTES_MAX: usize = 90;

/// A running PostgreSQL.
pub(super) struct Postgres {
    bin: PathBuf,
    cluster: PathBuf,
    sockets: PathBuf,
    account: Option<Account>,
    server: Child,
}

/// Whom to become when started by root.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Starts the cluster of this data directory; makes it at the first start.
    pub(super) async fn start(data_dir: &Path) -> Result<Self, Failure> {
        let bin = find_binaries()?;
        let account = account().await?;
        let home = home(data_dir, account).await?;
        let (cluster, sockets) = (home.join("cluster"), sockets(&home)?);
        if !cluster.join("PG_VERSION").exists() {
            initialise(&bin, &cluster, account).await?;
        }
        stop_leftover(&bin, &cluster, account).await?;
        // Beside the cluster's folder, not in it: that one belongs to another user, who could put a link there.
        let log_path = data_dir.join("postgres.log");
        let log = fs::File::create(&log_path)?;
        let server = as_account(Command::new(bin.join("postgres")), account)
            .arg("-D")
            .arg(&cluster)
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "unix_socket_permissions=0700",
                "-c",
                "max_connections=100",
            ])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", sockets.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in a terminal goes to us alone: the database must outlive the drain.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("start {}: {error}", bin.join("postgres").display()))?;
        let mut postgres = Self { bin, cluster, sockets, account, server };
        match postgres.wait_until_ready(&log_path).await {
            Ok(()) => Ok(postgres),
            Err(error) => {
                postgres.stop().await?;
                Err(error)
            }
        }
    }

    /// A connection string for one role.
    pub(super) fn url(&self, role: &str) -> SecretString {
        let sockets: String =
            url::form_urlencoded::byte_serialize(self.sockets.as_os_str().as_encoded_bytes()).collect();
        // The parser takes `+` literally, form encoding means a blank.
        SecretString::from(format!("postgres://{role}@{}/postgres", sockets.replace('+', "%20")))
    }

    /// Gives the service's roles logins of their own.
    pub(super) async fn allow_logins(&self) -> Result<(), Failure> {
        for (login, role) in [(APP_LOGIN, "strongroom_app"), (SYSTEM_LOGIN, "strongroom_system")] {
            crate::db::migrate::create_login(&self.url("postgres"), login, role).await?;
        }
        Ok(())
    }

    /// Stops the server; every transaction that is still open is rolled back.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        pg_ctl_stop(&self.bin, &self.cluster, self.account).await?;
        self.server.wait().await?;
        Ok(())
    }

    async fn wait_until_ready(&mut self, log: &Path) -> Result<(), Failure> {
        for _ in 0..LOOKS_MAX {
            if let Some(status) = self.server.try_wait()? {
                return Err(
                    format!("PostgreSQL ended at once ({status}); its log is {}", log.display()).into()
                );
            }
            if crate::db::migrate::answers(&self.url("postgres")).await {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(format!("PostgreSQL did not get ready; its log is {}", log.display()).into())
    }
}

/// Where `postgres` and `initdb` are. The same order as `scripts/setup/postgres`.
fn find_binaries() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("STRONGROOM_POSTGRES_BIN").map(PathBuf::from);
    let mut system: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    let version = |bin: &PathBuf| {
        bin.parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str()?.parse::<u32>().ok())
            .unwrap_or_default()
    };
    system.sort_by_key(|bin| std::cmp::Reverse(version(bin)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut caches = vec![PathBuf::from("/var/cache/strongroom")];
    caches.extend(std::env::var_os("STRONGROOM_CACHE").map(PathBuf::from));
    let home_cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    caches.extend(home_cache.map(|cache| cache.join("strongroom")));
    named
        .into_iter()
        .chain(system)
        .chain(std::env::split_paths(&path))
        .chain(caches.into_iter().map(|cache| cache.join("postgres/bin")))
        .find(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file())
        .ok_or_else(|| {
            "no PostgreSQL on this machine: run scripts/setup/postgres, install your system's package, \
             or point STRONGROOM_POSTGRES_BIN at a folder with initdb and postgres"
                .into()
        })
}

/// Nobody, unless this process is root's.
async fn account() -> Result<Option<Account>, Failure> {
    let id = Command::new("id").arg("-u").output().await?;
    if String::from_utf8_lossy(&id.stdout).trim() != "0" {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    for name in ["postgres", "nobody"] {
        let Some(line) = passwd.lines().find(|line| line.split(':').next() == Some(name)) else { continue };
        let mut fields = line.split(':').skip(2);
        if let (Some(uid), Some(gid)) = (fields.next(), fields.next()) {
            return Ok(Some(Account { uid: uid.parse()?, gid: gid.parse()? }));
        }
    }
    Err("PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as".into())
}

fn as_account(mut command: Command, account: Option<Account>) -> Command {
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid).current_dir("/");
    }
    command
}

/// A folder that the server's user owns and can reach.
async fn home(data_dir: &Path, account: Option<Account>) -> Result<PathBuf, Failure> {
    let Some(Account { uid, gid }) = account else {
        let home = data_dir.join("postgres");
        create_private(&home)?;
        return Ok(home);
    };
    // The data directory is ours to open for passing through; what is in it stays closed.
    let mode = fs::metadata(data_dir)?.permissions().mode();
    fs::set_permissions(data_dir, fs::Permissions::from_mode(mode | 0o011))?;
    let name = Digest::of(data_dir.as_os_str().as_encoded_bytes()).to_string();
    let elsewhere = PathBuf::from(format!("/var/tmp/strongroom-dev-{}", &name[..16]));
    for home in [data_dir.join("postgres"), elsewhere] {
        if !home.exists() && home.parent() == Some(data_dir) && !can_enter(data_dir, account).await? {
            continue;
        }
        create_owned(&home, uid, gid)?;
        if can_enter(&home, account).await? {
            return Ok(home);
        }
    }
    Err(format!(
        "the user that runs PostgreSQL cannot reach {}; choose another --data-dir",
        data_dir.display()
    )
    .into())
}

async fn can_enter(directory: &Path, account: Option<Account>) -> Result<bool, Failure> {
    let mut command = as_account(Command::new("sh"), account);
    command.args(["-c", "cd \"$1\"", "sh"]).arg(directory).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.status().await?.success())
}

fn create_private(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

/// A folder of the server's user. One that is there already must be just that: in a place that everybody can write to,
/// somebody else may have put it there, or a link.
fn create_owned(directory: &Path, uid: u32, gid: u32) -> Result<(), Failure> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => Ok(chown(directory, Some(uid), Some(gid))?),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(directory)?;
            if found.is_dir() && found.uid() == uid && found.permissions().mode() & 0o077 == 0 {
                return Ok(());
            }
            Err(format!(
                "{} is not a private folder of the user that runs PostgreSQL; remove it",
                directory.display()
            )
            .into())
        }
        Err(error) => Err(error.into()),
    }
}

/// The socket lives beside the cluster, unless that path is longer than a socket's may be.
fn sockets(home: &Path) -> Result<PathBuf, Failure> {
    if home.as_os_str().len() <= SOCKET_DIRECTORY_BYTES_MAX {
        return Ok(home.to_owned());
    }
    Err(format!("the path {} is too long for a Unix socket; choose a shorter --data-dir", home.display())
        .into())
}

async fn initialise(bin: &Path, cluster: &Path, account: Option<Account>) -> Result<(), Failure> {
    let mut command = as_account(Command::new(bin.join("initdb")), account);
    command.arg("-D").arg(cluster).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"]);
    succeed(command, "initdb").await
}

/// A server that outlived its `dev` (which was killed) holds the cluster: it is asked to go first.
async fn stop_leftover(bin: &Path, cluster: &Path, account: Option<Account>) -> Result<(), Failure> {
    if !cluster.join("postmaster.pid").exists() {
        return Ok(());
    }
    let mut status = as_account(Command::new(bin.join("pg_ctl")), account);
    status.arg("-D").arg(cluster).arg("status").stdout(Stdio::null()).stderr(Stdio::null());
    if status.status().await?.success() { pg_ctl_stop(bin, cluster, account).await } else { Ok(()) }
}

async fn pg_ctl_stop(bin: &Path, cluster: &Path, account: Option<Account>) -> Result<(), Failure> {
    let mut command = as_account(Command::new(bin.join("pg_ctl")), account);
    // A signal to our whole group must not cut the shutdown short.
    command.arg("-D").arg(cluster).args(["-m", "fast", "-w", "stop"]).process_group(0);
    succeed(command, "pg_ctl stop").await
}

async fn succeed(mut command: Command, what: &str) -> Result<(), Failure> {
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{what} failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
