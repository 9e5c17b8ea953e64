//! Imports one object.

use super::{Import, messages::Messages};
use crate::{
    app::{
        Error,
        uploads::upload::{admit, read_terms, upload},
    },
    db::{Viewer, imports},
    domain::{
        clock::Timestamp,
        digest::Digest,
        ids::FileId,
        imported::{Imported, SOURCE_KEY_BYTES_MAX},
        upload_spec::UploadSpec,
    },
    storage::{ForeignObject, StorageErrorKind},
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
    /// It is this file now.
    Imported(FileId),
    /// It became this file before; which may be gone since.
    AlreadyImported(FileId),
    /// It would become a file.
    WouldImport,
}

impl Import {
    /// Imports the object with this key, unless it was imported before.
    ///
    /// # Errors
    /// `NotFound` for an object that is not there; everything that `upload` refuses.
    pub async fn object(&self, key: &str, item: ImportItem) -> Result<Outcome, Error> {
        let (spec, source) = self.spec(key, item);
        if let Some(id) = self.find(source).await? {
            return Ok(Outcome::AlreadyImported(id));
        }
        let object = self.directory.get(key).await.map_err(|error| match error.kind {
            StorageErrorKind::NotFound => Error::NotFound("object"),
            _ => Error::StorageUnavailable(error),
        })?;
        if self.options.is_dry {
            return self.judge(spec, object.size_bytes).await;
        }
        match self.take(spec, object).await {
            Ok(id) => Ok(Outcome::Imported(id)),
            // Another run may have been faster, or this one's commit happened and its answer was lost.
            Err(error) => match self.find(source).await {
                Ok(Some(id)) => Ok(Outcome::AlreadyImported(id)),
                Ok(None) | Err(_) => Err(error),
            },
        }
    }

    fn spec(&self, key: &str, item: ImportItem) -> (UploadSpec, Digest) {
        let ImportItem { legacy_id, owner_id, create_time, mut spec } = item;
        for (field, text) in [("spec.file_id", &mut spec.file_id), ("spec.request_id", &mut spec.request_id)]
        {
            if !std::mem::take(text).is_empty() {
                spec.unreadable
                    .add(field, "must be empty: an object becomes one file, however often it is imported");
            }
        }
        if key.len() > SOURCE_KEY_BYTES_MAX {
            spec.unreadable.add("item.object_key", format!("must be at most {SOURCE_KEY_BYTES_MAX} bytes"));
        }
        if spec.name.is_empty() {
            key.rsplit('/').next().unwrap_or(key).clone_into(&mut spec.name);
        }
        let owner_id = if owner_id.is_empty() { self.caller.actor.id.clone() } else { owner_id };
        let source = format!("{}:{key}", self.options.source);
        let imported = Imported { source, legacy_id, owner_id, create_time };
        let digest = imported.source_digest();
        spec.imported = Some(imported);
        (spec, digest)
    }

    async fn find(&self, source: Digest) -> Result<Option<FileId>, Error> {
        let mut tx = self.app.db.tenant_tx(self.caller.tenant_id(), &Viewer::system()).await?;
        let found = imports::find(&mut tx, source).await;
        Ok(tx.finish(found).await?)
    }

    /// What can be said without reading the bytes.
    async fn judge(&self, mut spec: UploadSpec, object_bytes: u64) -> Result<Outcome, Error> {
        let size_bytes = i64::try_from(object_bytes).map_err(Error::internal)?;
        if let Some(declared) = spec.size_bytes.replace(size_bytes)
            && declared != size_bytes
        {
            let declared = u64::try_from(declared).unwrap_or_default();
            return Err(Error::SizeMismatch { declared, received: object_bytes });
        }
        let terms = read_terms(&self.app, &self.caller, None).await?;
        admit(&self.app, &self.caller, spec, &terms.quota).map(|_| Outcome::WouldImport)
    }

    async fn take(&self, mut spec: UploadSpec, object: ForeignObject) -> Result<FileId, Error> {
        if spec.size_bytes.is_none() {
            spec.size_bytes = Some(i64::try_from(object.size_bytes).map_err(Error::internal)?);
        }
        let mut messages = Messages::of(object.body);
        match upload(&self.app, &self.caller, spec, &mut messages).await {
            Ok(uploaded) => Ok(uploaded.file.id),
            Err(error) => Err(messages.fault().map_or(error, Error::StorageUnavailable)),
        }
    }
}
