//! `strongroom dev`: everything in one process, for people and for acceptance clients.
//!
//! The data directory holds the private PostgreSQL, the stored objects, the secrets of this installation and, while it
//! runs, `dev.json` with addresses and ready tokens. Stopping leaves the data; starting again finds it.

mod bucket;
mod callers;
mod postgres;
mod secrets;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use secrecy::SecretString;
use serde_json::json;
use tokio::net::TcpListener;

use self::{postgres::Postgres, secrets::Secrets};
use super::{Failure, assemble::assemble, load, print, stop_signal};
use crate::{
    config::{
        Config,
        auth::RoleName,
        provider::{LocalConfig, ProviderConfig},
        telemetry::LogFormat,
    },
    db::migrate,
    telemetry,
};

/// How to run `strongroom dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Where everything is kept. Created when it is not there
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The gRPC port; 0 lets the system choose
    #[arg(long, default_value_t = 50051)]
    port: u16,
    /// The port of probes and metrics; 0 lets the system choose
    #[arg(long, default_value_t = 8080)]
    edge_port: u16,
    /// Where the bytes go
    #[arg(long, value_enum, default_value_t = DevStorage::Local, env = "STRONGROOM_DEV_STORAGE")]
    storage: DevStorage,
    #[command(flatten)]
    bucket: bucket::BucketArgs,
    /// The policy that the two organisations and the person are born with
    #[arg(long, default_value = "general")]
    preset: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DevStorage {
    /// Below the data directory
    Local,
    /// In memory: gone with the process
    Memory,
    /// In a bucket of an S3-compatible store
    S3,
}

/// The file that says where everything is.
const DEV_JSON: &str = "dev.json";

pub(super) async fn dev(args: DevArgs, config_file: Option<PathBuf>) -> Result<(), Failure> {
    fs::create_dir_all(&args.data_dir)?;
    let data_dir = args.data_dir.canonicalize()?;
    let _lock = lock(&data_dir)?;
    // An old file would send clients to a server that is gone.
    remove_if_there(&data_dir.join(DEV_JSON))?;
    let secrets = Secrets::load_or_create(&data_dir)?;
    let postgres = Postgres::start(&data_dir).await?;
    let ran = run(&args, &data_dir, config_file, &secrets, &postgres).await;
    let removed = remove_if_there(&data_dir.join(DEV_JSON));
    postgres.stop().await?;
    ran.and(removed.map_err(Failure::from))
}

async fn run(
    args: &DevArgs,
    data_dir: &Path,
    config_file: Option<PathBuf>,
    secrets: &Secrets,
    postgres: &Postgres,
) -> Result<(), Failure> {
    let config = configure(args, data_dir, config_file, secrets, postgres)?;
    let telemetry = telemetry::init(&config.telemetry)?;
    if args.storage == DevStorage::S3 {
        bucket::make_ready(&config).await?;
    }
    migrate::up(&postgres.url("postgres")).await?;
    postgres.allow_logins().await?;
    let service = assemble(config, telemetry.metrics(), Some(&callers::issuer(secrets))).await?.with_worker();
    let grpc = TcpListener::bind(service.config().server.listen).await?;
    let edge = TcpListener::bind(service.config().edge.listen).await?;
    let addresses = (format!("http://{}", grpc.local_addr()?), format!("http://{}", edge.local_addr()?));
    let described = callers::describe(service.app(), secrets).await?;
    let ready = json!({
        "grpc": addresses.0,
        "edge": addresses.1,
        "tokens": described.tokens,
        "callers": described.callers,
    });
    write_private(data_dir, DEV_JSON, &serde_json::to_vec_pretty(&ready)?)?;
    print(&format!(
        "ready: gRPC at {}, probes and metrics at {}; tokens in {}",
        addresses.0,
        addresses.1,
        data_dir.join(DEV_JSON).display()
    ))?;
    let ended = service.run(grpc, edge, stop_signal()).await;
    telemetry.shutdown();
    Ok(ended?)
}

/// The configuration of this installation: the defaults, the file and the environment, and what `dev` decides itself.
fn configure(
    args: &DevArgs,
    data_dir: &Path,
    config_file: Option<PathBuf>,
    secrets: &Secrets,
    postgres: &Postgres,
) -> Result<Config, Failure> {
    let mut config = load(config_file)?;
    config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    config.edge.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.edge_port));
    config.database.url = Some(postgres.url(postgres::APP_LOGIN));
    config.database.system_url = Some(postgres.url(postgres::SYSTEM_LOGIN));
    config.database.tls_ca_file = None;
    // The directory stays readable whatever new bytes go to.
    config
        .storage
        .write_to("local", ProviderConfig::Local(LocalConfig { root: Some(data_dir.join("objects")) }));
    match args.storage {
        DevStorage::Local => {}
        DevStorage::Memory => config.storage.write_to("memory", ProviderConfig::Memory),
        DevStorage::S3 => args.bucket.configure(&mut config)?,
    }
    config.secrets.page_token_key = Some(SecretString::from(secrets.page_token_key()));
    config.tenants.preset = args.preset.clone();
    // There is no scanner here; files say NOT_SCANNED.
    config.scanning.accept_unscanned = true;
    config.auth.roles.insert("operator".to_owned(), RoleName::Operator);
    config.telemetry.log_format = LogFormat::Text;
    config.validate()?;
    Ok(config)
}

/// Keeps a second `dev` out of the same data directory for as long as it is held.
fn lock(data_dir: &Path) -> Result<fs::File, Failure> {
    let file = fs::File::create(data_dir.join("dev.lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(format!("another `strongroom dev` is running in {}", data_dir.display()).into())
        }
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let unfinished = directory.join(format!(".{name}.unfinished"));
    remove_if_there(&unfinished)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))?;
    Ok(())
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
