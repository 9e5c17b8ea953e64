//! Watches changes of files, and of webhooks and quotas if the watcher asks for them.
//!
//! A watcher has a position in the tenant's event stream, and reads on when the tenant's poller reports new
//! events. It reads with the permissions of its caller: row-level security returns events of files that the
//! caller could see at the time of the event, and the files are read as the caller sees them now. An event of
//! a file that was purged or hidden since then therefore has no file, only its id. At most one batch of
//! events is buffered for a slow reader; the next batch is read after the reader has received it.

mod cursor;
mod event_poller;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::time::{Instant, sleep_until};

pub use crate::db::{
    event_stream::EventFilter,
    events::{EventKind, EventSubject},
};
pub(in crate::app) use event_poller::EventPoller;

use self::{
    cursor::Cursor,
    event_poller::{Tip, TipReceiver, WatchPermit},
};
use crate::{
    app::{App, Error, InvalidCredentials, access::require_visible},
    db::{
        TenantTx, Viewer,
        event_stream::{self, EventBatch, EventPlace, StoredEvent, StreamSnapshot},
        files,
    },
    domain::{
        caller::Caller,
        clock::Timestamp,
        event_position::EventPosition,
        file::File,
        ids::{FileId, TenantId},
    },
};

/// The number of events in one batch. A file without description and metadata has one to two KiB.
const EVENTS_PER_BATCH: usize = 64;

/// A request to watch files.
#[derive(Debug, Clone, Default)]
pub struct WatchRequest {
    /// The cursor to resume from; empty means to start now.
    pub cursor: String,
    pub selection: EventFilter,
    /// Only events of files in this category.
    pub category: Option<String>,
    /// Only events of files of this owner.
    pub owner_id: Option<String>,
}

/// A change that the watcher may see.
#[derive(Debug)]
pub struct FileEvent {
    pub position: EventPosition,
    pub kind: EventKind,
    pub subject: EventSubject,
    /// The revision of the file after the change. 0 if the event is not about a file.
    pub revision: i64,
    /// The id of the person or service that made the change.
    pub actor_id: String,
    pub time: Timestamp,
    /// The file as the watcher sees it now, if it still does.
    pub file: Option<File>,
}

/// The body of a message to a watcher.
#[derive(Debug)]
pub enum MessageBody {
    Event(Box<FileEvent>),
    /// All events before this position, with this time, were sent.
    Heartbeat {
        position: EventPosition,
        time: Timestamp,
    },
}

/// A message to a watcher.
#[derive(Debug)]
pub struct WatchMessage {
    pub body: MessageBody,
    /// The cursor to resume from after this message.
    pub cursor: String,
}

/// An open watch.
#[derive(Debug)]
pub struct Watch {
    caller: Caller,
    viewer: Viewer,
    request: WatchRequest,
    cursor: Cursor,
    /// The incarnations of the database for which the cursor was checked.
    checked_incarnations: Arc<[String]>,
    buffered: VecDeque<(FileEvent, Cursor)>,
    tips: TipReceiver,
    next_heartbeat: Instant,
    valid_until: Option<Timestamp>,
    _permit: WatchPermit,
}

/// Starts a watch, after the cursor or now. The watch ends at `valid_until`, when the caller's credentials
/// expire.
///
/// # Errors
/// Returns `CursorInvalid`, `CursorTooOld`, `WatchesExhausted`, `Overloaded` or `DatabaseUnavailable`.
pub async fn watch_files(
    app: &App,
    caller: Caller,
    request: WatchRequest,
    valid_until: Option<Timestamp>,
) -> Result<Watch, Error> {
    let tenant = caller.tenant_id();
    let cursor = match request.cursor.as_str() {
        "" => None,
        text => Some(Cursor::open(app, tenant, text)?),
    };
    let (permit, tips) = app.event_poller.subscribe(&app.db, &caller, &app.limits.watches)?;
    let viewer = Viewer::from_caller(&caller);
    let (cursor, snapshot) = start_at(app, tenant, cursor).await?;
    Ok(Watch {
        caller,
        viewer,
        request,
        cursor,
        checked_incarnations: snapshot.incarnations,
        buffered: VecDeque::new(),
        tips,
        next_heartbeat: Instant::now(),
        valid_until,
        _permit: permit,
    })
}

/// Checks the cursor to start at, or returns one after all events. Also returns the snapshot of the check.
///
/// Sees all events of the tenant, because a cursor is valid for every watcher.
async fn start_at(
    app: &App,
    tenant: TenantId,
    cursor: Option<Cursor>,
) -> Result<(Cursor, StreamSnapshot), Error> {
    let mut tx = app.db.tenant_tx(tenant, &Viewer::system()).await?;
    let started = async {
        let (snapshot, newest) = event_stream::get_newest(&mut tx).await?;
        let cursor = match cursor {
            Some(cursor) => {
                cursor.check(&mut tx, &snapshot).await?;
                cursor.settle(&mut tx).await?
            }
            None => Cursor::at(&snapshot, newest),
        };
        Ok::<_, Error>((cursor, snapshot))
    }
    .await;
    tx.finish(started).await
}

