//! Objects of others in a bucket: read and listed under the names that they have. Nothing is ever written there.

use std::{collections::VecDeque, fmt, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use http::{
    Method,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};

use super::{
    super::{
        AdapterOptions, ForeignObject, StorageError, StorageErrorKind, StorageOptions, backoff::Backoff,
    },
    client::{Call, Client},
    errors::Failure,
    objects::pieces,
    xml,
};
use crate::domain::{clock::IdSource, percent};

/// No store gives longer pages.
const PAGE_LENGTH_MAX: usize = 1_000;
const GET: &str = "get foreign object";
const LIST: &str = "list foreign objects";

/// A bucket to import from, or the part of it whose keys begin with a text.
#[derive(Clone)]
pub struct ForeignBucket(Arc<Inner>);

struct Inner {
    client: Client,
    backoff: Backoff,
    prefix: String,
    page_length: usize,
}

impl ForeignBucket {
    /// Talks to nobody yet. Of the options only those of reading are used.
    ///
    /// # Errors
    /// `InvalidInput` when nothing could ever be read under these options.
    pub fn open(
        options: &StorageOptions,
        prefix: &str,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, StorageError> {
        Self::with_pages(options, prefix, ids, PAGE_LENGTH_MAX)
    }

    /// The same, with pages of so many keys at most.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_pages(
        options: &StorageOptions,
        prefix: &str,
        ids: Arc<dyn IdSource>,
        page_length: usize,
    ) -> Result<Self, StorageError> {
        let AdapterOptions::S3(s3) = &options.adapter else {
            return Err(StorageError::invalid("open foreign bucket", "only buckets are read so"));
        };
        let client = Client::open((**s3).clone())?;
        let backoff = Backoff::new(options, ids);
        Ok(Self(Arc::new(Inner { client, backoff, prefix: prefix.to_owned(), page_length })))
    }

    /// Opens the object with this key.
    ///
    /// # Errors
    /// `NotFound`, also for a key outside the bucket's part; `InvalidInput` for one that no request can name.
    pub async fn get(&self, key: &str) -> Result<ForeignObject, StorageError> {
        let Inner { client, prefix, .. } = &*self.0;
        if key.is_empty() || !key.starts_with(prefix) {
            return Err(StorageError::new(StorageErrorKind::NotFound, GET));
        }
        // Whatever reads the address on its way would take them for steps.
        if key.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(StorageError::invalid(GET, "a segment of the key is a step"));
        }
        let call = Call::new(Method::GET, &client.options.bucket, percent::encode_path(key));
        self.retry(|| self.begin(call.clone()).boxed()).await
    }

    async fn begin(&self, call: Call) -> Result<ForeignObject, StorageError> {
        let at = |failure: Failure| failure.into_error_of_store(GET);
        let response = self.0.client.begin(call).await.map_err(at)?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let size_bytes = header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let size_bytes = size_bytes.ok_or_else(|| at(Failure::Garbled("no length")))?;
        let mime_type = header(CONTENT_TYPE).unwrap_or_default().to_owned();
        let body = pieces(response.into_body(), None, size_bytes);
        Ok(ForeignObject { size_bytes, mime_type, body })
    }

    /// Walks over the objects whose keys begin with this text, in the order of their keys. Holds one page of them.
    pub fn walk(&self, prefix: &str) -> BucketWalk {
        let inside = match (prefix.starts_with(&self.0.prefix), self.0.prefix.starts_with(prefix)) {
            (true, _) => Some(prefix.to_owned()),
            (false, true) => Some(self.0.prefix.clone()),
            (false, false) => None,
        };
        let is_last = inside.is_none();
        let prefix = inside.unwrap_or_default();
        BucketWalk { bucket: self.clone(), prefix, page: VecDeque::new(), after: None, is_last }
    }

    async fn page(&self, prefix: &str, after: Option<&str>) -> Result<Page, StorageError> {
        self.read_page(prefix, after).await.map_err(|failure| failure.into_error_of_store(LIST))
    }

    async fn read_page(&self, prefix: &str, after: Option<&str>) -> Result<Page, Failure> {
        let Inner { client, page_length, .. } = &*self.0;
        let mut call = Call::new(Method::GET, &client.options.bucket, "")
            .query("list-type", "2")
            // Else a key with a control character could not be told at all, and spaces at its end would be lost.
            .query("encoding-type", "url")
            .query("prefix", prefix)
            .query("max-keys", page_length.to_string());
        if let Some(after) = after {
            call = call.query("start-after", after);
        }
        let answer = client.send(call).await?;
        let listed: xml::Objects = xml::parse(&answer.body, "a list of objects")?;
        let is_encoded = listed.encoding_type == "url";
        let mut keys = VecDeque::with_capacity(listed.contents.len());
        let mut last = after.map(str::to_owned);
        for object in listed.contents {
            let key = match is_encoded {
                true => percent::decode(&object.key.replace('+', "%20")),
                false => Some(object.key),
            };
            let key = key.ok_or(Failure::Garbled("a key that is no text"))?;
            // A page that leads back would be listed for ever.
            if last.as_ref().is_some_and(|last| key <= *last) {
                return Err(Failure::Garbled("keys that are not in order"));
            }
            last = Some(key.clone());
            // Consoles show folders so; there is nothing in it.
            if !(object.size == 0 && key.ends_with('/')) {
                keys.push_back(key);
            }
        }
        if listed.is_truncated && last.as_deref() == after {
            return Err(Failure::Garbled("a page that is not the last and does not say where to go on"));
        }
        Ok(Page { keys, last, is_last: !listed.is_truncated })
    }

    async fn retry<'a, T>(
        &self,
        call: impl Fn() -> BoxFuture<'a, Result<T, StorageError>> + Send,
    ) -> Result<T, StorageError> {
        let mut attempt = 1;
        loop {
            match call().await {
                Ok(done) => {
                    self.0.backoff.succeeded();
                    return Ok(done);
                }
                Err(error) => self.0.backoff.wait(attempt, error).await?,
            }
            attempt += 1;
        }
    }
}

impl fmt::Debug for ForeignBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignBucket")
            .field("bucket", &self.0.client.options.bucket)
            .field("prefix", &self.0.prefix)
            .finish_non_exhaustive()
    }
}

struct Page {
    keys: VecDeque<String>,
    /// Where to go on.
    last: Option<String>,
    is_last: bool,
}

/// A walk over a bucket, in the order of the keys.
#[derive(Debug)]
pub struct BucketWalk {
    bucket: ForeignBucket,
    prefix: String,
    page: VecDeque<String>,
    after: Option<String>,
    is_last: bool,
}

impl BucketWalk {
    /// The next key, until there is none.
    ///
    /// # Errors
    /// When the store does not give the next page, however often it is asked.
    pub async fn next(&mut self) -> Result<Option<String>, StorageError> {
        loop {
            if let Some(key) = self.page.pop_front() {
                return Ok(Some(key));
            }
            if self.is_last {
                return Ok(None);
            }
            let (bucket, prefix, after) = (&self.bucket, &self.prefix, self.after.as_deref());
            let page = bucket.retry(|| bucket.page(prefix, after).boxed()).await?;
            (self.page, self.after, self.is_last) = (page.keys, page.last, page.is_last);
        }
    }
}
