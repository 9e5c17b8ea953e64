//! A private Garage (S3 server) that a test can kill and restart. It syncs data before it acknowledges a
//! write.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tokio::process::{Child, Command};

const REGION: &str = "garage";
const BUCKET: &str = "strongroom";
const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(crate) struct Garage {
    program: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
    server: Child,
}

impl Garage {
    pub(crate) async fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup/garage");
        let output = Command::new(script).stderr(Stdio::inherit()).output().await.unwrap();
        assert!(output.status.success(), "{script} failed");
        let program = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        let directory = tempfile::tempdir().unwrap();
        let port = find_free_ports();
        let config = format!(
            "metadata_dir = \"{directory}/meta\"\ndata_dir = \"{directory}/data\"\ndb_engine = \"lmdb\"\n\
             metadata_fsync = true\ndata_fsync = true\ncompression_level = \"none\"\nreplication_factor = 1\n\
             rpc_secret = \"{SECRET_KEY}\"\nrpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
             [s3_api]\napi_bind_addr = \"127.0.0.1:{port}\"\ns3_region = \"{REGION}\"\nroot_domain = \".localhost\"\n",
            directory = directory.path().display(),
            rpc = port + 1,
        );
        std::fs::write(directory.path().join("garage.toml"), config).unwrap();
        let server = spawn_server(&program, &directory);
        let garage = Self { program, directory, port, server };
        garage.wait_until_ready().await;
        garage
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the environment variables that configure it as the provider `bucket`.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("STRONGROOM_STORAGE__PROVIDER", "bucket".to_owned()),
            ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ADAPTER", "s3".to_owned()),
            ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ENDPOINT", self.url()),
            ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ALLOW_HTTP", "true".to_owned()),
            ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__REGION", REGION.to_owned()),
            ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__BUCKET", BUCKET.to_owned()),
            ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ENCRYPTION", "none".to_owned()),
            ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__CONDITIONAL_WRITES", "false".to_owned()),
        ]
    }

    /// Kills the process with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.server.kill().await.unwrap();
    }

    /// Starts the server again with the same data, and waits until it is ready.
    pub(crate) async fn restart(&mut self) {
        self.server = spawn_server(&self.program, &self.directory);
        self.wait_until_ready().await;
    }

    /// Waits until the server reports its bucket.
    async fn wait_until_ready(&self) {
        let ready = async {
            loop {
                let mut bucket_info = garage_command(&self.program, &self.directory);
                bucket_info.args(["bucket", "info", BUCKET]);
                if bucket_info.status().await.unwrap().success() {
                    return;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), ready).await.is_err() {
            panic!("{}", std::fs::read_to_string(self.directory.path().join("log")).unwrap());
        }
    }
}

fn spawn_server(program: &PathBuf, directory: &tempfile::TempDir) -> Child {
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let mut server = garage_command(program, directory);
    server
        .args(["server", "--single-node", "--default-bucket"])
        .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
        .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
        .env("GARAGE_DEFAULT_BUCKET", BUCKET)
        .env("RUST_LOG", "garage=warn")
        .stderr(log);
    server.spawn().unwrap()
}

fn garage_command(program: &PathBuf, directory: &tempfile::TempDir) -> Command {
    let mut command = Command::new(program);
    command.arg("-c").arg(directory.path().join("garage.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// The number of pairs of ports tried so far. No two servers try the same pair.
static TRIED: AtomicU16 = AtomicU16::new(0);

/// Finds two consecutive free ports below the ephemeral range, so that no other process takes them while
/// Garage is stopped.
fn find_free_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = u16::try_from(std::process::id() % 6000).unwrap();
    (0..6000)
        .map(|_| 20_000 + (first + TRIED.fetch_add(1, Ordering::Relaxed)) % 6000 * 2)
        .find(|port| is_free(*port) && is_free(port + 1))
        .expect("no free ports")
}
