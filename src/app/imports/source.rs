//! Where objects are taken from, whatever kind of place that is.

use url::Url;

use super::{
    fetch::{checked, fetch},
    opened::Opened,
};
use crate::{
    app::{App, Error},
    config::import_source::{SourcePlace, WebPlace},
    domain::{
        digest::Digest, imported::source_digest, object_key::ObjectKey, percent, violations::Violations,
    },
    storage::{Directory, ForeignStore, StorageErrorKind},
};

/// Where the objects are.
pub(super) enum Source {
    /// Under keys.
    Store(ForeignStore),
    /// Behind URLs.
    Web(WebPlace),
}

/// Where an object is, as its item says.
#[derive(Debug, Clone)]
pub enum Place {
    /// Under this key.
    Key(String),
    /// Behind this URL.
    Url(String),
}

/// The same, checked.
pub(super) enum Address {
    Key(String),
    Url(Url),
}

impl Source {
    pub(super) async fn open(app: &App, name: &str, place: &SourcePlace) -> Result<Self, Error> {
        match place {
            SourcePlace::Directory(path) => {
                let directory = Directory::open(path).await.map_err(Error::StorageUnavailable)?;
                Ok(Self::Store(ForeignStore::Directory(directory)))
            }
            SourcePlace::Bucket(_) => {
                let bucket = app.import_buckets.get(name).cloned();
                let bucket =
                    bucket.ok_or_else(|| Error::internal("a source of imports that was not opened"))?;
                Ok(Self::Store(ForeignStore::Bucket(bucket)))
            }
            SourcePlace::Web(web) => Ok(Self::Web(web.clone())),
        }
    }

    /// Whether this source could have such an object at all.
    pub(super) fn address(&self, place: &Place) -> Result<Address, Violations> {
        match (self, place) {
            (Self::Store(_), Place::Key(key)) => Ok(Address::Key(key.clone())),
            (Self::Web(web), Place::Url(url)) => checked(web, url).map(Address::Url),
            (Self::Store(_), Place::Url(_)) => Err(Violations::one(
                "item.url",
                "this source has keys: name an `object_key` or an `object_prefix`",
            )),
            (Self::Web(_), Place::Key(_)) => {
                Err(Violations::one("item.object_key", "this source has URLs and no keys: name a `url`"))
            }
        }
    }

    /// Opens an object.
    ///
    /// # Errors
    /// `NotFound`, `NotAllowed`, `Invalid`, `NotFetched`, `StorageUnavailable`.
    pub(super) async fn get(&self, address: &Address) -> Result<Opened, Error> {
        match (self, address) {
            (Self::Web(web), Address::Url(url)) => fetch(web, url).await,
            (Self::Store(store), Address::Key(key)) => {
                // Two names of one store, or an earlier prefix of our keys, may lead into our own bytes all the same.
                if matches!(store, ForeignStore::Bucket(_)) && is_ours(key) {
                    return Err(Error::NotAllowed(
                        "the key is one of a service like this, not of an object of before",
                    ));
                }
                let object = store.get(key).await.map_err(|error| match error.kind {
                    StorageErrorKind::NotFound => Error::NotFound("object"),
                    StorageErrorKind::InvalidInput => {
                        Violations::one("item.object_key", "is no key that the store can be asked for").into()
                    }
                    _ => Error::StorageUnavailable(error),
                })?;
                Ok(Opened::from(object))
            }
            (Self::Web(_), Address::Key(_)) | (Self::Store(_), Address::Url(_)) => {
                Err(Error::internal("an address of another kind of source"))
            }
        }
    }
}

/// Whether a store could take a key for one of ours. Some pass over empty names in a key.
fn is_ours(key: &str) -> bool {
    let names: Vec<&str> = key.split('/').filter(|name| !name.is_empty()).collect();
    ObjectKey::parse(&names.join("/")).is_ok()
}

impl Address {
    /// What is written down of it: no query, which may hold secrets.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Key(key) => key.clone(),
            Self::Url(url) => {
                let mut shown = url.clone();
                shown.set_query(None);
                shown.into()
            }
        }
    }

    /// What stands for all of it.
    pub(super) fn digest(&self, source: &str) -> Digest {
        match self {
            Self::Key(key) => source_digest(source, key),
            Self::Url(url) => source_digest(source, url.as_str()),
        }
    }

    /// What a file is called that has no other name: the last part.
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
    fn a_key_of_ours_is_known_also_with_empty_names_in_it() {
        let ours =
            "00000000-0000-7000-8000-000000000001/report/2026/11/27/00000000-0000-7000-8000-000000000002";
        for key in [ours.to_owned(), format!("/{ours}"), format!("live//{ours}"), ours.replace('/', "//")] {
            assert!(is_ours(&key), "{key}");
        }
        for key in ["users/7/photo.bin", "//", ""] {
            assert!(!is_ours(key), "{key}");
        }
    }
}
