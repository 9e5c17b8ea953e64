//! Imports one object.

use super::{Import, Place, messages::Messages, opened::Opened, source::Address};
use crate::{
    app::{
        Error,
        uploads::upload::{admit, read_terms, upload},
    },
    db::{Viewer, imports},
    domain::{
        clock::Timestamp,
        digest::Digest,
        event_position::EventPosition,
        ids::FileId,
        imported::{Imported, SOURCE_KEY_BYTES_MAX},
        media_type::DECLARED_CHARACTERS_MAX,
        text,
        upload_spec::UploadSpec,
    },
};

/// What is known of an object.
#[derive(Debug, Clone)]
pub struct ImportItem {
    /// The id that the file had before; may be empty.
    pub legacy_id: String,
    /// Whose file it is; empty for the caller.
    pub owner_id: String,
    /// When it was made, where that is known.
    pub create_time: Option<Timestamp>,
    /// The rest of its record.
    pub spec: UploadSpec,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is this file now, and its event stands here.
    Imported(FileId, EventPosition),
    /// It became this file before; which may be gone since.
    AlreadyImported(FileId),
    /// It would become a file.
    WouldImport,
}

impl Import {
    /// Imports the object at this place, unless it was imported before.
    ///
    /// # Errors
    /// `NotFound` for an object that is not there; `NotFetched`; everything that `upload` refuses.
    pub async fn object(&self, place: &Place, item: ImportItem) -> Result<Outcome, Error> {
        let address = self.source.address(place)?;
        let (spec, source) = self.spec(&address, item);
        if let Some(id) = self.find(source).await? {
            return Ok(Outcome::AlreadyImported(id));
        }
        let opened = self.source.get(&address).await?;
        if self.options.is_dry {
            return self.judge(spec, opened.size_bytes).await;
        }
        match self.take(spec, opened).await {
            Ok((id, event)) => Ok(Outcome::Imported(id, event)),
            // Another run may have been faster, or this one's commit happened and its answer was lost.
            Err(error) => match self.find(source).await {
                Ok(Some(id)) => Ok(Outcome::AlreadyImported(id)),
                Ok(None) | Err(_) => Err(error),
            },
        }
    }

    fn spec(&self, address: &Address, item: ImportItem) -> (UploadSpec, Digest) {
        let ImportItem { legacy_id, owner_id, create_time, mut spec } = item;
        for (field, text) in [("spec.file_id", &mut spec.file_id), ("spec.request_id", &mut spec.request_id)]
        {
            if !std::mem::take(text).is_empty() {
                spec.unreadable
                    .add(field, "must be empty: an object becomes one file, however often it is imported");
            }
        }
        if matches!(address, Address::Key(key) if key.len() > SOURCE_KEY_BYTES_MAX) {
            spec.unreadable.add("item.object_key", format!("must be at most {SOURCE_KEY_BYTES_MAX} bytes"));
        }
        if spec.name.is_empty() {
            spec.name = address.file_name();
        }
        let owner_id = if owner_id.is_empty() { self.caller.actor.id.clone() } else { owner_id };
        let source = format!("{}:{}", self.options.source, address.shown());
        let source_sha256 = address.digest(&self.options.source);
        spec.imported = Some(Imported { source, source_sha256, legacy_id, owner_id, create_time });
        (spec, source_sha256)
    }

    async fn find(&self, source: Digest) -> Result<Option<FileId>, Error> {
        let mut tx = self.app.db.tenant_tx(self.caller.tenant_id(), &Viewer::system()).await?;
        let found = imports::find(&mut tx, source).await;
        Ok(tx.finish(found).await?)
    }

    /// What can be said without reading the bytes.
    async fn judge(&self, mut spec: UploadSpec, object_bytes: Option<u64>) -> Result<Outcome, Error> {
        if let Some(received) = object_bytes {
            let size_bytes = i64::try_from(received).map_err(Error::internal)?;
            if let Some(declared) = spec.size_bytes.replace(size_bytes)
                && declared != size_bytes
            {
                let declared = u64::try_from(declared).unwrap_or_default();
                return Err(Error::SizeMismatch { declared, received });
            }
        }
        let terms = read_terms(&self.app, &self.caller, None).await?;
        admit(&self.app, &self.caller, spec, &terms.quota).map(|_| Outcome::WouldImport)
    }

    async fn take(&self, mut spec: UploadSpec, opened: Opened) -> Result<(FileId, EventPosition), Error> {
        if let (None, Some(size_bytes)) = (spec.size_bytes, opened.size_bytes) {
            spec.size_bytes = Some(i64::try_from(size_bytes).map_err(Error::internal)?);
        }
        if spec.mime_type.is_empty()
            && let Ok(mime_type) = text::optional_line(&opened.mime_type, DECLARED_CHARACTERS_MAX)
        {
            spec.mime_type = mime_type;
        }
        let mut messages = Messages::of(opened.body, self.app.limits.uploads.chunk_size_max_bytes);
        match upload(&self.app, &self.caller, spec, &mut messages).await {
            Ok(uploaded) => Ok((uploaded.file.id, uploaded.event)),
            Err(error) => Err(messages.fault().unwrap_or(error)),
        }
    }
}
