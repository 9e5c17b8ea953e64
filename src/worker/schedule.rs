//! What is done by the clock. Every process looks at the schedule; whoever moves a tick's next time on does it, so each is done
//! by one of them. A tick that was not done to its end, or found more to do, is due again.

use std::time::Duration;

use super::shielded;
use crate::{
    app::{
        App, Error,
        files::{delete_expired::find_expired, empty_trash::empty_trash, reap::reap},
        integrity::sweep::sweep_when_due,
        retention::retain,
        storage::reap_strays::reap_strays,
        tenants::erase,
        uploads::expire::expire,
    },
    db::{
        DbError,
        jobs::depth,
        schedules::{self, Turn},
    },
};

/// Something that the clock asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// Keeps what is kept by time in bounds.
    KeepByTime,
    /// Gives up uploads whose lease ran out.
    ExpireUploads,
    /// Asks for jobs that delete files whose time has come.
    FindExpired,
    /// Purges what was in the trash long enough.
    EmptyTrash,
    /// Deletes bytes that nothing refers to.
    DeleteBlobs,
    /// Erases tenants that are being deleted, a piece of each.
    EraseTenants,
    /// Removes what moves left behind.
    RemoveStrays,
    /// Sweeps the stores for which it is time.
    Sweep,
}

impl Tick {
    /// What takes a moment.
    pub const SHORT: &'static [Self] = &[
        Self::KeepByTime,
        Self::ExpireUploads,
        Self::FindExpired,
        Self::EmptyTrash,
        Self::DeleteBlobs,
        Self::EraseTenants,
        Self::RemoveStrays,
    ];
    /// What may take hours.
    pub const LONG: &'static [Self] = &[Self::Sweep];

    /// Its name in the schedule and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepByTime => "keep by time",
            Self::ExpireUploads => "expire uploads",
            Self::FindExpired => "find expired files",
            Self::EmptyTrash => "empty trash",
            Self::DeleteBlobs => "delete blobs",
            Self::EraseTenants => "erase tenants",
            Self::RemoveStrays => "remove stray objects",
            Self::Sweep => "sweep",
        }
    }

    /// Does it once; answers how much was done, and whether there is more.
    async fn run(self, app: &App) -> Result<Done, Error> {
        match self {
            Self::KeepByTime => retain(app).await.map(|()| Done::default()),
            Self::ExpireUploads => expire(app).await.map(|round| Done::of(round.done)),
            Self::FindExpired => find_expired(app).await.map(|has_more| Done { count: 0, has_more }),
            Self::EmptyTrash => empty_trash(app).await.map(Done::of),
            Self::DeleteBlobs => reap(app).await.map(Done::of),
            Self::EraseTenants => erase::round(app).await.map(Done::of),
            Self::RemoveStrays => reap_strays(app).await.map(Done::of),
            // It knows itself when it is time again.
            Self::Sweep => sweep_when_due(app).await.map(|_| Done::default()),
        }
    }
}

/// What a tick did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Done {
    count: usize,
    has_more: bool,
}

impl Done {
    /// Where something was done, there may be more of it.
    fn of(count: usize) -> Self {
        Self { count, has_more: count > 0 }
    }
}

/// Does those of these ticks that are due and that no other process has taken; answers how many have more to do. What fails
/// is logged, and done again at its next time.
pub async fn run_due(app: &App, ticks: &[Tick]) -> usize {
    measure(app).await;
    let names: Vec<&str> = ticks.iter().map(|tick| tick.name()).collect();
    let turns = match take(app, &names).await {
        Ok(turns) => turns,
        Err(error) => {
            tracing::warn!(%error, "look at the schedule");
            return 0;
        }
    };
    let mut unfinished = 0;
    for turn in turns {
        let Some(tick) = ticks.iter().find(|tick| tick.name() == turn.name) else { continue };
        if run_one(app, *tick).await.has_more {
            unfinished += 1;
            if let Err(error) = go_on(app, &turn).await {
                tracing::warn!(tick = turn.name, %error, "make tick due");
            }
        }
    }
    unfinished
}

/// Does a tick now, due or not; answers how much was done.
pub async fn run_now(app: &App, tick: Tick) -> usize {
    run_one(app, tick).await.count
}

async fn run_one(app: &App, tick: Tick) -> Done {
    match shielded(tick.run(app)).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => {
            let cause = std::error::Error::source(&error);
            tracing::warn!(work = tick.name(), %error, ?cause, "background work");
            Done::default()
        }
        Err(panic) => {
            tracing::error!(work = tick.name(), panic, "background work");
            Done::default()
        }
    }
}

async fn take(app: &App, names: &[&str]) -> Result<Vec<Turn>, DbError> {
    let mut tx = app.db().system_tx().await?;
    let turns = schedules::take(&mut tx, names, app.limits().worker.tick_seconds).await?;
    tx.commit().await?;
    Ok(turns)
}

async fn go_on(app: &App, turn: &Turn) -> Result<(), DbError> {
    let mut tx = app.db().system_tx().await?;
    schedules::go_on(&mut tx, turn).await?;
    tx.commit().await
}

/// Looks how full the queue is, for the metrics of this process.
async fn measure(app: &App) {
    let looked = async {
        let mut tx = app.db().system_tx().await?;
        let depth = depth(&mut tx).await?;
        tx.commit().await?;
        Ok::<_, DbError>(depth)
    };
    match looked.await {
        Ok(depth) => {
            let count = |count: i64| u64::try_from(count).unwrap_or_default();
            let counts = [
                ("ready", count(depth.ready)),
                ("running", count(depth.running)),
                ("parked", count(depth.parked)),
            ];
            let oldest = Duration::try_from_secs_f64(depth.oldest_due_seconds).unwrap_or_default();
            app.metrics().jobs_queued(&counts, oldest);
        }
        Err(error) => tracing::warn!(%error, "look at the queue"),
    }
}
