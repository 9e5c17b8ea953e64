//! Claims and runs jobs: up to the configured number concurrently, and one per tenant in each poll. The poll
//! interval grows while the queue is empty. When stopped, it claims no more jobs, gives running jobs time to
//! finish, and releases the rest.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attempt::attempt_job;
use crate::{
    app::{App, RoundReport},
    db::{
        DbError, SystemTx,
        jobs::{self, CandidateTenant, ClaimLimits, ClaimedJob, JobState},
    },
    domain::ids::TenantId,
    telemetry::metrics::AttemptOutcome,
};

/// The number of tenants with jobs that one poll examines.
const TENANTS_PER_POLL_MAX: usize = 200;
/// The number of jobs of lost workers that one poll recovers.
const LOST_JOBS_PER_POLL_MAX: i64 = 100;

/// The result of a poll.
struct Poll {
    claimed: Vec<ClaimedJob>,
    /// There may be more tenants than one poll examines.
    has_more: bool,
}

/// Runs jobs until `stop` is cancelled, then drains.
pub(super) async fn run_jobs_until_stopped(app: &Arc<App>, drain: Duration, stop: &CancellationToken) {
    let config = &app.limits().worker;
    let abort = CancellationToken::new();
    let mut cursor = None;
    let mut running = JoinSet::new();
    let mut poll_interval = config.poll_min();
    while !stop.is_cancelled() {
        let free = config.jobs_max.saturating_sub(running.len());
        let poll = if free > 0 { poll_queue(app, &mut cursor, free).await } else { Poll::empty() };
        let is_idle = poll.claimed.is_empty() && !poll.has_more;
        for claimed in poll.claimed {
            let (app, abort) = (Arc::clone(app), abort.clone());
            running.spawn(async move { attempt_job(&app, claimed, &abort).await });
        }
        if !is_idle {
            poll_interval = config.poll_min();
            // Poll immediately for the next tenants, unless all slots are in use.
            if running.len() < config.jobs_max {
                continue;
            }
        }
        tokio::select! {
            Some(_) = running.join_next() => poll_interval = config.poll_min(),
            () = tokio::time::sleep(poll_interval) => poll_interval = (poll_interval * 2).min(config.poll_max()),
            () = stop.cancelled() => {}
        }
    }
    let finished = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, finished).await.is_err() {
        tracing::info!(jobs = running.len(), "releasing jobs that did not finish in time");
        abort.cancel();
        while running.join_next().await.is_some() {}
    }
}

/// Runs the due jobs one after another until none is left. Jobs that did not complete count as failed.
pub(super) async fn run_due_jobs(app: &App) -> RoundReport {
    let (mut cursor, mut total) = (None, RoundReport::default());
    let never = CancellationToken::new();
    loop {
        let poll = poll_queue(app, &mut cursor, app.limits().worker.jobs_max).await;
        if poll.claimed.is_empty() && !poll.has_more {
            return total;
        }
        for claimed in poll.claimed {
            match attempt_job(app, claimed, &never).await {
                AttemptOutcome::Done => total.done += 1,
                _ => total.failed += 1,
            }
        }
    }
}

impl Poll {
    fn empty() -> Self {
        Self { claimed: Vec::new(), has_more: false }
    }
}

/// Claims jobs of the tenants after the cursor, and advances the cursor.
async fn poll_queue(app: &App, cursor: &mut Option<TenantId>, free: usize) -> Poll {
    // The jobs of a copied database are those of its original.
    if !app.owners().may_change_records() {
        return Poll::empty();
    }
    let polled = async {
        let mut tx = app.db().system_tx().await?;
        recover_lost_jobs(app, &mut tx).await?;
        let poll = claim_jobs(app, &mut tx, cursor, free).await?;
        tx.commit().await?;
        Ok::<_, DbError>(poll)
    };
    polled.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "failed to poll the job queue");
        Poll::empty()
    })
}

