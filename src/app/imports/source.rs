//! The sources that objects are imported from.

use url::Url;

use super::{
    fetch::{fetch_object, parse_source_url},
    object_stream::ObjectStream,
};
use crate::{
    app::{App, Denial, Error, Resource},
    config::import_source::{SourceLocation, WebSource},
    domain::{
        digest::Digest, import_origin::import_source_digest, object_key::ObjectKey, percent,
        violations::Violations,
    },
    storage::{ImportSource, SourceDirectory, StorageErrorKind},
};

/// An open source.
pub(super) enum Source {
    /// A directory or bucket, whose objects have keys.
    Store(ImportSource),
    /// Web servers, whose objects have URLs.
    Web(WebSource),
}

/// The location of an object as requested.
#[derive(Debug, Clone)]
pub enum ObjectLocation {
    /// The key of an object.
    Key(String),
    /// The URL of an object.
    Url(String),
}

/// The checked location of an object.
pub(super) enum Address {
    Key(String),
    Url(Url),
}

impl Source {
    pub(super) async fn open(app: &App, name: &str, location: &SourceLocation) -> Result<Self, Error> {
        match location {
            SourceLocation::Directory(path) => {
                let directory = SourceDirectory::open(path).await.map_err(Error::StorageUnavailable)?;
                Ok(Self::Store(ImportSource::Directory(directory)))
            }
            SourceLocation::Bucket(_) => {
                let bucket = app.import_buckets.get(name).cloned();
                let bucket =
                    bucket.ok_or_else(|| Error::internal("bucket of an import source was not opened"))?;
                Ok(Self::Store(ImportSource::Bucket(bucket)))
            }
            SourceLocation::Web(web) => Ok(Self::Web(web.clone())),
        }
    }

    /// Checks that this source can contain an object at this location.
    pub(super) fn address(&self, location: &ObjectLocation) -> Result<Address, Violations> {
        match (self, location) {
            (Self::Store(_), ObjectLocation::Key(key)) => Ok(Address::Key(key.clone())),
            (Self::Web(web), ObjectLocation::Url(url)) => parse_source_url(web, url).map(Address::Url),
            (Self::Store(_), ObjectLocation::Url(_)) => Err(Violations::one(
                "item.url",
                "the source has keys and no URLs; set `object_key` or `object_prefix`",
            )),
            (Self::Web(_), ObjectLocation::Key(_)) => {
                Err(Violations::one("item.object_key", "the source has URLs and no keys; set `url`"))
            }
        }
    }

    /// Opens an object.
    ///
    /// # Errors
    /// Returns `NotFound`, `NotAllowed`, `Invalid`, `FetchFailed` or `StorageUnavailable`.
    pub(super) async fn get(&self, address: &Address) -> Result<ObjectStream, Error> {
        match (self, address) {
            (Self::Web(web), Address::Url(url)) => fetch_object(web, url).await,
            (Self::Store(store), Address::Key(key)) => {
                // Two names of one store, or a former prefix of our keys, could still give access to our own
                // objects.
                if matches!(store, ImportSource::Bucket(_)) && is_service_key(key) {
                    return Err(Error::NotAllowed(Denial::ReadsServiceKey));
                }
                let object = store.get(key).await.map_err(|error| match error.kind {
                    StorageErrorKind::NotFound => Error::NotFound(Resource::SourceObject),
                    StorageErrorKind::InvalidInput => {
                        Violations::one("item.object_key", "is not a valid key for the store").into()
                    }
                    _ => Error::StorageUnavailable(error),
                })?;
                Ok(ObjectStream::from(object))
            }
            (Self::Web(_), Address::Key(_)) | (Self::Store(_), Address::Url(_)) => {
                Err(Error::internal("address does not match the kind of source"))
            }
        }
    }
}

/// Returns whether a store could resolve the key to one of this service's own keys. Some stores ignore empty
/// segments in a key.
fn is_service_key(key: &str) -> bool {
    let segments: Vec<&str> = key.split('/').filter(|segment| !segment.is_empty()).collect();
    ObjectKey::parse(&segments.join("/")).is_ok()
}

impl Address {
    /// Returns the address as recorded: without the query, which may contain secrets.
    pub(super) fn without_query(&self) -> String {
        match self {
            Self::Key(key) => key.clone(),
            Self::Url(url) => {
                let mut shown = url.clone();
                shown.set_query(None);
                shown.into()
            }
        }
    }

    /// Returns the digest of the source and the whole address.
    pub(super) fn digest(&self, source: &str) -> Digest {
        match self {
            Self::Key(key) => import_source_digest(source, key),
            Self::Url(url) => import_source_digest(source, url.as_str()),
        }
    }

    /// Returns the default file name: the last segment of the address.
    pub(super) fn file_name(&self) -> String {
        match self {
            Self::Key(key) => key.rsplit('/').next().unwrap_or(key).to_owned(),
            Self::Url(url) => {
                let last = url.path().rsplit('/').next().unwrap_or_default();
                percent::decode(last).unwrap_or_else(|| last.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_service_keys_with_empty_segments() {
        let service_key =
            "00000000-0000-7000-8000-000000000001/report/2026/11/27/00000000-0000-7000-8000-000000000002";
        for key in [
            service_key.to_owned(),
            format!("/{service_key}"),
            format!("live//{service_key}"),
            service_key.replace('/', "//"),
        ] {
            assert!(is_service_key(&key), "{key}");
        }
        for key in ["users/7/photo.bin", "//", ""] {
            assert!(!is_service_key(key), "{key}");
        }
    }
}
