//! `strongroom serve`.

use std::path::PathBuf;

use tokio::net::TcpListener;

use super::{Failure, assemble::assemble, load, stop_signal};
use crate::telemetry;

pub(super) async fn serve(config: Option<PathBuf>) -> Result<(), Failure> {
    let config = load(config)?;
    config.validate_for_serve()?;
    let telemetry = telemetry::init(&config.telemetry)?;
    let service = assemble(config, telemetry.metrics(), None).await?;
    let grpc = TcpListener::bind(service.config().server.listen).await?;
    let edge = TcpListener::bind(service.config().edge.listen).await?;
    tracing::info!(grpc = %grpc.local_addr()?, edge = %edge.local_addr()?, "listening");
    let ended = service.run(grpc, edge, stop_signal()).await;
    telemetry.shutdown();
    Ok(ended?)
}
