//! `strongroom serve`.

use std::path::PathBuf;

use clap::Args;
use tokio::net::TcpListener;

use super::{Failure, assemble::assemble, load, stop_signal};
use crate::telemetry;

/// How to serve.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Do background work in the same process. Without it, `strongroom worker` must run somewhere
    #[arg(long)]
    with_worker: bool,
}

pub(super) async fn serve(args: ServeArgs, config: Option<PathBuf>) -> Result<(), Failure> {
    let config = load(config)?;
    config.validate_for_serve()?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let service = assemble(config, telemetry.metrics(), None).await?;
    let service = if args.with_worker { service.with_worker() } else { service };
    let grpc = TcpListener::bind(service.config().server.listen).await?;
    let edge = TcpListener::bind(service.config().edge.listen).await?;
    tracing::info!(grpc = %grpc.local_addr()?, edge = %edge.local_addr()?, "listening");
    if !args.with_worker {
        tracing::info!("this process does no background work; `strongroom worker` must run somewhere");
    }
    let ended = service.run(grpc, edge, stop_signal()).await;
    telemetry.shutdown();
    Ok(ended?)
}
