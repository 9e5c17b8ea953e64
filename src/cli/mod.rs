//! The command line. `assemble` is the only module that wires the parts of the service together.

mod assemble;
#[cfg(feature = "client")]
mod client;
mod confirmation;
mod dev;
mod fsck;
mod jobs;
mod listeners;
mod migrate;
mod monitoring;
mod providers;
mod quarantine;
mod restore_check;
mod scrub;
mod selection;
mod serve;
mod spinner;
mod start_error;
mod storage;
mod sweep;
mod worker;

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};

pub use assemble::{Service, assemble_service};
pub use providers::{OpenError, open_import_buckets};
pub use start_error::StartError;

use crate::{
    config::{Config, ConfigError, ConfigSources},
    db::{Database, DbError},
    domain::clock::{Clock, IdSource, SyncedClock, SystemClock, SystemIds},
};

/// A multi-tenant file service with a gRPC API.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, about)]
struct Cli {
    /// The configuration file; environment variables (STRONGROOM_SECTION__KEY) override it.
    #[arg(long, global = true, env = "STRONGROOM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the gRPC API, and probes and metrics over HTTP.
    Serve(serve::ServeArgs),
    /// Run background jobs, and serve probes and metrics over HTTP; any number of workers may run at the same
    /// time.
    Worker,
    /// List, show, retry or discard background jobs.
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Run a complete development server, with a private PostgreSQL and prepared tokens.
    Dev(dev::DevArgs),
    /// Apply, revert or list database migrations.
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Compare the database with the object stores and report every violated invariant.
    Fsck(fsck::FsckArgs),
    /// After a restore: compare the database with the object stores, and decide about the objects of the lost hours.
    RestoreCheck(restore_check::RestoreCheckArgs),
    /// List, release or delete the objects that were quarantined after a restore.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Initialize storage providers, show their status, and move files between them.
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    /// Read and verify stored objects now, beside the workers.
    Scrub(scrub::ScrubArgs),
    /// Find objects without a database row, and delete those found by an earlier sweep.
    Sweep(sweep::SweepArgs),
    /// Print the annotated default configuration, which documents every key.
    DefaultConfig,
    #[cfg(feature = "client")]
    #[command(flatten)]
    Client(client::ClientCommand),
}

/// The error of a command that is not a client command.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses the command line and runs the command.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // Every TLS stack in this process uses the same provider. This fails only if one is already installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report_error(&error),
    };
    let code = runtime.block_on(dispatch(cli));
    // A blocking read of standard input cannot be cancelled, so the shutdown must not wait for it.
    runtime.shutdown_background();
    code
}

async fn dispatch(cli: Cli) -> ExitCode {
    let config = cli.config;
    let result = match cli.command {
        Command::Serve(args) => serve::run_serve(args, config).await,
        Command::Worker => worker::run_worker(config).await,
        Command::Jobs(command) => {
            return jobs::run_jobs(command, config).await.unwrap_or_else(|error| report_error(&*error));
        }
        Command::Dev(args) => dev::run_dev(args, config).await,
        Command::Migrate(command) => migrate::run_migrate(command, config).await,
        Command::Fsck(args) => {
            return fsck::run_fsck(args, config).await.unwrap_or_else(|error| report_error(&*error));
        }
        Command::RestoreCheck(args) => {
            let run = restore_check::run_restore_check(args, config);
            return run.await.unwrap_or_else(|error| report_error(&*error));
        }
        Command::Quarantine(command) => {
            return quarantine::run_quarantine(command, config)
                .await
                .unwrap_or_else(|error| report_error(&*error));
        }
        Command::Storage(command) => {
            return storage::run_storage(command, config).await.unwrap_or_else(|error| report_error(&*error));
        }
        Command::Scrub(args) => {
            return scrub::run_scrub(args, config).await.unwrap_or_else(|error| report_error(&*error));
        }
        Command::Sweep(args) => {
            return sweep::run_sweep(args, config).await.unwrap_or_else(|error| report_error(&*error));
        }
        Command::DefaultConfig => print_text(crate::config::DEFAULT_TOML),
        #[cfg(feature = "client")]
        Command::Client(command) => return client::run_client_command(command).await.into(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_error(&*error),
    }
}

/// Loads the configuration from the file and the environment.
fn load_config(file: Option<PathBuf>) -> Result<Config, ConfigError> {
    Config::load(ConfigSources::from_process(file))
}

/// Prints text to standard output, with a final newline.
fn print_text(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Prints an error and its causes to standard error.
fn report_error(error: &dyn std::error::Error) -> ExitCode {
    let message = crate::domain::error_text::with_causes(error);
    // If standard error is closed, there is nowhere left to report to.
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::FAILURE
}

/// Waits for SIGTERM or Ctrl-C.
async fn wait_for_stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "failed to listen for SIGTERM");
            // Ctrl-C still works. If that fails too, there is no signal to wait for.
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// Returns the system clock and the system's id generator.
fn system_clock_and_ids() -> (Arc<dyn Clock>, Arc<dyn IdSource>) {
    (Arc::new(SystemClock), system_ids())
}

/// Returns the database's clock, measured once, for a command that decides what is old.
async fn database_clock(database: &Database) -> Result<Arc<dyn Clock>, DbError> {
    let clock = SyncedClock::new(SystemClock);
    clock.follow(database.measure_clock(clock.local()).await?);
    Ok(clock)
}

/// Returns the source of ids of a process.
fn system_ids() -> Arc<dyn IdSource> {
    Arc::new(SystemIds)
}