impl Watch {
    /// Waits for the next message.
    ///
    /// # Errors
    /// An error ends the watch. Returns `CursorTooOld`, `Unauthenticated`, `TenantSuspended`, `TenantDeleted`
    /// or `DatabaseUnavailable`.
    pub async fn next_message(&mut self, app: &App) -> Result<WatchMessage, Error> {
        loop {
            self.check_credentials(app)?;
            if let Some((event, cursor)) = self.buffered.pop_front() {
                let cursor = cursor.seal(app, self.caller.tenant_id())?;
                return Ok(WatchMessage { body: MessageBody::Event(Box::new(event)), cursor });
            }
            if Instant::now() >= self.next_heartbeat {
                return self.create_heartbeat(app);
            }
            let tip = self.tips.borrow_and_update().clone().transpose()?;
            match tip {
                Some(tip) if tip.snapshot.incarnations != self.checked_incarnations => {
                    self.check_cursor_again(app, &tip).await?;
                }
                Some(tip) if self.has_new_events(&tip)? => self.read_batch(app, &tip).await?,
                _ => self.wait(app).await?,
            }
        }
    }

    /// Returns whether there are new events. If not, advances the cursor to the end of the stream.
    fn has_new_events(&mut self, Tip { snapshot, newest, tenant }: &Tip) -> Result<bool, Error> {
        Error::check_tenant_active(*tenant)?;
        let has_new = newest.is_some_and(|newest| newest.position > self.cursor.position);
        if !has_new {
            self.cursor.advance_to_end(snapshot, *newest);
        }
        Ok(has_new)
    }

    /// Checks that the database still knows the past of this watch, after it was restored or failed over.
    async fn check_cursor_again(&mut self, app: &App, tip: &Tip) -> Result<(), Error> {
        start_at(app, self.caller.tenant_id(), Some(self.cursor.clone())).await?;
        // Those of the tip, which may be older than those of the check: the next tip then has more.
        self.checked_incarnations = Arc::clone(&tip.snapshot.incarnations);
        Ok(())
    }

    async fn wait(&mut self, app: &App) -> Result<(), Error> {
        // Wake up regularly: the clock that the credentials expire by is not the one of the timer.
        let recheck_time = Instant::now() + app.limits.watches.poll_interval_max();
        tokio::select! {
            changed = self.tips.changed() => changed.map_err(Error::internal),
            () = sleep_until(self.next_heartbeat.min(recheck_time)) => Ok(()),
        }
    }

    fn create_heartbeat(&mut self, app: &App) -> Result<WatchMessage, Error> {
        self.next_heartbeat = Instant::now() + app.limits.watches.heartbeat_interval();
        let cursor = self.cursor.seal(app, self.caller.tenant_id())?;
        let Cursor { position, time, .. } = self.cursor;
        Ok(WatchMessage { body: MessageBody::Heartbeat { position, time }, cursor })
    }

    fn check_credentials(&self, app: &App) -> Result<(), Error> {
        match self.valid_until {
            Some(until) if app.clock.now() >= until => {
                Err(Error::Unauthenticated(InvalidCredentials::ExpiredDuringWatch.into()))
            }
            _ => Ok(()),
        }
    }

    /// Reads one batch of events into the buffer. It contains at least those of the tip, which was read before.
    async fn read_batch(&mut self, app: &App, tip: &Tip) -> Result<(), Error> {
        let mut tx = app.db.tenant_tx(self.caller.tenant_id(), &self.viewer).await?;
        let batch = self.read_batch_in_tx(&mut tx).await;
        let (EventBatch { events, snapshot }, files) = tx.finish(batch).await?;
        // Events after the cursor may have been dropped while this watch processed its backlog.
        self.cursor.check_retention(&snapshot)?;
        let is_last = events.len() < EVENTS_PER_BATCH;
        for event in events {
            self.cursor.advance(EventPlace { position: event.position, time: event.create_time }, &snapshot);
            if let Some(event) = self.to_file_event(event, &files) {
                self.buffered.push_back((event, self.cursor.clone()));
            }
        }
        if is_last {
            self.cursor.advance_to_end(&tip.snapshot, tip.newest);
        }
        Ok(())
    }

    async fn read_batch_in_tx(
        &self,
        tx: &mut TenantTx,
    ) -> Result<(EventBatch, HashMap<FileId, File>), Error> {
        let limit = i64::try_from(EVENTS_PER_BATCH).unwrap_or(i64::MAX);
        let batch = event_stream::read(tx, self.cursor.position, &self.request.selection, limit).await?;
        let mut ids: Vec<FileId> = batch.events.iter().filter_map(|event| event.subject.file()).collect();
        ids.sort_unstable();
        ids.dedup();
        let found = if ids.is_empty() { Vec::new() } else { files::get_all_basic(tx, &ids).await? };
        let visible = found.into_iter().filter_map(|found| require_visible(&self.caller, Some(found)).ok());
        Ok((batch, visible.map(|file| (file.id, file)).collect()))
    }

    /// Adds the file to an event. Returns `None` if the file does not match the filter of the request. An
    /// event without a visible file passes every filter, because the file's category and owner are not known.
    fn to_file_event(&self, event: StoredEvent, files: &HashMap<FileId, File>) -> Option<FileEvent> {
        let file = event.subject.file().and_then(|id| files.get(&id)).cloned();
        if let Some(file) = &file {
            let matches =
                |filter: &Option<String>, value: &str| filter.as_deref().is_none_or(|filter| filter == value);
            if !matches(&self.request.category, &file.category)
                || !matches(&self.request.owner_id, &file.owner_id)
            {
                return None;
            }
        }
        let StoredEvent { position, kind, subject, revision, actor_id, create_time: time } = event;
        Some(FileEvent { position, kind, subject, revision, actor_id, time, file })
    }
}
