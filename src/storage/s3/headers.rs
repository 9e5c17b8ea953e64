//! The headers of a new object.

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use url::form_urlencoded;

use super::{
    super::{ObjectMetadata, PutOptions},
    options::{Encryption, S3Options},
};
use crate::domain::{percent, storage_class::StorageClass};

/// Stores accept 2 KiB of metadata. No file depends on it, so entries that do not fit are dropped instead of
/// rejected.
const METADATA_SIZE_BYTES_MAX: usize = 2_000;

/// The prefix of the names of metadata.
const METADATA_PREFIX: &str = "x-amz-meta-";

/// Returns all headers of a new object.
pub(super) fn object_headers(options: &S3Options, put: &PutOptions) -> HeaderMap {
    let mut headers = encryption_headers(options);
    let mut insert = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    if let Some(content_type) = put.content_type.as_deref().filter(|text| text.is_ascii()) {
        insert(CONTENT_TYPE, content_type);
    }
    let storage_class = match (put.class, &options.archive_storage_class) {
        (StorageClass::Archive, Some(class)) => Some(class),
        _ => options.storage_class.as_ref(),
    };
    if let Some(storage_class) = storage_class {
        insert(HeaderName::from_static("x-amz-storage-class"), storage_class);
    }
    if !options.tags.is_empty() {
        let tags = form_urlencoded::Serializer::new(String::new()).extend_pairs(&options.tags).finish();
        // A plus sign means a space in form encoding, but a literal plus sign in a header.
        insert(HeaderName::from_static("x-amz-tagging"), &tags.replace('+', "%20"));
    }
    let mut metadata_bytes = 0;
    for (name, value) in &put.metadata {
        let value = percent_encode(value);
        // Some stores count the prefix as well.
        let entry_bytes = METADATA_PREFIX.len() + name.len() + value.len();
        if metadata_bytes + entry_bytes > METADATA_SIZE_BYTES_MAX {
            continue;
        }
        metadata_bytes += entry_bytes;
        if let Ok(name) = HeaderName::from_bytes(format!("{METADATA_PREFIX}{name}").as_bytes()) {
            insert(name, &value);
        }
    }
    headers
}

/// Returns the metadata in the headers of a response. Entries that are not text of ours are skipped.
pub(super) fn parse_metadata(headers: &HeaderMap) -> ObjectMetadata {
    let entry = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = name.as_str().strip_prefix(METADATA_PREFIX)?;
        Some((name.to_owned(), percent::decode(value.to_str().ok()?)?))
    };
    headers.iter().filter_map(entry).collect()
}

/// Returns the encryption headers. A presigned write needs them as well.
pub(super) fn encryption_headers(options: &S3Options) -> HeaderMap {
    const ALGORITHM: HeaderName = HeaderName::from_static("x-amz-server-side-encryption");
    const KEY_ID: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-aws-kms-key-id");
    let mut headers = HeaderMap::new();
    match &options.encryption {
        Encryption::None => {}
        Encryption::Aes256 => {
            headers.insert(ALGORITHM, HeaderValue::from_static("AES256"));
        }
        Encryption::Kms { key_id } => {
            headers.insert(ALGORITHM, HeaderValue::from_static("aws:kms"));
            if let Ok(key_id) = HeaderValue::from_str(key_id) {
                headers.insert(KEY_ID, key_id);
            }
        }
    }
    headers
}

/// Percent-encodes all bytes other than visible ASCII, because user ids are arbitrary text and headers are
/// not.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            0x21..=0x7e => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_any_metadata_as_a_header_value() {
        assert_eq!(percent_encode("Zoë 100%\r\n"), "Zo%C3%AB%20100%25%0D%0A");
        assert_eq!(percent_encode("user-42/eu"), "user-42/eu");
    }

    #[test]
    fn metadata_is_read_as_it_was_written() {
        let written: ObjectMetadata = [("file-id", "7"), ("label", "a%b"), ("user-id", "Zoë 7")]
            .map(|(a, b)| (a.into(), b.into()))
            .into();
        let mut headers = HeaderMap::new();
        for (name, value) in &written {
            let name = HeaderName::from_bytes(format!("{METADATA_PREFIX}{name}").as_bytes()).unwrap();
            headers.insert(name, HeaderValue::from_str(&percent_encode(value)).unwrap());
        }
        headers.insert("etag", HeaderValue::from_static("x"));
        let mut read = parse_metadata(&headers);
        read.sort();
        assert_eq!(read, written);
    }
}
