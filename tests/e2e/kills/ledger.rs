//! The ledger: the expected state of every file, as its acknowledged changes determine it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use strongroom::proto::v1::{File, FileEventKind, FileState};

use super::contents::Content;

/// The expected state of one file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The client that changes the file. No other client does.
    pub(super) client: usize,
    /// The id. Empty while it is in doubt whether the file exists.
    pub(super) id: String,
    /// The contents of all versions; the first is version 1.
    pub(super) versions: Vec<Content>,
    pub(super) is_trashed: bool,
    /// Whether the file may be PROCESSING, because it was uploaded directly after the last checkpoint.
    pub(super) is_unverified: bool,
    /// The change whose response the client did not wait for.
    pub(super) doubt: Option<Doubt>,
    /// The events of the file, in order.
    pub(super) events: Vec<FileEventKind>,
}

/// A change without a response. It has happened or not; the next checkpoint reads which.
#[derive(Debug, Clone)]
pub(super) enum Doubt {
    Created,
    Versioned(Content),
    Trashed,
    Undeleted,
    Purged,
}

/// The entries of all clients.
#[derive(Default)]
pub(super) struct Ledger {
    rows: Mutex<Rows>,
}

/// The content of the ledger.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// The files by name. Names are unique.
    pub(super) files: BTreeMap<String, Entry>,
    /// The events of the purged files, by id.
    pub(super) purged: BTreeMap<String, Vec<FileEventKind>>,
}

impl Entry {
    /// Returns a new file with one version.
    pub(super) fn new(client: usize, content: Content) -> Self {
        Self {
            client,
            id: String::new(),
            versions: vec![content],
            is_trashed: false,
            is_unverified: false,
            doubt: Some(Doubt::Created),
            events: vec![FileEventKind::Created],
        }
    }

    /// Returns whether the state of the file is certain.
    pub(super) fn is_settled(&self) -> bool {
        self.doubt.is_none() && !self.is_unverified
    }

    /// Returns whether the content can be read for certain.
    pub(super) fn is_readable(&self) -> bool {
        self.is_settled() && !self.is_trashed
    }

    /// Returns the current content.
    pub(super) fn content(&self) -> &Content {
        self.versions.last().unwrap()
    }

    pub(super) fn total_bytes(&self) -> i64 {
        self.versions.iter().map(Content::size_bytes).sum()
    }

    /// Applies a change that has happened, except a purge.
    pub(super) fn apply(&mut self, change: Doubt) {
        match change {
            Doubt::Created | Doubt::Purged => {}
            Doubt::Versioned(content) => {
                self.versions.push(content);
                self.events.push(FileEventKind::VersionCreated);
            }
            Doubt::Trashed => {
                self.is_trashed = true;
                self.events.push(FileEventKind::Deleted);
            }
            Doubt::Undeleted => {
                self.is_trashed = false;
                self.events.push(FileEventKind::Undeleted);
            }
        }
        self.doubt = None;
    }

    /// Returns whether the change in doubt has happened, according to the file that the service returns.
    fn has_happened(&self, doubt: &Doubt, found: Option<&File>) -> bool {
        let is_in_trash = found.is_some_and(|file| file.state() == FileState::Deleted);
        match doubt {
            Doubt::Created => found.is_some(),
            Doubt::Versioned(_) => {
                let next = i32::try_from(self.versions.len() + 1).unwrap();
                found.is_some_and(|file| file.version == next)
            }
            Doubt::Trashed => is_in_trash,
            Doubt::Undeleted => found.is_some() && !is_in_trash,
            Doubt::Purged => found.is_none(),
        }
    }
}

impl Ledger {
    pub(super) fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    pub(super) fn insert(&self, name: String, entry: Entry) {
        let replaced = self.lock().files.insert(name, entry);
        assert!(replaced.is_none(), "a name is used twice: {replaced:?}");
    }

    /// Changes an entry.
    pub(super) fn update(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        change(self.lock().files.get_mut(name).unwrap());
    }

    /// Applies a change that was acknowledged, or records that it is in doubt.
    pub(super) fn record(&self, name: &str, change: Doubt, is_acknowledged: bool) {
        let mut rows = self.lock();
        match (change, is_acknowledged) {
            (Doubt::Purged, true) => rows.move_to_purged(name),
            (change, true) => rows.files.get_mut(name).unwrap().apply(change),
            (change, false) => rows.files.get_mut(name).unwrap().doubt = Some(change),
        }
    }

    /// Returns the files of a client that match.
    pub(super) fn list(&self, client: usize, is_match: impl Fn(&Entry) -> bool) -> Vec<(String, Entry)> {
        let rows = self.lock();
        let matching = rows.files.iter().filter(|(_, entry)| entry.client == client && is_match(entry));
        matching.map(|(name, entry)| (name.clone(), entry.clone())).collect()
    }
}

impl Rows {
    fn move_to_purged(&mut self, name: &str) {
        let mut entry = self.files.remove(name).unwrap();
        entry.events.push(FileEventKind::Purged);
        let replaced = self.purged.insert(entry.id, entry.events);
        assert!(replaced.is_none(), "an id is used twice: {replaced:?}");
    }

    /// Decides every doubt by the files that the service returns. No change is in progress any more.
    pub(super) fn settle(&mut self, found: &BTreeMap<String, File>) {
        let names: Vec<String> = self.files.keys().cloned().collect();
        for name in names {
            let entry = self.files.get_mut(&name).unwrap();
            entry.is_unverified = false;
            let Some(doubt) = entry.doubt.take() else { continue };
            let file = found.get(&name);
            match (entry.has_happened(&doubt, file), doubt) {
                (true, Doubt::Purged) => self.move_to_purged(&name),
                (false, Doubt::Created) => {
                    self.files.remove(&name);
                }
                (true, Doubt::Created) => entry.id = file.unwrap().id.clone(),
                (true, doubt) => entry.apply(doubt),
                (false, _) => {}
            }
        }
    }

    /// Returns the expected events of every file, by its id.
    pub(super) fn expected_events(&self) -> BTreeMap<&str, &[FileEventKind]> {
        let existing = self.files.values().map(|entry| (entry.id.as_str(), entry.events.as_slice()));
        let purged = self.purged.iter().map(|(id, events)| (id.as_str(), events.as_slice()));
        existing.chain(purged).collect()
    }
}