async fn recover_lost_jobs(app: &App, tx: &mut SystemTx) -> Result<(), DbError> {
    let attempts_max = i32::try_from(app.limits().worker.attempts_max).unwrap_or(i32::MAX);
    for lost in jobs::recover_lost(tx, attempts_max, LOST_JOBS_PER_POLL_MAX).await? {
        let jobs::LostJob { tenant, id, kind, attempts, state } = lost;
        let is_parked = state == JobState::Parked;
        app.metrics().record_job_attempt(&kind, AttemptOutcome::Lost, None);
        tracing::warn!(%tenant, job = %id, kind, attempts, is_parked, "recovered a job from a lost worker");
    }
    Ok(())
}

/// Claims one job of each of the next tenants that have a due job. A poll that reaches the end of all tenants
/// wraps around to where it started.
async fn claim_jobs(
    app: &App,
    tx: &mut SystemTx,
    cursor: &mut Option<TenantId>,
    free: usize,
) -> Result<Poll, DbError> {
    let config = &app.limits().worker;
    let limits = ClaimLimits {
        lease_seconds: config.lease_seconds,
        tenant_jobs_max: i64::try_from(config.tenant_jobs_max).unwrap_or(i64::MAX),
    };
    let tenants_max = i64::try_from(TENANTS_PER_POLL_MAX).unwrap_or(i64::MAX);
    let mut tenants = Vec::new();
    let start = *cursor;
    let mut has_more = pick_due_tenants(
        &jobs::list_candidates(tx, *cursor, tenants_max, limits).await?,
        cursor,
        &mut tenants,
        free,
    );
    if cursor.is_none() && start.is_some() && tenants.len() < free {
        has_more = pick_due_tenants(
            &jobs::list_candidates(tx, None, tenants_max, limits).await?,
            cursor,
            &mut tenants,
            free,
        );
    }
    let mut seen = HashSet::new();
    tenants.retain(|tenant| seen.insert(*tenant));
    let claimed = if tenants.is_empty() { Vec::new() } else { jobs::claim(tx, &tenants, limits).await? };
    Ok(Poll { claimed, has_more })
}

/// Picks tenants with a due job until there are enough, and advances the cursor; `None` after the last
/// tenant. Returns whether there may be more tenants after a full page.
fn pick_due_tenants(
    candidates: &[CandidateTenant],
    cursor: &mut Option<TenantId>,
    picked: &mut Vec<TenantId>,
    enough: usize,
) -> bool {
    for candidate in candidates {
        *cursor = Some(candidate.tenant);
        if candidate.is_due {
            picked.push(candidate.tenant);
        }
        if picked.len() >= enough {
            return false;
        }
    }
    if candidates.len() < TENANTS_PER_POLL_MAX {
        *cursor = None;
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn candidates(due: &[bool]) -> Vec<CandidateTenant> {
        let tenant = |n: usize| TenantId::from_uuid(Uuid::from_u128(n as u128 + 1));
        due.iter()
            .enumerate()
            .map(|(n, is_due)| CandidateTenant { tenant: tenant(n), is_due: *is_due })
            .collect()
    }

    #[test]
    fn poll_stops_after_the_last_picked_tenant() {
        let (mut cursor, mut picked) = (None, Vec::new());
        let all = candidates(&[true, false, true, true]);
        assert!(!pick_due_tenants(&all, &mut cursor, &mut picked, 2));
        assert_eq!((picked, cursor), (vec![all[0].tenant, all[2].tenant], Some(all[2].tenant)));
    }

    #[test]
    fn poll_restarts_after_the_last_tenant() {
        let (mut cursor, mut picked) = (Some(TenantId::from_uuid(Uuid::max())), Vec::new());
        assert!(!pick_due_tenants(&candidates(&[false, true]), &mut cursor, &mut picked, 2));
        assert_eq!((picked.len(), cursor), (1, None));
    }

    #[test]
    fn full_page_without_due_jobs_is_not_the_end() {
        let (mut cursor, mut picked) = (None, Vec::new());
        let page = candidates(&[false; TENANTS_PER_POLL_MAX]);
        assert!(pick_due_tenants(&page, &mut cursor, &mut picked, 2));
        assert_eq!((picked.len(), cursor), (0, page.last().map(|last| last.tenant)));
    }
}
