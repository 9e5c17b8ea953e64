//! `strongroom dev`: a complete development server, with a private PostgreSQL, for people and for acceptance
//! tests.
//!
//! The data directory contains the PostgreSQL cluster, the stored objects, the secrets of this installation
//! and, while the server runs, `dev.json` with addresses and prepared tokens. Data survives a restart.

pub(super) mod attach;
mod bucket;
mod callers;
mod postgres;
mod private_files;
mod secrets;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::{
    postgres::Postgres,
    private_files::{create_private_directory, create_private_file},
    secrets::Secrets,
};
use super::{
    Failure,
    assemble::assemble_service,
    listeners::{EDGE, GRPC, ListenerSetting, bind_listener},
    load_config, print_text, wait_for_stop_signal,
};
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

#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// The directory for all data; it is created if it does not exist.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The gRPC port; 0 selects a free port.
    #[arg(long, default_value_t = 50051)]
    port: u16,
    /// The port for probes and metrics; 0 selects a free port.
    #[arg(long, default_value_t = 8080)]
    edge_port: u16,
    /// Where to store the contents of files.
    #[arg(long, value_enum, default_value_t = DevStorage::Local, env = "STRONGROOM_DEV_STORAGE")]
    storage: DevStorage,
    #[command(flatten)]
    bucket: bucket::BucketArgs,
    /// The policy preset of new tenants: general, workspace, crm, education or images.
    #[arg(long, default_value = "general")]
    preset: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DevStorage {
    /// In the data directory.
    Local,
    /// In memory; lost when the process ends.
    Memory,
    /// In a bucket of an S3-compatible store.
    S3,
}

/// The file with the addresses of the server and the tokens of its callers.
const DEV_JSON: &str = "dev.json";

pub(super) async fn run_dev(args: DevArgs, config_file: Option<PathBuf>) -> Result<(), Failure> {
    create_private_directory(&args.data_dir)?;
    let data_dir = args.data_dir.canonicalize()?;
    let _lock = lock(&data_dir)?;
    // A file from an earlier run contains addresses that are no longer valid.
    remove_if_exists(&data_dir.join(DEV_JSON))?;
    let secrets = Secrets::load_or_create(&data_dir)?;
    let postgres = Postgres::start(&data_dir).await?;
    let result = serve(&args, &data_dir, config_file, &secrets, &postgres).await;
    let removed = remove_if_exists(&data_dir.join(DEV_JSON));
    postgres.stop().await?;
    result.and(removed.map_err(Failure::from))
}

async fn serve(
    args: &DevArgs,
    data_dir: &Path,
    config_file: Option<PathBuf>,
    secrets: &Secrets,
    postgres: &Postgres,
) -> Result<(), Failure> {
    let config = configure(args, data_dir, config_file, secrets, postgres)?;
    let telemetry = telemetry::init(&config.telemetry)?;
    if args.storage == DevStorage::S3 {
        bucket::initialize_bucket(&config).await?;
    }
    migrate::up(&postgres.url("postgres")).await?;
    postgres.create_logins().await?;
    let service = assemble_service(config, telemetry.metrics(), Some(&callers::dev_issuer(secrets)))
        .await?
        .with_worker();
    let grpc = ListenerSetting { setting: "--port", ..GRPC };
    let grpc = bind_listener(grpc, service.config().server.listen).await?;
    let edge = ListenerSetting { setting: "--edge-port", ..EDGE };
    let edge = bind_listener(edge, service.config().edge.listen).await?;
    let addresses = (format!("http://{}", grpc.local_addr()?), format!("http://{}", edge.local_addr()?));
    let records = callers::prepare_callers(service.app(), secrets).await?;
    let ready = json!({
        "grpc": addresses.0,
        "edge": addresses.1,
        "tokens": records.tokens,
        "callers": records.callers,
        "maintenance": attach::Attachment::new(args, postgres),
    });
    write_private(data_dir, DEV_JSON, &serde_json::to_vec_pretty(&ready)?)?;
    let text = format!(
        "ready: gRPC at {}, probes and metrics at {}, tokens in {}",
        addresses.0,
        addresses.1,
        data_dir.join(DEV_JSON).display()
    );
    let health = service.health().clone();
    let mut serving = Box::pin(service.run(grpc, edge, wait_for_stop_signal()));
    let result = tokio::select! {
        ended = &mut serving => ended,
        () = health.wait_until_ready() => {
            print_text(&text)?;
            serving.await
        }
    };
    telemetry.shutdown();
    Ok(result?)
}

/// Loads the configuration from the file and the environment, and overrides what `dev` sets itself.
fn configure(
    args: &DevArgs,
    data_dir: &Path,
    config_file: Option<PathBuf>,
    secrets: &Secrets,
    postgres: &Postgres,
) -> Result<Config, Failure> {
    let mut config = load_config(config_file)?;
    config.server.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    config.edge.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.edge_port));
    config.database.url = Some(postgres.url(postgres::APP_LOGIN));
    config.database.system_url = Some(postgres.url(postgres::SYSTEM_LOGIN));
    config.database.tls_ca_file = None;
    configure_local_storage(&mut config, data_dir);
    match args.storage {
        DevStorage::Local => {}
        DevStorage::Memory => config.storage.set_primary_provider("memory", ProviderConfig::Memory),
        DevStorage::S3 => args.bucket.configure(&mut config)?,
    }
    config.secrets.page_token_key = Some(SecretString::from(secrets.page_token_key()));
    config.tenants.preset = args.preset.clone();
    // There is no scanner; files get the scan status NOT_SCANNED.
    config.scanning.accept_unscanned = true;
    config.auth.roles.insert("operator".to_owned(), RoleName::Operator);
    config.telemetry.log_format = LogFormat::Text;
    config.validate()?;
    Ok(config)
}

/// Configures the objects in the data directory. This provider stays configured with another `--storage`, so that
/// files from earlier runs remain readable.
fn configure_local_storage(config: &mut Config, data_dir: &Path) {
    let local = LocalConfig { root: Some(data_dir.join("objects")) };
    config.storage.set_primary_provider("local", ProviderConfig::Local(local));
}

/// Locks the data directory against a second `dev`, until the returned file is dropped.
fn lock(data_dir: &Path) -> Result<fs::File, Failure> {
    let file = create_private_file(&data_dir.join("dev.lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(format!(
            "another `strongroom dev` is running in {}; stop it or choose another --data-dir",
            data_dir.display()
        )
        .into()),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Writes a file atomically, with permissions for its owner only.
fn write_private(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write as _;
    let unfinished = directory.join(format!(".{name}.unfinished"));
    remove_if_exists(&unfinished)?;
    let mut file = create_private_file(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))?;
    Ok(())
}

fn remove_if_exists(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
