//! Watches the changes of files.
//!
//! A watcher stands at a position and reads on from there whenever its tenant's pulse says that something is new. It reads as
//! its caller: row-level security lets it have the events of what the caller could see when they happened, and the files
//! beside them are read as the caller sees them now. So an event about a file that is gone or hidden tells its id and nothing
//! more. What is waiting for a slow reader is one batch; the next is read when that was taken.

mod cursor;
mod pulse;

use std::collections::{HashMap, VecDeque};

use tokio::time::{Instant, sleep_until};

pub use crate::db::{event_stream::Selection, events::EventKind};
pub(in crate::app) use pulse::Pulses;

use self::{
    cursor::Cursor,
    pulse::{Beat, Beats, Seat},
};
use crate::{
    app::{App, Credentials, Error, access::seen},
    db::{
        TenantTx, Viewer,
        event_stream::{self, Batch, StoredEvent},
        files,
    },
    domain::{caller::Caller, clock::Timestamp, event_position::EventPosition, file::File, ids::FileId},
};

/// How many events are read at once. A file without its texts has one to two KiB.
const EVENTS_PER_BATCH: usize = 64;

/// What to watch.
#[derive(Debug, Clone, Default)]
pub struct WatchRequest {
    /// Where to go on; empty means to begin now.
    pub cursor: String,
    /// Which events.
    pub selection: Selection,
    /// Files of this category.
    pub category: Option<String>,
    /// Files of this owner.
    pub owner_id: Option<String>,
}

/// A change that the watcher may hear of.
#[derive(Debug)]
pub struct FileEvent {
    /// Where it stands.
    pub position: EventPosition,
    /// What happened.
    pub kind: EventKind,
    /// To which file.
    pub file_id: FileId,
    /// At which version.
    pub version: i32,
    /// By whom.
    pub actor_id: String,
    /// When.
    pub time: Timestamp,
    /// The file as the watcher sees it now.
    pub file: Option<File>,
}

/// What a watcher is sent.
#[derive(Debug)]
pub enum Sent {
    /// A change.
    Event(Box<FileEvent>),
    /// Everything before this position was sent.
    Heartbeat(EventPosition, Timestamp),
}

/// A message, and the cursor behind it.
#[derive(Debug)]
pub struct Message {
    /// What is sent.
    pub sent: Sent,
    /// Where to go on.
    pub cursor: String,
}

/// A watch that is under way.
#[derive(Debug)]
pub struct Watch {
    caller: Caller,
    viewer: Viewer,
    request: WatchRequest,
    cursor: Cursor,
    waiting: VecDeque<(FileEvent, Cursor)>,
    beats: Beats,
    next_heartbeat: Instant,
    valid_until: Option<Timestamp>,
    _seat: Seat,
}

/// Begins a watch: behind the cursor, or now. It ends when the caller's credentials do.
///
/// # Errors
/// `CursorInvalid`, `CursorTooOld`, `WatchesExhausted`, `Overloaded`, `DatabaseUnavailable`.
pub async fn watch(
    app: &App,
    caller: Caller,
    request: WatchRequest,
    valid_until: Option<Timestamp>,
) -> Result<Watch, Error> {
    let tenant = caller.tenant_id();
    let given = match request.cursor.as_str() {
        "" => None,
        text => Some(Cursor::open(app, tenant, text)?),
    };
    let (seat, beats) = app.watches.join(&app.db, tenant, &app.limits.watches)?;
    let viewer = Viewer::caller(&caller);
    let mut tx = app.db.tenant_tx(tenant, &viewer).await?;
    let moment = event_stream::newest(&mut tx).await;
    let (safe, _) = tx.finish(moment).await?;
    let cursor = match given {
        Some(cursor) => cursor.check(&safe, kept(app)).map(|()| cursor)?,
        None => Cursor::at(&safe),
    };
    Ok(Watch {
        caller,
        viewer,
        request,
        cursor,
        waiting: VecDeque::new(),
        beats,
        next_heartbeat: Instant::now(),
        valid_until,
        _seat: seat,
    })
}

/// What no event shows would only wait in memory for a slow reader.
fn without_texts(file: File) -> File {
    File { description: String::new(), metadata: serde_json::Map::new(), ..file }
}

/// For how long events are kept.
pub(in crate::app) fn kept(app: &App) -> chrono::Duration {
    chrono::Duration::days(i64::try_from(app.limits.retention.event_days).unwrap_or(i64::from(u32::MAX)))
}

