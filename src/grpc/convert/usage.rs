//! Conversions of measured usage (parts, owners and samples) and of rate limits of subjects.

use std::time::Duration;

use super::time;
use crate::{
    app::quotas::{
        HistoryPage, HistoryQuery, OwnerPage, OwnerUsage, RateLimitCheck, UsageMeasurement, UsageSample,
    },
    domain::{ids::TenantId, subject_rate::RateDecision, violations::Violations},
    proto::v1,
};

pub(in crate::grpc) fn breakdown_to_proto(measured: UsageMeasurement) -> v1::UsageBreakdown {
    v1::UsageBreakdown {
        file_count: measured.file_count,
        current_bytes: measured.current_bytes,
        old_version_count: measured.old_version_count,
        old_version_bytes: measured.old_version_bytes,
        trash_file_count: measured.trash_file_count,
        trash_bytes: measured.trash_bytes,
        owner_count: measured.owner_count,
        measure_time: Some(time::to_proto(measured.measure_time)),
    }
}

pub(in crate::grpc) fn owners_to_proto(page: OwnerPage) -> v1::ListTopOwnersResponse {
    v1::ListTopOwnersResponse {
        owners: page.owners.into_iter().map(owner_to_proto).collect(),
        next_page_token: page.next_page_token,
        owner_count: page.measurement.map_or(0, |measured| measured.owner_count),
        measure_time: page.measurement.map(|measured| time::to_proto(measured.measure_time)),
    }
}

fn owner_to_proto(owner: OwnerUsage) -> v1::OwnerUsage {
    v1::OwnerUsage {
        owner_id: owner.owner_id,
        total_bytes: owner.total_bytes,
        file_count: owner.file_count,
        old_version_bytes: owner.old_version_bytes,
        trash_file_count: owner.trash_file_count,
        trash_bytes: owner.trash_bytes,
    }
}

pub(in crate::grpc) fn history_query_from_proto(
    request: v1::GetUsageHistoryRequest,
    tenant: Option<TenantId>,
) -> Result<HistoryQuery, Violations> {
    let mut violations = Violations::new();
    let start = time::from_proto("start_time", request.start_time, &mut violations);
    let end = time::from_proto("end_time", request.end_time, &mut violations);
    violations.into_result()?;
    Ok(HistoryQuery { tenant, start, end, page_size: request.page_size, page_token: request.page_token })
}

pub(in crate::grpc) fn history_to_proto(page: HistoryPage) -> v1::GetUsageHistoryResponse {
    v1::GetUsageHistoryResponse {
        samples: page.samples.into_iter().map(sample_to_proto).collect(),
        next_page_token: page.next_page_token,
        growth_bytes_per_day: page.trend.map(|trend| trend.growth_bytes_per_day),
        days_until_full: page.trend.and_then(|trend| trend.days_until_full),
    }
}

fn sample_to_proto(sample: UsageSample) -> v1::UsageSample {
    v1::UsageSample {
        sample_time: Some(time::to_proto(sample.sample_time)),
        used_bytes: sample.used_bytes,
        limit_bytes: sample.limit_bytes,
        file_count: sample.file_count,
        old_version_bytes: sample.old_version_bytes,
        trash_bytes: sample.trash_bytes,
    }
}

pub(in crate::grpc) fn rate_limit_check_from_proto(request: v1::CheckRateLimitRequest) -> RateLimitCheck {
    RateLimitCheck {
        subject: request.subject,
        action: request.action,
        limit: request.limit,
        window: request.window.and_then(|window| Duration::try_from(window).ok()),
        cost: request.cost,
        is_peek: request.peek,
    }
}

pub(in crate::grpc) fn rate_decision_to_proto(decision: RateDecision) -> v1::CheckRateLimitResponse {
    v1::CheckRateLimitResponse {
        allowed: decision.is_allowed,
        limit: decision.limit.into(),
        remaining: i64::try_from(decision.remaining).unwrap_or(i64::MAX),
        reset_delay: decision.full_after.try_into().ok(),
        retry_delay: decision.retry_after.and_then(|delay| delay.try_into().ok()),
    }
}
