//! A bucket with existing objects, as an import source. It is only read, and keys are arbitrary names.

use std::{collections::VecDeque, fmt, sync::Arc};

use futures::FutureExt;
use http::{
    Method,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};

use super::{
    super::{AdapterOptions, SourceObject, StorageError, StorageErrorKind, StorageOptions, backoff::Backoff},
    client::{Client, Request},
    errors::Failure,
    objects::stream_body,
    xml,
};
use crate::domain::{clock::IdSource, percent};

/// The maximum page length of S3.
const PAGE_LENGTH_MAX: usize = 1_000;
const GET: &str = "get source object";
const LIST: &str = "list source objects";

/// A bucket to import from, limited to keys with a prefix.
#[derive(Clone)]
pub struct SourceBucket(Arc<Inner>);

struct Inner {
    client: Client,
    backoff: Backoff,
    prefix: String,
    page_length: usize,
}

impl SourceBucket {
    /// Creates the source without connecting to the store. Options that concern writes are ignored.
    ///
    /// # Errors
    /// Returns `InvalidInput` if the options are not valid.
    pub fn open(
        options: &StorageOptions,
        prefix: &str,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, StorageError> {
        Self::with_page_length(options, prefix, ids, PAGE_LENGTH_MAX)
    }

    /// Creates the source as [`Self::open`] does, with a maximum number of keys per page.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_page_length(
        options: &StorageOptions,
        prefix: &str,
        ids: Arc<dyn IdSource>,
        page_length: usize,
    ) -> Result<Self, StorageError> {
        let AdapterOptions::S3(s3) = &options.adapter else {
            return Err(StorageError::invalid_input("open source bucket", "the adapter is not s3"));
        };
        let client = Client::open((**s3).clone())?;
        let backoff = Backoff::new(options, ids);
        Ok(Self(Arc::new(Inner { client, backoff, prefix: prefix.to_owned(), page_length })))
    }

    /// Opens the object with this key for reading.
    ///
    /// # Errors
    /// Returns `NotFound` if there is no such object or its key does not have the prefix, and `InvalidInput`
    /// if the key cannot be sent in a URL.
    pub async fn get(&self, key: &str) -> Result<SourceObject, StorageError> {
        let Inner { client, prefix, .. } = &*self.0;
        if key.is_empty() || !key.starts_with(prefix) {
            return Err(StorageError::new(StorageErrorKind::NotFound, GET));
        }
        // Proxies and servers would resolve these segments as relative paths.
        if key.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(StorageError::invalid_input(GET, "the key contains the segment `.` or `..`"));
        }
        let request = Request::new(Method::GET, &client.options.bucket, percent::encode_path(key));
        self.0.backoff.retry(|| self.open_object(request.clone()).boxed()).await
    }

    async fn open_object(&self, request: Request) -> Result<SourceObject, StorageError> {
        let at = |failure: Failure| failure.into_store_error(GET);
        let response = self.0.client.send_streaming(request).await.map_err(at)?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let size_bytes = header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let size_bytes =
            size_bytes.ok_or_else(|| at(Failure::InvalidResponse("missing or malformed Content-Length")))?;
        let mime_type = header(CONTENT_TYPE).unwrap_or_default().to_owned();
        let body = stream_body(response.into_body(), None, size_bytes);
        Ok(SourceObject { size_bytes, mime_type, body })
    }

    /// Lists the keys that start with a prefix, in the order of the store. Holds one page of keys in memory.
    pub fn list_keys(&self, prefix: &str) -> BucketKeys {
        let effective_prefix = match (prefix.starts_with(&self.0.prefix), self.0.prefix.starts_with(prefix)) {
            (true, _) => Some(prefix.to_owned()),
            (false, true) => Some(self.0.prefix.clone()),
            (false, false) => None,
        };
        let is_last = effective_prefix.is_none();
        let prefix = effective_prefix.unwrap_or_default();
        BucketKeys { bucket: self.clone(), prefix, page: VecDeque::new(), after: None, is_last }
    }

    async fn fetch_page(&self, prefix: &str, after: Option<&str>) -> Result<Page, StorageError> {
        self.request_page(prefix, after).await.map_err(|failure| failure.into_store_error(LIST))
    }

    async fn request_page(&self, prefix: &str, after: Option<&str>) -> Result<Page, Failure> {
        let Inner { client, page_length, .. } = &*self.0;
        let mut request = Request::new(Method::GET, &client.options.bucket, "")
            .query("list-type", "2")
            // Without URL encoding, control characters could not be represented, and trailing spaces would be
            // lost.
            .query("encoding-type", "url")
            .query("prefix", prefix)
            .query("max-keys", page_length.to_string());
        if let Some(after) = after {
            request = request.query("start-after", after);
        }
        let response = client.send(request).await?;
        let listed: xml::Objects = xml::parse(&response.body, "malformed list of objects")?;
        let is_encoded = listed.encoding_type == "url";
        let mut keys = VecDeque::with_capacity(listed.contents.len());
        let mut last = after.map(str::to_owned);
        for object in listed.contents {
            let key = match is_encoded {
                true => percent::decode(&object.key.replace('+', "%20")),
                false => Some(object.key),
            };
            let key = key.ok_or(Failure::InvalidResponse("a key that is not UTF-8"))?;
            // Keys that go backwards would cause an endless listing.
            if last.as_ref().is_some_and(|last| key <= *last) {
                return Err(Failure::InvalidResponse("keys that are not in order"));
            }
            last = Some(key.clone());
            // Consoles create such empty objects to represent folders.
            if !(object.size == 0 && key.ends_with('/')) {
                keys.push_back(key);
            }
        }
        if listed.is_truncated && last.as_deref() == after {
            return Err(Failure::InvalidResponse("a truncated page without a marker"));
        }
        Ok(Page { keys, last, is_last: !listed.is_truncated })
    }
}

impl fmt::Debug for SourceBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceBucket")
            .field("bucket", &self.0.client.options.bucket)
            .field("prefix", &self.0.prefix)
            .finish_non_exhaustive()
    }
}

struct Page {
    keys: VecDeque<String>,
    /// The last key of the page, from which the next page continues.
    last: Option<String>,
    is_last: bool,
}

/// The keys of a [`SourceBucket`] in the order of the store.
#[derive(Debug)]
pub struct BucketKeys {
    bucket: SourceBucket,
    prefix: String,
    page: VecDeque<String>,
    after: Option<String>,
    is_last: bool,
}

impl BucketKeys {
    /// Returns the next key, or `None` at the end.
    ///
    /// # Errors
    /// Returns an error if the next page cannot be listed after all retries.
    pub async fn next(&mut self) -> Result<Option<String>, StorageError> {
        loop {
            if let Some(key) = self.page.pop_front() {
                return Ok(Some(key));
            }
            if self.is_last {
                return Ok(None);
            }
            let (bucket, prefix, after) = (&self.bucket, &self.prefix, self.after.as_deref());
            let page = bucket.0.backoff.retry(|| bucket.fetch_page(prefix, after).boxed()).await?;
            (self.page, self.after, self.is_last) = (page.keys, page.last, page.is_last);
        }
    }
}