impl Watch {
    /// The next message; waits for it as long as it takes.
    ///
    /// # Errors
    /// Why the watch ends: `CursorTooOld`, `Unauthenticated`, `TenantSuspended`, `TenantDeleted`, `DatabaseUnavailable`.
    pub async fn next(&mut self, app: &App) -> Result<Message, Error> {
        loop {
            self.check_credentials(app)?;
            if let Some((event, behind)) = self.waiting.pop_front() {
                let cursor = behind.seal(app, self.caller.tenant_id())?;
                return Ok(Message { sent: Sent::Event(Box::new(event)), cursor });
            }
            if Instant::now() >= self.next_heartbeat {
                return self.heartbeat(app);
            }
            let beat = self.beats.borrow_and_update().clone().transpose()?;
            match beat {
                Some(beat) if self.is_behind(&beat)? => self.read(app).await?,
                _ => self.rest(app).await?,
            }
        }
    }

    /// Whether there is something to read; otherwise everything was seen.
    fn is_behind(&mut self, Beat { safe, newest, tenant }: &Beat) -> Result<bool, Error> {
        Error::unless_active(*tenant)?;
        // Another history: this stream's positions mean nothing any more.
        if safe.incarnation != self.cursor.incarnation {
            return Err(Error::CursorTooOld);
        }
        let is_behind = newest.is_some_and(|newest| newest > self.cursor.position);
        if !is_behind {
            self.cursor.advance(safe.position, safe.time);
        }
        Ok(is_behind)
    }

    async fn rest(&mut self, app: &App) -> Result<(), Error> {
        // The clock that expiry goes by is not the one that wakes us.
        let soon = Instant::now() + app.limits.watches.poll_interval_max();
        tokio::select! {
            changed = self.beats.changed() => changed.map_err(Error::internal),
            () = sleep_until(self.next_heartbeat.min(soon)) => Ok(()),
        }
    }

    fn heartbeat(&mut self, app: &App) -> Result<Message, Error> {
        self.next_heartbeat = Instant::now() + app.limits.watches.heartbeat();
        let cursor = self.cursor.seal(app, self.caller.tenant_id())?;
        Ok(Message { sent: Sent::Heartbeat(self.cursor.position, self.cursor.time), cursor })
    }

    fn check_credentials(&self, app: &App) -> Result<(), Error> {
        match self.valid_until {
            Some(until) if app.clock.now() >= until => {
                let why = "the token has expired; watch on with a new one from the last cursor".to_owned();
                Err(Error::Unauthenticated(Credentials::Invalid(why)))
            }
            _ => Ok(()),
        }
    }

    /// Reads one batch.
    async fn read(&mut self, app: &App) -> Result<(), Error> {
        let mut tx = app.db.tenant_tx(self.caller.tenant_id(), &self.viewer).await?;
        let read = self.read_in(&mut tx).await;
        let (Batch { events, safe }, files) = tx.finish(read).await?;
        // What is behind the cursor may have been dropped while this watch was busy with its backlog.
        self.cursor.check(&safe, kept(app))?;
        let is_last = events.len() < EVENTS_PER_BATCH;
        for event in events {
            self.cursor.advance(event.position, event.create_time);
            if let Some(event) = self.shown(event, &files) {
                self.waiting.push_back((event, self.cursor.clone()));
            }
        }
        if is_last {
            self.cursor.advance(safe.position, safe.time);
        }
        Ok(())
    }

    async fn read_in(&self, tx: &mut TenantTx) -> Result<(Batch, HashMap<FileId, File>), Error> {
        let limit = i64::try_from(EVENTS_PER_BATCH).unwrap_or(i64::MAX);
        let batch = event_stream::read(tx, self.cursor.position, &self.request.selection, limit).await?;
        let mut ids: Vec<FileId> = batch.events.iter().map(|event| event.file).collect();
        ids.sort_unstable();
        ids.dedup();
        let found = if ids.is_empty() { Vec::new() } else { files::get_all(tx, &ids).await? };
        let visible = found.into_iter().filter_map(|found| seen(&self.caller, Some(found)).ok());
        Ok((batch, visible.map(|file| (file.id, without_texts(file))).collect()))
    }

    /// The event with its file, unless the request asked for others. Nothing is known of a file that is gone, so that its
    /// event passes every filter.
    fn shown(&self, event: StoredEvent, files: &HashMap<FileId, File>) -> Option<FileEvent> {
        let file = files.get(&event.file).cloned();
        if let Some(file) = &file {
            let wanted =
                |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
            if !wanted(&self.request.category, &file.category)
                || !wanted(&self.request.owner_id, &file.owner_id)
            {
                return None;
            }
        }
        let StoredEvent { position, kind, file: file_id, version, actor_id, create_time: time } = event;
        Some(FileEvent { position, kind, file_id, version, actor_id, time, file })
    }
}
