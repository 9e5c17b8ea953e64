//! A private PostgreSQL in the data directory, accessible only through a Unix socket that other users cannot
//! open.
//!
//! PostgreSQL refuses to run as root, so a `dev` that is started by root runs it as `postgres` or `nobody`.
//! That user must be able to access the cluster. If it cannot enter a parent of the data directory, the
//! cluster is created in /var/tmp instead, under a name derived from the path of the data directory.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use secrecy::SecretString;
use tokio::process::{Child, Command};

use super::{
    Failure,
    private_files::{create_private_directory, create_private_file},
};
use crate::domain::digest::Digest;

/// The login for requests.
pub(super) const APP_LOGIN: &str = "strongroom_dev_app";
/// The login for work across tenants.
pub(super) const SYSTEM_LOGIN: &str = "strongroom_dev_system";

/// The permissions of the data directory if PostgreSQL runs as another user: that user may pass through it.
const PASSABLE_MODE: u32 = 0o710;

/// The interval and number of checks whether the server is ready: 60 seconds in total.
const READY_CHECK_INTERVAL: Duration = Duration::from_millis(50);
const READY_CHECKS_MAX: u32 = 1200;
/// The longest path of the socket's directory: a socket path has at most 107 bytes, including the name of the
/// socket.
const SOCKET_DIRECTORY_BYTES_MAX: usize = 90;

/// A running PostgreSQL.
pub(super) struct Postgres {
    bin: PathBuf,
    cluster: PathBuf,
    sockets: PathBuf,
    account: Option<Account>,
    server: Child,
}

/// The user that runs PostgreSQL if this process is root.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Starts the cluster of this data directory, and creates it at the first start.
    pub(super) async fn start(data_dir: &Path) -> Result<Self, Failure> {
        let bin = find_binaries()?;
        let account = find_account().await?;
        let home = create_home(data_dir, account).await?;
        let (cluster, sockets) = (home.join("cluster"), socket_directory(&home)?);
        if !cluster.join("PG_VERSION").exists() {
            initialize_cluster(&bin, &cluster, account).await?;
        }
        stop_leftover(&bin, &cluster, account).await?;
        // The log is not in the cluster's directory, because the user that owns it could replace the log with
        // a link.
        let log_path = data_dir.join("postgres.log");
        let log = create_private_file(&log_path)?;
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
            // Ctrl-C in a terminal must not reach the database, which is needed until the drain has finished.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("failed to start {}: {error}", bin.join("postgres").display()))?;
        let mut postgres = Self { bin, cluster, sockets, account, server };
        match postgres.wait_until_ready(&log_path).await {
            Ok(()) => Ok(postgres),
            Err(error) => {
                postgres.stop().await?;
                Err(error)
            }
        }
    }

    /// Returns the connection URL for a role.
    pub(super) fn url(&self, role: &str) -> SecretString {
        let sockets: String =
            url::form_urlencoded::byte_serialize(self.sockets.as_os_str().as_encoded_bytes()).collect();
        // Form encoding writes a space as `+`, which the parser of the URL takes literally.
        SecretString::from(format!("postgres://{role}@{}/postgres", sockets.replace('+', "%20")))
    }

    /// Creates logins for the roles of the service.
    pub(super) async fn create_logins(&self) -> Result<(), Failure> {
        for (login, role) in [(APP_LOGIN, "strongroom_app"), (SYSTEM_LOGIN, "strongroom_system")] {
            crate::db::migrate::create_login(&self.url("postgres"), login, role).await?;
        }
        Ok(())
    }

    /// Stops the server. Open transactions are rolled back.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        pg_ctl_stop(&self.bin, &self.cluster, self.account).await?;
        self.server.wait().await?;
        Ok(())
    }

    async fn wait_until_ready(&mut self, log: &Path) -> Result<(), Failure> {
        for _ in 0..READY_CHECKS_MAX {
            if let Some(status) = self.server.try_wait()? {
                return Err(format!(
                    "PostgreSQL exited at startup ({status}); see its log {}",
                    log.display()
                )
                .into());
            }
            if crate::db::migrate::is_reachable(&self.url("postgres")).await {
                return Ok(());
            }
            tokio::time::sleep(READY_CHECK_INTERVAL).await;
        }
        Err(format!("PostgreSQL was not ready within 60 s; see its log {}", log.display()).into())
    }
}

