//! `strongroom worker`: a process that only works.

use std::path::PathBuf;

use tokio::net::TcpListener;

use super::{Failure, assemble::assemble_worker, load, stop_signal};
use crate::telemetry;

pub(super) async fn worker(config: Option<PathBuf>) -> Result<(), Failure> {
    let config = load(config)?;
    config.validate_for_worker()?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let worker = assemble_worker(config, telemetry.metrics()).await?;
    let edge = TcpListener::bind(worker.config().edge.listen).await?;
    tracing::info!(edge = %edge.local_addr()?, "working");
    let ended = worker.run(edge, stop_signal()).await;
    telemetry.shutdown();
    Ok(ended?)
}
