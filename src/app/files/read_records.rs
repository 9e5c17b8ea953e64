//! Reads the records of files in batches, until they fill a response.

use super::load_details;
use crate::{
    app::{Error, pages},
    db::{
        TenantTx,
        lists::{self, RecordColumns},
    },
    domain::{
        encoded_size::{basic_file_bytes_max, full_file_weight},
        file::File,
        ids::FileId,
    },
};

/// The parts of a record that a response contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Without description, metadata, tags, attachments and download counts.
    Basic,
    Full,
}

impl View {
    pub(super) const fn new(is_full: bool) -> Self {
        if is_full { Self::Full } else { Self::Basic }
    }

    pub(super) const fn columns(self) -> RecordColumns {
        match self {
            Self::Basic => RecordColumns::Basic,
            Self::Full => RecordColumns::All,
        }
    }

    /// Returns the most records that are read at once. A page of basic records is one batch.
    pub(super) const fn batch_max(self) -> usize {
        match self {
            Self::Basic => usize::MAX,
            Self::Full => pages::FULL_BATCH_MAX,
        }
    }

    /// Returns the function that weighs a record on a page.
    pub(super) const fn weight(self) -> fn(&File) -> usize {
        match self {
            Self::Basic => basic_file_bytes_max,
            Self::Full => full_file_weight,
        }
    }
}

/// The records that fit into one response.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) files: Vec<File>,
    /// The ids of the files that do not fit, in order.
    pub(super) unread: Vec<FileId>,
}

/// Reads the records of visible files in the order of their ids. Reads as many as fit into one response, and at
/// least one.
pub(super) async fn read_records(tx: &mut TenantTx, ids: &[FileId], view: View) -> Result<Records, Error> {
    let mut files = Vec::new();
    let mut read_count = 0;
    for batch in ids.chunks(view.batch_max()) {
        let mut records = lists::read_records(tx, batch, view.columns()).await?;
        if view == View::Full {
            load_details(tx, &mut records).await?;
        }
        files.append(&mut records);
        read_count += batch.len();
        let rest = pages::cut_page(&mut files, usize::MAX, view.weight());
        if !rest.is_empty() {
            let cut = rest.into_iter().map(|file| file.id);
            return Ok(Records { files, unread: cut.chain(ids[read_count..].iter().copied()).collect() });
        }
    }
    Ok(Records { files, unread: Vec::new() })
}
