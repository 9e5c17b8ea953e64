//! Lists the daily samples of the usage of a tenant, and estimates when it is full.

use serde::{Deserialize, Serialize};

use super::resolve_tenant::{begin_tx, resolve_tenant};
use crate::{
    app::{App, Error, Principal, pages},
    db::{
        DbError, TenantTx, quotas,
        usage_samples::{self, SampleRange, UsageSample},
    },
    domain::{clock::Timestamp, ids::TenantId, usage_trend::UsageTrend, violations::Violations},
};

/// The number of days before now whose growth is reported.
const TREND_DAYS: u32 = 30;

/// The samples that a caller requests.
#[derive(Debug, Clone, Default)]
pub struct HistoryQuery {
    pub tenant: Option<TenantId>,
    /// The earliest time of a sample.
    pub start: Option<Timestamp>,
    /// The time before which samples are listed.
    pub end: Option<Timestamp>,
    pub page_size: i32,
    pub page_token: String,
}

/// A page of samples, the oldest first.
#[derive(Debug)]
pub struct HistoryPage {
    pub samples: Vec<UsageSample>,
    /// The token of the next page; empty on the last page.
    pub next_page_token: String,
    /// The growth of the last 30 days; `None` without a sample that is at least one day old.
    pub trend: Option<UsageTrend>,
}

/// The position of a page, and the range that it belongs to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Position {
    after: Timestamp,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
}

/// Lists the samples of the caller's tenant, or of the tenant that an operator names.
///
/// # Errors
/// Returns `NotFound` for another tenant, `Invalid`, or `PageTokenInvalid`.
pub async fn get_usage_history(
    app: &App,
    principal: &Principal,
    query: &HistoryQuery,
) -> Result<HistoryPage, Error> {
    if matches!((query.start, query.end), (Some(start), Some(end)) if start >= end) {
        return Err(Violations::one("end_time", "must be later than start_time").into());
    }
    let size = pages::resolve_page_size(app, query.page_size)?;
    let (tenant, viewer) = resolve_tenant(app, principal, query.tenant).await?;
    let position: Option<Position> = pages::open_token_for(app, &purpose(tenant), &query.page_token)?;
    if position.is_some_and(|position| (position.start, position.end) != (query.start, query.end)) {
        return Err(Error::PageTokenInvalid);
    }
    let range =
        SampleRange { start: query.start, end: query.end, after: position.map(|position| position.after) };
    let mut tx = begin_tx(app, principal, tenant, &viewer).await?;
    let read = read_page(&mut tx, range, size).await;
    let (mut samples, trend) = tx.finish(read).await?;
    let has_more = samples.len() > size;
    samples.truncate(size);
    let next_page_token = match samples.last().filter(|_| has_more) {
        Some(last) => {
            let position = Position { after: last.sample_time, start: query.start, end: query.end };
            pages::seal_token_for(app, &purpose(tenant), &position)?
        }
        None => String::new(),
    };
    Ok(HistoryPage { samples, next_page_token, trend })
}

async fn read_page(
    tx: &mut TenantTx,
    range: SampleRange,
    size: usize,
) -> Result<(Vec<UsageSample>, Option<UsageTrend>), DbError> {
    let one_more = i64::try_from(size + 1).unwrap_or(i64::MAX);
    let samples = usage_samples::list(tx, range, one_more).await?;
    let Some(oldest) = usage_samples::find_oldest_of(tx, TREND_DAYS).await? else {
        return Ok((samples, None));
    };
    let (quota, now) = (quotas::get(tx).await?, tx.now().await?);
    let trend = UsageTrend::between(
        (now - oldest.sample_time).num_seconds(),
        quota.used_bytes - oldest.used_bytes,
        quota.available_bytes(),
    );
    Ok((samples, trend))
}

fn purpose(tenant: TenantId) -> Vec<u8> {
    [b"usage history ".as_slice(), tenant.as_uuid().as_bytes()].concat()
}
