//! `strongroom quota --recalculate` and `--recalculation`: start a recalculation of the usage, and show its result.

use serde_json::{Value, json};

use crate::{
    cli::client::{failure::Failure, human, output::Output, records::rfc3339},
    client::Client,
    proto::v1::{GetUsageRecalculationRequest, RecalculateUsageRequest, UsageRecalculation},
};

pub(super) async fn start(client: &Client, tenant_id: String, output: Output) -> Result<(), Failure> {
    let request = RecalculateUsageRequest { tenant_id, ..RecalculateUsageRequest::default() };
    let started = client.recalculate_usage(request).await?.recalculation;
    print(started.as_ref(), output)
}

pub(super) async fn show(client: &Client, tenant_id: String, output: Output) -> Result<(), Failure> {
    let newest = client.get_usage_recalculation(GetUsageRecalculationRequest { tenant_id }).await?;
    print(newest.recalculation.as_ref(), output)
}

fn print(recalculation: Option<&UsageRecalculation>, output: Output) -> Result<(), Failure> {
    if output.json {
        return output.json(&recalculation.map(to_json));
    }
    let Some(recalculation) = recalculation else {
        return output.line("the usage was never recalculated; start it with --recalculate");
    };
    let state = recalculation.state().as_str_name().trim_start_matches("USAGE_RECALCULATION_STATE_");
    output.line(format_args!("state      {}", state.to_lowercase()))?;
    output.line(format_args!("requested  {}", human::time_column(recalculation.request_time.as_ref())))?;
    if recalculation.last_calculated_time.is_none() {
        return Ok(());
    }
    output.line(format_args!(
        "last run   {}",
        human::time_column(recalculation.last_calculated_time.as_ref())
    ))?;
    output.line(format_args!(
        "drift      {} bytes in {} files; reserved: {} bytes for {} files; pending deletion: {} bytes; {} counters",
        recalculation.drift_bytes,
        recalculation.drift_files,
        recalculation.drift_reserved_bytes,
        recalculation.drift_reserved_files,
        recalculation.drift_pending_deletion_bytes,
        recalculation.drift_counters,
    ))
}

fn to_json(recalculation: &UsageRecalculation) -> Value {
    json!({
        "tenant_id": recalculation.tenant_id,
        "state": recalculation.state().as_str_name(),
        "request_time": rfc3339(recalculation.request_time),
        "last_calculated_time": rfc3339(recalculation.last_calculated_time),
        "drift_bytes": recalculation.drift_bytes,
        "drift_files": recalculation.drift_files,
        "drift_reserved_bytes": recalculation.drift_reserved_bytes,
        "drift_reserved_files": recalculation.drift_reserved_files,
        "drift_pending_deletion_bytes": recalculation.drift_pending_deletion_bytes,
        "drift_counters": recalculation.drift_counters,
    })
}
