//! `strongroom serve`: the server process.

use std::path::PathBuf;

use clap::Args;

use super::{
    Failure,
    assemble::assemble_service,
    listeners::{EDGE, GRPC, bind_listener},
    load_config, wait_for_stop_signal,
};
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Also run background jobs in this process. Without this flag, at least one `strongroom worker` must be
    /// running.
    #[arg(long)]
    with_worker: bool,
}

pub(super) async fn run_serve(args: ServeArgs, config: Option<PathBuf>) -> Result<(), Failure> {
    let config = load_config(config)?;
    config.validate_for_serve()?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let service = assemble_service(config, telemetry.metrics(), None).await?;
    let service = if args.with_worker { service.with_worker() } else { service };
    let grpc = bind_listener(GRPC, service.config().server.listen).await?;
    let edge = bind_listener(EDGE, service.config().edge.listen).await?;
    tracing::info!(grpc = %grpc.local_addr()?, edge = %edge.local_addr()?, "listening");
    if !args.with_worker {
        tracing::info!(
            "this process runs no background jobs; at least one `strongroom worker` must be running"
        );
    }
    let result = service.run(grpc, edge, wait_for_stop_signal()).await;
    telemetry.shutdown();
    Ok(result?)
}
