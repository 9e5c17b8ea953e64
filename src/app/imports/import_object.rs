//! Imports one object.

use super::{
    ImportError, ObjectLocation, error::convert_upload_error, messages::UploadMessages,
    object_stream::ObjectStream, source::Address, start::Import,
};
use crate::{
    app::{
        Error,
        uploads::{
            admit::{check_admission, read_admission_data},
            upload_file,
        },
    },
    db::{Viewer, imports},
    domain::{
        clock::Timestamp,
        digest::Digest,
        event_position::EventPosition,
        ids::FileId,
        import_origin::{ImportOrigin, SOURCE_KEY_BYTES_MAX},
        media_type::DECLARED_CHARACTERS_MAX,
        text,
        upload_spec::UploadSpec,
        violations::Violations,
    },
};

/// The properties of an object to import.
#[derive(Debug, Clone)]
pub struct ObjectProperties {
    /// The id that the file had in the previous system; may be empty.
    pub legacy_id: String,
    /// The owner of the file; the caller if empty.
    pub owner_id: String,
    /// The creation time of the object, if known.
    pub create_time: Option<Timestamp>,
    /// The other properties of the file.
    pub spec: UploadSpec,
}

impl ObjectProperties {
    /// Checks that no property is set that differs between the objects of a prefix.
    ///
    /// # Errors
    /// Returns every such property.
    pub(super) fn check_for_prefix(&self) -> Result<(), Violations> {
        let mut violations = Violations::new();
        for (field, is_set) in [
            ("item.legacy_id", !self.legacy_id.is_empty()),
            ("spec.name", !self.spec.name.is_empty()),
            ("spec.size_bytes", self.spec.size_bytes.is_some()),
            ("spec.sha256", self.spec.sha256.is_some()),
        ] {
            if is_set {
                violations.add(field, "differs between objects; omit it, or import the objects one by one");
            }
        }
        violations.into_result()
    }
}

/// The outcome of importing an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectOutcome {
    /// The object was imported.
    Imported {
        file: FileId,
        /// The position of the event that reports the new file.
        event: EventPosition,
    },
    /// The object was imported before as this file, which may have been deleted since.
    AlreadyImported(FileId),
    /// The object would be imported. Returned by a dry run.
    WouldImport,
}

impl Import {
    /// Imports the object at this location, unless it was imported before.
    ///
    /// # Errors
    /// Returns `NotFound` if the object does not exist, `Import` for the errors that only imports have, and
    /// otherwise the errors that `upload_file` shares with other use cases.
    pub(super) async fn import_object(
        &self,
        location: &ObjectLocation,
        properties: ObjectProperties,
    ) -> Result<ObjectOutcome, Error> {
        let address = self.source.address(location)?;
        let source = address.digest(&self.options.source);
        let spec = self.upload_spec(&address, source, properties);
        if let Some(id) = self.find_imported(source).await? {
            return Ok(ObjectOutcome::AlreadyImported(id));
        }
        let object = self.source.get(&address).await?;
        if self.options.is_dry_run {
            return self.dry_run(spec, object.size_bytes).await;
        }
        match self.upload_object(spec, object).await {
            Ok(outcome) => Ok(outcome),
            // A concurrent import may have been faster, or the COMMIT of this one succeeded and its response
            // was lost.
            Err(error) => match self.find_imported(source).await {
                Ok(Some(id)) => Ok(ObjectOutcome::AlreadyImported(id)),
                Ok(None) | Err(_) => Err(error),
            },
        }
    }

    fn upload_spec(
        &self,
        address: &Address,
        source_sha256: Digest,
        properties: ObjectProperties,
    ) -> UploadSpec {
        let ObjectProperties { legacy_id, owner_id, create_time, mut spec } = properties;
        for (field, text) in [("spec.file_id", &mut spec.file_id), ("spec.request_id", &mut spec.request_id)]
        {
            if !std::mem::take(text).is_empty() {
                spec.parse_violations
                    .add(field, "must be empty: an import always creates one file per object");
            }
        }
        if let Address::Key(key) = address
            && key.len() > SOURCE_KEY_BYTES_MAX
        {
            spec.parse_violations.add(
                "item.object_key",
                format!("is {} bytes; the limit is {SOURCE_KEY_BYTES_MAX} bytes", key.len()),
            );
        }
        if spec.name.is_empty() {
            spec.name = address.file_name();
            if spec.name.is_empty() {
                let field = match address {
                    Address::Key(_) => "item.object_key",
                    Address::Url(_) => "item.url",
                };
                let problem =
                    "ends with `/`, so it has no file name; import the object on its own, with `spec.name`";
                spec.parse_violations.add(field, problem);
            }
        }
        let owner_id = if owner_id.is_empty() { self.caller.actor.id.clone() } else { owner_id };
        let source = format!("{}:{}", self.options.source, address.without_query());
        spec.import_origin = Some(ImportOrigin { source, source_sha256, legacy_id, owner_id, create_time });
        spec
    }

    async fn find_imported(&self, source: Digest) -> Result<Option<FileId>, Error> {
        let mut tx = self.app.db.tenant_tx(self.caller.tenant_id(), &Viewer::system()).await?;
        let found = imports::find_file(&mut tx, source).await;
        Ok(tx.finish(found).await?)
    }

    /// Checks everything that can be checked without reading the bytes.
    async fn dry_run(&self, mut spec: UploadSpec, object_bytes: Option<u64>) -> Result<ObjectOutcome, Error> {
        if let Some(received) = object_bytes {
            let size_bytes = i64::try_from(received).map_err(Error::internal)?;
            if let Some(declared) = spec.size_bytes.replace(size_bytes)
                && declared != size_bytes
            {
                let declared = u64::try_from(declared).unwrap_or_default();
                return Err(ImportError::SizeMismatch { declared, received }.into());
            }
        }
        let admission = read_admission_data(&self.app, &self.caller, None).await?;
        check_admission(&self.app, &self.caller, spec, &admission.quota).map(|_| ObjectOutcome::WouldImport)
    }

    async fn upload_object(
        &self,
        mut spec: UploadSpec,
        object: ObjectStream,
    ) -> Result<ObjectOutcome, Error> {
        if let (None, Some(size_bytes)) = (spec.size_bytes, object.size_bytes) {
            spec.size_bytes = Some(i64::try_from(size_bytes).map_err(Error::internal)?);
        }
        if spec.mime_type.is_empty()
            && let Ok(mime_type) = text::check_optional_line(&object.mime_type, DECLARED_CHARACTERS_MAX)
        {
            spec.mime_type = mime_type;
        }
        let mut messages = UploadMessages::new(object.body, self.app.limits.uploads.chunk_size_max_bytes);
        match upload_file(&self.app, &self.caller, spec, &mut messages).await {
            Ok(uploaded) => Ok(ObjectOutcome::Imported { file: uploaded.file.id, event: uploaded.event }),
            Err(error) => Err(messages.read_error().unwrap_or_else(|| convert_upload_error(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_refuses_properties_of_single_objects() {
        let spec = UploadSpec { name: "notes.txt".into(), size_bytes: Some(5), ..UploadSpec::default() };
        let properties =
            ObjectProperties { legacy_id: "7".into(), owner_id: "alice".into(), create_time: None, spec };
        let violations = properties.check_for_prefix().unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["item.legacy_id", "spec.name", "spec.size_bytes"]);
    }
}
