//! The command line: what an operator and a developer type. `assemble` is the only place that wires parts together.

mod assemble;
#[cfg(feature = "client")]
mod client;
mod dev;
mod fsck;
mod jobs;
mod migrate;
mod providers;
mod serve;
mod start_error;
mod storage;
mod surroundings;
mod sweep;
mod worker;

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};

pub use assemble::{Service, assemble};
pub use providers::{OpenError, open_import_buckets};
pub use start_error::StartError;

use crate::config::{Config, ConfigError, Sources};

/// A multi-tenant file service with a gRPC contract.
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, about)]
struct Cli {
    /// A configuration file; environment variables (STRONGROOM_SECTION__KEY) win over it
    #[arg(long, global = true, env = "STRONGROOM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the gRPC contract, and the small HTTP port for probes and metrics
    Serve(serve::ServeArgs),
    /// Do background work, beside any number of others that do or serve; with the HTTP port for probes and metrics
    Worker,
    /// Look at the queue of background work, try again what is parked, or throw it away
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Run everything on this machine in one process, with a private PostgreSQL and ready tokens
    Dev(dev::DevArgs),
    /// Apply, revert or show the migrations of the database
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Compare database and store, and report every promise that does not hold
    Fsck(fsck::FsckArgs),
    /// Look at the providers of bytes, make them ready, and move files between them
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    /// Remove what crashes left in the stores: found first, removed by a later sweep
    Sweep(sweep::SweepArgs),
    /// Print the annotated default configuration, which is also the reference of every key
    DefaultConfig,
    #[cfg(feature = "client")]
    #[command(flatten)]
    Client(client::ClientCommand),
}

/// Why a command that is not a client ended early.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses the arguments of this process and runs the command.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // Every TLS stack of this process uses the same provider. It fails only where one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error),
    };
    let code = runtime.block_on(dispatch(cli));
    // A read of standard input cannot be called back, so nothing waits for it.
    runtime.shutdown_background();
    code
}

async fn dispatch(cli: Cli) -> ExitCode {
    let config = cli.config;
    let ended = match cli.command {
        Command::Serve(args) => serve::serve(args, config).await,
        Command::Worker => worker::worker(config).await,
        Command::Jobs(command) => {
            return jobs::jobs(command, config).await.unwrap_or_else(|error| report(&*error));
        }
        Command::Dev(args) => dev::dev(args, config).await,
        Command::Migrate(command) => migrate::migrate(command, config).await,
        Command::Fsck(args) => return fsck::fsck(args, config).await.unwrap_or_else(|error| report(&*error)),
        Command::Storage(command) => {
            return storage::storage(command, config).await.unwrap_or_else(|error| report(&*error));
        }
        Command::Sweep(args) => {
            return sweep::sweep(args, config).await.unwrap_or_else(|error| report(&*error));
        }
        Command::DefaultConfig => print(crate::config::DEFAULT_TOML),
        #[cfg(feature = "client")]
        Command::Client(command) => return client::run(command).await.into(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&*error),
    }
}

/// Reads the configuration of this process.
fn load(file: Option<PathBuf>) -> Result<Config, ConfigError> {
    Config::load(Sources::of_process(file))
}

/// Writes text to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Says on standard error what went wrong, with every cause.
fn report(error: &dyn std::error::Error) -> ExitCode {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let text = source.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = source.source();
    }
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "strongroom: {message}");
    ExitCode::FAILURE
}

/// Resolves when the process is asked to stop: SIGTERM or Ctrl-C.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "listen for SIGTERM");
            // Ctrl-C remains; where even that fails there is nothing to wait for.
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// The clock and the ids of the real world.
fn ambient() -> (Arc<dyn crate::domain::clock::Clock>, Arc<dyn crate::domain::clock::IdSource>) {
    (Arc::new(crate::domain::clock::SystemClock), Arc::new(crate::domain::clock::SystemIds))
}
