//! Polls the newest event of each watched tenant, once for all of its watchers in this process. A watcher
//! reads events only if there are new ones. Tenants without watchers are not polled.
//!
//! The poll interval is short after new events, from this process or another, and doubles with every poll
//! that finds none. A commit in this process triggers the next poll.

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
    admission::{Exhausted, Holder, ShareLimits, ShareStatus, Shares, Slot},
    app::{Error, Workload},
    config::WatchesConfig,
    db::{
        Database, DbError, Viewer,
        event_stream::{EventPlace, StreamSnapshot, get_newest},
        tenants,
    },
    domain::{
        caller::{Caller, TenantState},
        ids::TenantId,
    },
};

/// The shortest time between two polls.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// The end of a tenant's event stream at the time of a poll.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    /// The position up to which events may be read.
    pub(super) snapshot: StreamSnapshot,
    /// The newest event below that.
    pub(super) newest: Option<EventPlace>,
    /// The state of the tenant. Watches end when it is suspended.
    pub(super) tenant: TenantState,
}

/// Receives the tips of a tenant; `None` before the first poll.
pub(super) type TipReceiver = watch::Receiver<Option<Result<Tip, DbError>>>;

/// The pollers of all tenants with watchers in this process.
#[derive(Debug, Clone)]
pub(in crate::app) struct EventPoller {
    pollers: Pollers,
    watches: Arc<Shares>,
}

type Pollers = Arc<Mutex<HashMap<TenantId, TenantPoller>>>;

#[derive(Debug)]
struct TenantPoller {
    tips: TipReceiver,
    watchers: usize,
    /// Stops polling when the last watcher is dropped.
    _stop: DropGuard,
}

/// Counts against the limits of concurrent watches. Released on drop.
#[derive(Debug)]
pub(super) struct WatchPermit {
    pollers: Pollers,
    tenant: TenantId,
    _slot: Slot,
}

impl EventPoller {
    /// Creates the pollers, without watchers.
    pub(in crate::app) fn new(limits: &WatchesConfig) -> Self {
        let tenant_max = limits.streams_per_tenant_max;
        let slots = ShareLimits::slots(limits.streams_max);
        let limits = ShareLimits { tenant_max, ..slots };
        Self { pollers: Pollers::default(), watches: Shares::new(limits) }
    }

    /// Returns how the tenants share the watches.
    pub(in crate::app) fn status(&self) -> ShareStatus {
        self.watches.status()
    }

    /// Adds a watcher of a tenant and starts polling if it is the first.
    ///
    /// # Errors
    /// Returns `WatchesExhausted` at the tenant's limit of watches, `Overloaded` at the limit of this process or
    /// at the share of the tenant or the caller.
    pub(super) fn subscribe(
        &self,
        db: &Database,
        caller: &Caller,
        limits: &WatchesConfig,
    ) -> Result<(WatchPermit, TipReceiver), Error> {
        let slot = self.watches.try_acquire(Holder::of_caller(caller), 1);
        let slot = slot.map_err(|exhausted| match exhausted {
            Exhausted::TenantMax => {
                Error::WatchesExhausted { watch_count_max: limits.streams_per_tenant_max }
            }
            Exhausted::Caller | Exhausted::Tenant | Exhausted::Process => {
                Error::Overloaded(Workload::Watches)
            }
        })?;
        let tenant = caller.tenant_id();
        let mut pollers = lock(&self.pollers);
        let poller =
            pollers.entry(tenant).or_insert_with(|| start_polling(db, tenant, limits.poll_interval_max()));
        poller.watchers += 1;
        let permit = WatchPermit { pollers: Arc::clone(&self.pollers), tenant, _slot: slot };
        Ok((permit, poller.tips.clone()))
    }
}

impl Drop for WatchPermit {
    fn drop(&mut self) {
        let mut pollers = lock(&self.pollers);
        let Some(poller) = pollers.get_mut(&self.tenant) else { return };
        poller.watchers -= 1;
        if poller.watchers == 0 {
            pollers.remove(&self.tenant);
        }
    }
}

fn lock(pollers: &Pollers) -> MutexGuard<'_, HashMap<TenantId, TenantPoller>> {
    pollers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_polling(db: &Database, tenant: TenantId, interval_max: Duration) -> TenantPoller {
    let stop = CancellationToken::new();
    let (sender, tips) = watch::channel(None);
    let hint = db.event_hints().listen(tenant);
    let polling = poll(db.clone(), tenant, sender, hint, interval_max);
    let stopped = stop.clone();
    tokio::spawn(async move { stopped.run_until_cancelled(polling).await });
    TenantPoller { tips, watchers: 0, _stop: stop.drop_guard() }
}

async fn poll(
    db: Database,
    tenant: TenantId,
    tips: watch::Sender<Option<Result<Tip, DbError>>>,
    hint: Arc<Notify>,
    interval_max: Duration,
) {
    let (mut interval, mut known) = (POLL_INTERVAL_MIN, None);
    loop {
        let tip = read_tip(&db, tenant).await;
        if let Ok(Tip { newest, .. }) = &tip
            && *newest != known
        {
            (interval, known) = (POLL_INTERVAL_MIN, *newest);
        }
        tips.send_replace(Some(tip));
        let soonest = Instant::now() + POLL_INTERVAL_MIN;
        tokio::select! {
            () = hint.notified() => {
                interval = POLL_INTERVAL_MIN;
                sleep_until(soonest).await;
            }
            () = tokio::time::sleep(interval) => interval = interval.saturating_mul(2).min(interval_max),
        }
    }
}

async fn read_tip(db: &Database, tenant: TenantId) -> Result<Tip, DbError> {
    let mut tx = db.check_tx(tenant, &Viewer::system()).await?;
    let tip = async {
        let (snapshot, newest) = get_newest(&mut tx).await?;
        Ok(Tip { snapshot, newest, tenant: tenants::get_state(&mut tx).await? })
    };
    let tip: Result<Tip, DbError> = tip.await;
    tx.finish(tip).await
}
