//! The label of an object: which file it is, so that the file can be readopted if the database is restored to a time
//! before its upload. Each new object carries it as metadata.
//!
//! Names, owners and declared types may be personal data, and the administrators of a bucket can read metadata. So
//! they are sealed with the key of the service, and only ids, times and the digest are in plain text.
//!
//! A copy has the label of its original, and in addition the id of its blob and its storage class: its key names neither.

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    digest::Digest,
    ids::{BlobId, FileId},
    storage_class::StorageClass,
};

/// The names of the metadata. Stores accept lower-case letters and hyphens.
const FILE_ID: &str = "file-id";
const FILE_VERSION: &str = "file-version";
const CREATE_TIME: &str = "create-time";
const CATEGORY: &str = "category";
const SHA256: &str = "sha256";
const SEALED: &str = "label";

/// The name of the metadata of an object that contains a fragment of a part. It is never a file.
const FRAGMENT: &str = "fragment";

/// The names of the metadata that each copy has in addition. An earlier version gave copies at the replica provider
/// `REPLICA_OF` instead.
const BLOB_ID: &str = "blob-id";
const BLOB_CLASS: &str = "blob-class";
const REPLICA_OF: &str = "replica-of";

/// The names of all metadata of a label.
const NAMES: [&str; 6] = [FILE_ID, FILE_VERSION, CREATE_TIME, CATEGORY, SHA256, SEALED];

/// The maximum length of the sealed part before it is sealed. S3 accepts 2 KiB of metadata, and sealing adds about 40
/// percent.
const PRIVATE_BYTES_MAX: usize = 900;

/// The number of the version that a new file has. A later version gets its number in its commit.
const FIRST_VERSION: &str = "1";
const LATER_VERSION: &str = "later";

/// The file that an object belongs to, as known when the object is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectLabel {
    pub file: FileId,
    /// Whether it is the first version of the file.
    pub is_first_version: bool,
    pub create_time: Timestamp,
    pub category: String,
    /// The declared digest, if any.
    pub sha256: Option<Digest>,
    pub private: PrivateLabel,
}

/// The sealed part of a label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateLabel {
    /// The name of the file. The end of a very long name is missing.
    pub name: String,
    /// The owner of a new file; the uploader of a later version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub declared_mime_type: String,
}

impl PrivateLabel {
    /// Encodes the label. If it is too long, drops the declared type first, then the end of the name.
    pub fn encode(&self) -> Vec<u8> {
        let mut label = self.clone();
        loop {
            let encoded = serde_json::to_vec(&label).unwrap_or_default();
            if encoded.len() <= PRIVATE_BYTES_MAX {
                return encoded;
            }
            if !label.declared_mime_type.is_empty() {
                label.declared_mime_type.clear();
            } else if label.name.pop().is_none() {
                label.owner_id.clear();
            }
        }
    }

    /// Decodes a label. Returns `None` if it is no label.
    pub fn decode(encoded: &[u8]) -> Option<Self> {
        serde_json::from_slice(encoded).ok()
    }
}

