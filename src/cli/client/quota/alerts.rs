//! `strongroom quota --alerts`: lists the alerts of a tenant.

use serde_json::{Value, json};

use crate::{
    cli::client::{
        failure::Failure,
        human,
        output::Output,
        records::{level_name, rfc3339},
    },
    client::Client,
    proto::v1::{ListQuotaAlertsRequest, QuotaAlert},
};

pub(super) async fn run_alerts(client: &Client, tenant_id: String, output: Output) -> Result<(), Failure> {
    let mut request = ListQuotaAlertsRequest { tenant_id, ..ListQuotaAlertsRequest::default() };
    if !output.json {
        output.line(format_args!(
            "{:<20}  {:<8}  {:>9}  {:>10}  {:>10}",
            "TIME", "LEVEL", "THRESHOLD", "USED", "LIMIT"
        ))?;
    }
    loop {
        let page = client.list_quota_alerts(request.clone()).await?;
        for alert in &page.alerts {
            if output.json { output.json(&to_json(alert))? } else { print(alert, output)? }
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

fn print(alert: &QuotaAlert, output: Output) -> Result<(), Failure> {
    output.line(format_args!(
        "{:<20}  {:<8}  {:>7} %  {:>10}  {:>10}",
        human::time_column(alert.create_time.as_ref()),
        level_name(alert.level()),
        alert.threshold_percent,
        human::size(alert.used_bytes),
        human::size(alert.limit_bytes),
    ))
}

fn to_json(alert: &QuotaAlert) -> Value {
    json!({
        "id": alert.id,
        "level": alert.level().as_str_name(),
        "threshold_percent": alert.threshold_percent,
        "used_bytes": alert.used_bytes,
        "limit_bytes": alert.limit_bytes,
        "create_time": rfc3339(alert.create_time),
        "email_count": alert.email_count,
    })
}