/// Finds the directory of `postgres` and `initdb`. Searches in the same order as `scripts/setup/postgres`.
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
            "PostgreSQL is not installed; run scripts/setup/postgres, install your system's package, \
             or set STRONGROOM_POSTGRES_BIN to a directory that contains initdb and postgres"
                .into()
        })
}

/// Returns the user to run PostgreSQL as, or `None` if this process is not root.
async fn find_account() -> Result<Option<Account>, Failure> {
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
    Err("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`; run as another user"
        .into())
}

fn as_account(mut command: Command, account: Option<Account>) -> Command {
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid).current_dir("/");
    }
    command
}

/// Creates a directory that the PostgreSQL user owns and can enter.
async fn create_home(data_dir: &Path, account: Option<Account>) -> Result<PathBuf, Failure> {
    let Some(Account { uid, gid }) = account else {
        let home = data_dir.join("postgres");
        create_private_directory(&home)?;
        return Ok(home);
    };
    // Let the group of the PostgreSQL user, and nobody else, pass through the data directory. It still cannot list
    // it or read the files in it.
    chown(data_dir, None, Some(gid))?;
    fs::set_permissions(data_dir, fs::Permissions::from_mode(PASSABLE_MODE))?;
    let name = Digest::compute(data_dir.as_os_str().as_encoded_bytes()).to_string();
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
        "the user that runs PostgreSQL cannot enter {}; choose another --data-dir",
        data_dir.display()
    )
    .into())
}

async fn can_enter(directory: &Path, account: Option<Account>) -> Result<bool, Failure> {
    let mut command = as_account(Command::new("sh"), account);
    command.args(["-c", "cd \"$1\"", "sh"]).arg(directory).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.status().await?.success())
}

/// Creates a private directory of the PostgreSQL user. An existing directory must be private and owned by
/// that user, because in a world-writable parent such as /var/tmp another user may have created it, or a link.
fn create_owned(directory: &Path, uid: u32, gid: u32) -> Result<(), Failure> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => Ok(chown(directory, Some(uid), Some(gid))?),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(directory)?;
            if found.is_dir() && found.uid() == uid && found.permissions().mode() & 0o077 == 0 {
                return Ok(());
            }
            Err(format!(
                "{} is not a private directory of the user that runs PostgreSQL; remove it",
                directory.display()
            )
            .into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the directory of the socket.
///
/// # Errors
/// Returns an error if the path is too long for a socket.
fn socket_directory(home: &Path) -> Result<PathBuf, Failure> {
    if home.as_os_str().len() <= SOCKET_DIRECTORY_BYTES_MAX {
        return Ok(home.to_owned());
    }
    Err(format!("the path {} is too long for a Unix socket; choose a shorter --data-dir", home.display())
        .into())
}

async fn initialize_cluster(bin: &Path, cluster: &Path, account: Option<Account>) -> Result<(), Failure> {
    let mut command = as_account(Command::new(bin.join("initdb")), account);
    command.arg("-D").arg(cluster).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"]);
    run_to_success(command, "initdb").await
}

/// Stops a server that is still running because its `dev` was killed.
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
    // A signal to our process group must not interrupt the shutdown.
    command.arg("-D").arg(cluster).args(["-m", "fast", "-w", "stop"]).process_group(0);
    run_to_success(command, "pg_ctl stop").await
}

async fn run_to_success(mut command: Command, name: &str) -> Result<(), Failure> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| format!("failed to run {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
