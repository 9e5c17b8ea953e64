//! Claims jobs and has them done: as many at once as are configured, one of each tenant a round. While there is nothing to do
//! it looks less and less often. Told to stop, it claims nothing more, gives what runs time to end, and gives the rest back.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attempt::attempt;
use crate::{
    app::App,
    db::{
        DbError, SystemTx,
        jobs::{self, Candidate, ClaimTerms, ClaimedJob},
    },
    domain::ids::TenantId,
};

/// How many tenants with jobs one look goes through.
const TENANTS_PER_LOOK: usize = 200;
/// How many jobs of lost workers one look gives back.
const LOST_PER_LOOK: i64 = 100;

/// What a look at the queue brought.
struct Found {
    claimed: Vec<ClaimedJob>,
    /// There were more tenants than one look goes through.
    has_more: bool,
}

/// Works until it is told to stop, and drains.
pub(super) async fn run(app: &Arc<App>, drain: Duration, stop: &CancellationToken) {
    let config = &app.limits().worker;
    let cut = CancellationToken::new();
    let mut place = None;
    let mut running = JoinSet::new();
    let mut pause = config.poll_min();
    while !stop.is_cancelled() {
        let free = config.jobs_max.saturating_sub(running.len());
        let found = if free > 0 { look(app, &mut place, free).await } else { Found::nothing() };
        let is_idle = found.claimed.is_empty() && !found.has_more;
        for claimed in found.claimed {
            let (app, cut) = (Arc::clone(app), cut.clone());
            running.spawn(async move { attempt(&app, claimed, &cut).await });
        }
        if !is_idle {
            pause = config.poll_min();
            // At once for the next tenants, unless all hands are full.
            if running.len() < config.jobs_max {
                continue;
            }
        }
        tokio::select! {
            Some(_) = running.join_next() => pause = config.poll_min(),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(config.poll_max()),
            () = stop.cancelled() => {}
        }
    }
    let ended = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::info!(jobs = running.len(), "giving back jobs that did not end in time");
        cut.cancel();
        while running.join_next().await.is_some() {}
    }
}

/// Does the jobs that are due, one after the other, until none is; answers how many were done.
pub(super) async fn run_due(app: &App) -> usize {
    let (mut place, mut done) = (None, 0);
    let never = CancellationToken::new();
    loop {
        let found = look(app, &mut place, app.limits().worker.jobs_max).await;
        if found.claimed.is_empty() && !found.has_more {
            return done;
        }
        for claimed in found.claimed {
            done += usize::from(attempt(app, claimed, &never).await);
        }
    }
}

impl Found {
    fn nothing() -> Self {
        Self { claimed: Vec::new(), has_more: false }
    }
}

/// Looks for jobs of the tenants behind a place, and moves the place on.
async fn look(app: &App, place: &mut Option<TenantId>, free: usize) -> Found {
    let looked = async {
        let mut tx = app.db().system_tx().await?;
        recover(app, &mut tx).await?;
        let found = claim(app, &mut tx, place, free).await?;
        tx.commit().await?;
        Ok::<_, DbError>(found)
    };
    looked.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "look for jobs");
        Found::nothing()
    })
}

async fn recover(app: &App, tx: &mut SystemTx) -> Result<(), DbError> {
    let attempts_max = i32::try_from(app.limits().worker.attempts_max).unwrap_or(i32::MAX);
    for lost in jobs::recover(tx, attempts_max, LOST_PER_LOOK).await? {
        let jobs::LostJob { tenant, id, kind, attempts, is_parked } = lost;
        app.metrics().job_attempted(&kind, "lost", None);
        tracing::warn!(%tenant, job = %id, kind, attempts, is_parked, "a worker was lost with its job");
    }
    Ok(())
}

/// One job of each of the next tenants that have one due. A look that comes to the end of all tenants goes on from the start,
/// up to where it began.
async fn claim(
    app: &App,
    tx: &mut SystemTx,
    place: &mut Option<TenantId>,
    free: usize,
) -> Result<Found, DbError> {
    let config = &app.limits().worker;
    let terms = ClaimTerms {
        lease_seconds: config.lease_seconds,
        tenant_jobs_max: i64::try_from(config.tenant_jobs_max).unwrap_or(i64::MAX),
    };
    let limit = i64::try_from(TENANTS_PER_LOOK).unwrap_or(i64::MAX);
    let mut tenants = Vec::new();
    let began_at = *place;
    let mut has_more = visit(&jobs::candidates(tx, *place, limit, terms).await?, place, &mut tenants, free);
    if place.is_none() && began_at.is_some() && tenants.len() < free {
        has_more = visit(&jobs::candidates(tx, None, limit, terms).await?, place, &mut tenants, free);
    }
    let mut seen = HashSet::new();
    tenants.retain(|tenant| seen.insert(*tenant));
    let claimed = if tenants.is_empty() { Vec::new() } else { jobs::claim(tx, &tenants, terms).await? };
    Ok(Found { claimed, has_more })
}

/// Picks those that have a job due until there are enough, and notes how far it came: none at the end of all tenants. Answers
/// whether there may be more behind a page that was full.
fn visit(
    candidates: &[Candidate],
    place: &mut Option<TenantId>,
    picked: &mut Vec<TenantId>,
    enough: usize,
) -> bool {
    for candidate in candidates {
        *place = Some(candidate.tenant);
        if candidate.is_due {
            picked.push(candidate.tenant);
        }
        if picked.len() >= enough {
            return false;
        }
    }
    if candidates.len() < TENANTS_PER_LOOK {
        *place = None;
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn candidates(due: &[bool]) -> Vec<Candidate> {
        let tenant = |n: usize| TenantId::from_uuid(Uuid::from_u128(n as u128 + 1));
        due.iter().enumerate().map(|(n, is_due)| Candidate { tenant: tenant(n), is_due: *is_due }).collect()
    }

    #[test]
    fn a_look_stops_behind_the_last_tenant_that_it_took() {
        let (mut place, mut picked) = (None, Vec::new());
        let all = candidates(&[true, false, true, true]);
        assert!(!visit(&all, &mut place, &mut picked, 2));
        assert_eq!((picked, place), (vec![all[0].tenant, all[2].tenant], Some(all[2].tenant)));
    }

    #[test]
    fn a_look_that_comes_to_the_end_begins_anew() {
        let (mut place, mut picked) = (Some(TenantId::from_uuid(Uuid::max())), Vec::new());
        assert!(!visit(&candidates(&[false, true]), &mut place, &mut picked, 2));
        assert_eq!((picked.len(), place), (1, None));
    }

    #[test]
    fn a_full_page_without_anything_due_is_not_the_end() {
        let (mut place, mut picked) = (None, Vec::new());
        let page = candidates(&[false; TENANTS_PER_LOOK]);
        assert!(visit(&page, &mut place, &mut picked, 2));
        assert_eq!((picked.len(), place), (0, page.last().map(|last| last.tenant)));
    }
}
