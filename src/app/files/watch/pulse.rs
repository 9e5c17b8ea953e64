//! One look at a tenant's newest event for all its watchers in this process, instead of one by each. A watcher reads only when
//! there is something new; with nobody watching there is no look at all.
//!
//! Looks are frequent just after something was committed, here or elsewhere, and become rarer with every one that finds
//! nothing new. A commit in this process brings the next look forward.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    app::Error,
    config::WatchesConfig,
    db::{
        Database, DbError, Viewer,
        event_stream::{Safe, newest},
        tenants,
    },
    domain::{caller::TenantState, event_position::EventPosition, ids::TenantId},
};

/// The shortest time between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// What a look found.
#[derive(Debug, Clone)]
pub(super) struct Beat {
    /// How far one may read.
    pub(super) safe: Safe,
    /// Where the newest event below stands.
    pub(super) newest: Option<EventPosition>,
    /// Whether the tenant is still served: a watch that was opened before outlives no suspension.
    pub(super) tenant: TenantState,
}

/// Nothing before the first look.
pub(super) type Beats = watch::Receiver<Option<Result<Beat, DbError>>>;

/// The tenants that are watched in this process.
#[derive(Debug, Default)]
pub(in crate::app) struct Pulses(Arc<Mutex<HashMap<TenantId, Pulse>>>);

#[derive(Debug)]
struct Pulse {
    beats: Beats,
    watchers: usize,
    /// Ends the looks when the last watcher has gone.
    _stop: DropGuard,
}

/// A watcher's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    pulses: Arc<Mutex<HashMap<TenantId, Pulse>>>,
    tenant: TenantId,
}

impl Pulses {
    /// A place for one more watcher, and what it follows.
    ///
    /// # Errors
    /// `WatchesExhausted` at the tenant's limit, `Overloaded` at the limit of this process.
    pub(super) fn join(
        &self,
        db: &Database,
        tenant: TenantId,
        limits: &WatchesConfig,
    ) -> Result<(Seat, Beats), Error> {
        let mut pulses = lock(&self.0);
        let all: usize = pulses.values().map(|pulse| pulse.watchers).sum();
        let own = pulses.get(&tenant).map_or(0, |pulse| pulse.watchers);
        if own >= limits.streams_per_tenant_max {
            return Err(Error::WatchesExhausted { watch_count_max: limits.streams_per_tenant_max });
        }
        if all >= limits.streams_max {
            return Err(Error::Overloaded("watches"));
        }
        let pulse = pulses.entry(tenant).or_insert_with(|| begin(db, tenant, limits.poll_interval_max()));
        pulse.watchers += 1;
        Ok((Seat { pulses: Arc::clone(&self.0), tenant }, pulse.beats.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut pulses = lock(&self.pulses);
        let Some(pulse) = pulses.get_mut(&self.tenant) else { return };
        pulse.watchers -= 1;
        if pulse.watchers == 0 {
            pulses.remove(&self.tenant);
        }
    }
}

fn lock(pulses: &Mutex<HashMap<TenantId, Pulse>>) -> MutexGuard<'_, HashMap<TenantId, Pulse>> {
    pulses.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(db: &Database, tenant: TenantId, pause_max: Duration) -> Pulse {
    let stop = CancellationToken::new();
    let (sender, beats) = watch::channel(None);
    let hint = db.event_hints().listen(tenant);
    let looks = look_again(db.clone(), tenant, sender, hint, pause_max);
    let stopped = stop.clone();
    tokio::spawn(async move { stopped.run_until_cancelled(looks).await });
    Pulse { beats, watchers: 0, _stop: stop.drop_guard() }
}

async fn look_again(
    db: Database,
    tenant: TenantId,
    beats: watch::Sender<Option<Result<Beat, DbError>>>,
    hint: Arc<Notify>,
    pause_max: Duration,
) {
    let (mut pause, mut known) = (PAUSE_MIN, None);
    loop {
        let beat = look(&db, tenant).await;
        if let Ok(Beat { newest, .. }) = &beat
            && *newest != known
        {
            (pause, known) = (PAUSE_MIN, *newest);
        }
        beats.send_replace(Some(beat));
        let soonest = Instant::now() + PAUSE_MIN;
        tokio::select! {
            () = hint.notified() => {
                pause = PAUSE_MIN;
                sleep_until(soonest).await;
            }
            () = tokio::time::sleep(pause) => pause = pause.saturating_mul(2).min(pause_max),
        }
    }
}

async fn look(db: &Database, tenant: TenantId) -> Result<Beat, DbError> {
    let mut tx = db.tenant_tx(tenant, &Viewer::system()).await?;
    let found = async {
        let (safe, newest) = newest(&mut tx).await?;
        Ok(Beat { safe, newest, tenant: tenants::state(&mut tx).await? })
    };
    let found: Result<Beat, DbError> = found.await;
    tx.finish(found).await
}
