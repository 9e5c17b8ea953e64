//! Seals and opens the labels of objects (`domain/object_label.rs`).

use crate::{
    app::{App, Error},
    crypto::sealer::{SealError, Sealer},
    domain::{
        ids::{BlobId, FileId, TenantId},
        object_label::ObjectLabel,
    },
    storage::ObjectMetadata,
};

/// Returns the metadata of an object with this label.
///
/// # Errors
/// Returns an error if no random bytes are available.
pub(in crate::app) fn seal_label(
    app: &App,
    tenant: TenantId,
    label: &ObjectLabel,
) -> Result<ObjectMetadata, Error> {
    seal_with(&app.page_tokens, tenant, label).map_err(Error::internal)
}

/// Reads the label of an object, or returns `None` if it has none. If it was sealed with another key, the private part
/// is empty.
pub(super) fn open_label(app: &App, tenant: TenantId, metadata: &[(String, String)]) -> Option<ObjectLabel> {
    open_with(&app.page_tokens, tenant, metadata)
}

/// Changes the metadata of an object to that of another blob of the same upload: a new file has the id of its first
/// blob.
///
/// # Errors
/// Returns an error if no random bytes are available.
pub(in crate::app) fn relabel(
    app: &App,
    tenant: TenantId,
    metadata: ObjectMetadata,
    blob: BlobId,
) -> Result<ObjectMetadata, Error> {
    let Some(mut label) = open_label(app, tenant, &metadata).filter(|label| label.is_first_version) else {
        return Ok(metadata);
    };
    label.file = FileId::of_first_blob(blob);
    let mut changed = seal_label(app, tenant, &label)?;
    let is_other = |(name, _): &(String, String)| !changed.iter().any(|(changed, _)| changed == name);
    let others: ObjectMetadata = metadata.into_iter().filter(is_other).collect();
    changed.extend(others);
    Ok(changed)
}

fn seal_with(sealer: &Sealer, tenant: TenantId, label: &ObjectLabel) -> Result<ObjectMetadata, SealError> {
    let sealed = sealer.seal(&purpose(tenant, label.file), &label.private.encode())?;
    Ok(label.to_metadata(sealed))
}

fn open_with(sealer: &Sealer, tenant: TenantId, metadata: &[(String, String)]) -> Option<ObjectLabel> {
    ObjectLabel::from_metadata(metadata, |file, sealed| sealer.open(&purpose(tenant, file), sealed).ok())
}

/// Binds the sealed part to its file, so that it cannot be attached to another one.
fn purpose(tenant: TenantId, file: FileId) -> Vec<u8> {
    format!("object label/{tenant}/{file}").into_bytes()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{clock::Timestamp, object_label::PrivateLabel};

    #[test]
    fn label_is_sealed_and_bound_to_its_file() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let tenant = |n| TenantId::from_uuid(Uuid::from_u128(n));
        let label = ObjectLabel {
            file: FileId::from_uuid(Uuid::from_u128(1)),
            is_first_version: true,
            create_time: Timestamp::UNIX_EPOCH,
            category: "document".to_owned(),
            sha256: None,
            private: PrivateLabel { name: "Diagnosis Zoë.pdf".to_owned(), ..PrivateLabel::default() },
        };
        let metadata = seal_with(&sealer, tenant(1), &label).unwrap();
        assert!(!metadata.iter().any(|(_, value)| value.contains("Diagnosis")), "{metadata:?}");
        let size_bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(size_bytes < 2_000, "{size_bytes}");
        assert_eq!(open_with(&sealer, tenant(1), &metadata), Some(label.clone()));
        let other_file = FileId::from_uuid(Uuid::from_u128(2));
        let of_other_file: Vec<_> = metadata
            .iter()
            .map(|(name, value)| match name.as_str() {
                "file-id" => (name.clone(), other_file.to_string()),
                _ => (name.clone(), value.clone()),
            })
            .collect();
        let attached = open_with(&sealer, tenant(1), &of_other_file).unwrap();
        assert_eq!((attached.file, attached.private), (other_file, PrivateLabel::default()));
        let unopened = Some(ObjectLabel { private: PrivateLabel::default(), ..label });
        assert_eq!(open_with(&sealer, tenant(2), &metadata), unopened);
        assert_eq!(open_with(&Sealer::new(&[8; 32]).unwrap(), tenant(1), &metadata), unopened);
    }
}
