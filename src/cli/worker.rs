//! `strongroom worker`: a process that only runs background jobs.

use std::path::PathBuf;

use super::{
    Failure,
    assemble::assemble_worker,
    listeners::{EDGE, bind_listener},
    load_config, wait_for_stop_signal,
};
use crate::telemetry;

pub(super) async fn run_worker(config: Option<PathBuf>) -> Result<(), Failure> {
    let config = load_config(config)?;
    config.validate_for_worker()?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let worker = assemble_worker(config, telemetry.metrics()).await?;
    let edge = bind_listener(EDGE, worker.config().edge.listen).await?;
    tracing::info!(edge = %edge.local_addr()?, "worker started");
    let result = worker.run(edge, wait_for_stop_signal()).await;
    telemetry.shutdown();
    Ok(result?)
}