impl ObjectLabel {
    /// Returns the metadata of an object with this label. `sealed` is the sealed private part.
    pub fn to_metadata(&self, sealed: String) -> Vec<(String, String)> {
        let version = if self.is_first_version { FIRST_VERSION } else { LATER_VERSION };
        let mut entries = vec![
            (FILE_ID, self.file.to_string()),
            (FILE_VERSION, version.to_owned()),
            (CREATE_TIME, self.create_time.to_rfc3339()),
            (CATEGORY, self.category.clone()),
        ];
        entries.extend(self.sha256.map(|sha256| (SHA256, sha256.to_string())));
        entries.push((SEALED, sealed));
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Reads the label from the metadata of an object. `open` opens the sealed part of the label of a file. Returns
    /// `None` if the object has no label; a private part that cannot be opened is empty.
    pub fn from_metadata(
        metadata: &[(String, String)],
        open: impl FnOnce(FileId, &str) -> Option<Vec<u8>>,
    ) -> Option<Self> {
        let find =
            |wanted: &str| metadata.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let file: FileId = find(FILE_ID)?.parse().ok()?;
        let private = find(SEALED).and_then(|sealed| PrivateLabel::decode(&open(file, sealed)?));
        Some(Self {
            file,
            is_first_version: find(FILE_VERSION) == Some(FIRST_VERSION),
            create_time: Timestamp::from(chrono::DateTime::parse_from_rfc3339(find(CREATE_TIME)?).ok()?),
            category: find(CATEGORY)?.to_owned(),
            sha256: find(SHA256).and_then(|text| Digest::from_slice(&hex::decode(text).ok()?).ok()),
            private: private.unwrap_or_default(),
        })
    }
}

/// Returns the entries of the metadata of an object that are its label. A copy of the object carries them as well.
pub fn label_entries(metadata: Vec<(String, String)>) -> Vec<(String, String)> {
    metadata.into_iter().filter(|(name, _)| NAMES.contains(&name.as_str())).collect()
}

/// Returns the metadata that a copy of the object of a blob has in addition to the label.
pub fn copy_entries(blob: BlobId, class: StorageClass) -> Vec<(String, String)> {
    let entries = [(BLOB_ID, blob.to_string()), (BLOB_CLASS, class.to_string())];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the metadata of a copy says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyLabel {
    /// The blob whose bytes it has.
    pub blob: BlobId,
    /// The storage class that it was created in. `None` for a copy that was moved by a version that did not record it.
    pub class: Option<StorageClass>,
}

impl CopyLabel {
    /// Reads the metadata of an object. Returns `None` if it is an original, or if a version moved it that did not
    /// record its blob.
    pub fn from_metadata(metadata: &[(String, String)]) -> Option<Self> {
        let find =
            |wanted: &str| metadata.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let replica_of: Option<BlobId> = find(REPLICA_OF).and_then(|blob| blob.parse().ok());
        let blob = find(BLOB_ID).and_then(|blob| blob.parse().ok()).or(replica_of)?;
        let named = find(BLOB_CLASS);
        let class = StorageClass::ALL.iter().copied().find(|class| named == Some(class.as_str()));
        // Copies at the replica provider were always in this class.
        Some(Self { blob, class: class.or(replica_of.map(|_| StorageClass::Standard)) })
    }
}

/// Returns the metadata of an object that contains a fragment of a part of an upload.
pub fn fragment_metadata() -> Vec<(String, String)> {
    vec![(FRAGMENT.to_owned(), "true".to_owned())]
}

/// Returns whether an object contains a fragment of a part of an upload.
pub fn is_fragment(metadata: &[(String, String)]) -> bool {
    metadata.iter().any(|(name, _)| name == FRAGMENT)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn label(name: &str) -> ObjectLabel {
        ObjectLabel {
            file: FileId::from_uuid(Uuid::from_u128(7)),
            is_first_version: true,
            create_time: Timestamp::from_timestamp(1_800_000_000, 0).unwrap(),
            category: "document".to_owned(),
            sha256: Some(Digest::compute(b"content")),
            private: PrivateLabel {
                name: name.to_owned(),
                owner_id: "alice".to_owned(),
                declared_mime_type: "text/plain".to_owned(),
            },
        }
    }

    fn read(metadata: &[(String, String)]) -> Option<ObjectLabel> {
        ObjectLabel::from_metadata(metadata, |_, sealed| Some(sealed.as_bytes().to_vec()))
    }

    fn write(label: &ObjectLabel) -> Vec<(String, String)> {
        label.to_metadata(String::from_utf8(label.private.encode()).unwrap())
    }

    #[test]
    fn label_is_read_as_it_was_written() {
        let mut metadata = write(&label("Zoë.txt"));
        metadata.push(("tenant-id".to_owned(), "x".to_owned()));
        assert_eq!(read(&metadata), Some(label("Zoë.txt")));
        assert_eq!(label_entries(metadata).len(), NAMES.len());
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn label_that_cannot_be_opened_has_no_private_part() {
        let metadata = write(&label("secret.txt"));
        let opened = ObjectLabel::from_metadata(&metadata, |_, _| None).unwrap();
        assert_eq!((opened.file, opened.private), (label("").file, PrivateLabel::default()));
    }

    #[test]
    fn copy_is_recognized_by_its_metadata() {
        let blob = BlobId::from_uuid(Uuid::from_u128(9));
        for class in [StorageClass::Standard, StorageClass::Archive] {
            let mut metadata = write(&label("moved.txt"));
            metadata.extend(copy_entries(blob, class));
            let read = CopyLabel::from_metadata(&metadata);
            assert_eq!(read, Some(CopyLabel { blob, class: Some(class) }));
        }
        // As a version wrote it that did not record the class of copies.
        let replica = CopyLabel { blob, class: Some(StorageClass::Standard) };
        assert_eq!(CopyLabel::from_metadata(&[(REPLICA_OF.to_owned(), blob.to_string())]), Some(replica));
        assert_eq!(CopyLabel::from_metadata(&write(&label("original.txt"))), None);
    }

    #[test]
    fn long_names_are_shortened_to_the_limit() {
        for name in ["é".repeat(255), "\"".repeat(255), "\u{10FFFF}".repeat(255)] {
            let mut long = label(&name);
            long.private.owner_id = "\u{10FFFF}".repeat(200);
            let encoded = long.private.encode();
            assert!(encoded.len() <= PRIVATE_BYTES_MAX, "{}", encoded.len());
            let decoded = PrivateLabel::decode(&encoded).unwrap();
            assert!(name.starts_with(&decoded.name));
        }
        assert_eq!(PrivateLabel::decode(&label("short").private.encode()), Some(label("short").private));
    }
}
