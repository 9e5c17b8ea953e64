//! Conversions of quota alerts.

use super::{id, time};
use crate::{
    app::quotas::{AlertPage, AlertQuery},
    domain::{
        quota_alert::{AlertLevel, QuotaAlert},
        violations::Violations,
    },
    proto::v1,
};

pub(in crate::grpc) fn query_from_proto(
    request: v1::ListQuotaAlertsRequest,
) -> Result<AlertQuery, Violations> {
    let mut violations = Violations::new();
    let tenant = id::parse_tenant_id(&request.tenant_id, &mut violations);
    violations.into_result()?;
    Ok(AlertQuery { tenant, page_size: request.page_size, page_token: request.page_token })
}

pub(in crate::grpc) fn page_to_proto(page: AlertPage) -> v1::ListQuotaAlertsResponse {
    v1::ListQuotaAlertsResponse {
        alerts: page.alerts.into_iter().map(to_proto).collect(),
        next_page_token: page.next_page_token,
    }
}

fn to_proto(alert: QuotaAlert) -> v1::QuotaAlert {
    v1::QuotaAlert {
        id: alert.id.to_string(),
        level: level_to_proto(alert.level).into(),
        threshold_percent: alert.threshold_percent.into(),
        used_bytes: alert.used_bytes,
        limit_bytes: alert.limit_bytes,
        create_time: Some(time::to_proto(alert.create_time)),
        email_count: i32::try_from(alert.emailed.len()).unwrap_or(i32::MAX),
    }
}

pub(super) const fn level_to_proto(level: AlertLevel) -> v1::QuotaLevel {
    match level {
        AlertLevel::None => v1::QuotaLevel::Ok,
        AlertLevel::Warning => v1::QuotaLevel::Warning,
        AlertLevel::Critical => v1::QuotaLevel::Critical,
    }
}
