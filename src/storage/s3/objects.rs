//! Operations on whole objects: put, head, get, delete.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, HeaderName, LAST_MODIFIED},
};
use http_body_util::BodyExt;
use object_store::client::HttpResponseBody;

use super::{
    super::{
        ByteStream, ObjectInfo, PIECE_SIZE_BYTES_MAX, Payload, PutOptions, StorageError, StorageErrorKind,
        object::check_range,
    },
    client::{Client, Request},
    digest,
    errors::Failure,
    headers, versions,
};
use crate::domain::{clock::Timestamp, object_key::ObjectKey};

pub(super) async fn put(
    client: &Client,
    key: &ObjectKey,
    body: Payload,
    options: &PutOptions,
) -> Result<ObjectInfo, StorageError> {
    let size_bytes = body.len_bytes();
    let mut request = Request::new(Method::PUT, client.bucket_of(key), key.as_str())
        .headers(headers::object_headers(&client.options, options));
    if client.options.conditional_writes {
        request = request.header("if-none-match", "*");
    }
    let response = client.write(attach_body(client, request, body)).await;
    let response = response.map_err(|failure| failure.into_error("put object", key))?;
    client.record_write();
    match parse_time(&response.headers, DATE) {
        Some(modify_time) => Ok(ObjectInfo { key: key.clone(), size_bytes, modify_time }),
        None => head(client, key, "put object").await,
    }
}

/// Attaches the body, with a checksum header if the signature does not cover the body.
pub(super) fn attach_body(client: &Client, request: Request, body: Payload) -> Request {
    let request = match client.sends_checksum() {
        true => request.header("x-amz-checksum-crc64nvme", &digest::crc64_nvme(&body)),
        false => request,
    };
    request.body(body)
}

pub(super) async fn head(
    client: &Client,
    key: &ObjectKey,
    operation: &'static str,
) -> Result<ObjectInfo, StorageError> {
    head_with(client, key, operation, |request| request).await.map(|(info, _)| info)
}

/// Sends a HEAD request that `change` adds to. Returns the headers of the response too.
pub(super) async fn head_with(
    client: &Client,
    key: &ObjectKey,
    operation: &'static str,
    change: impl FnOnce(Request) -> Request + Send,
) -> Result<(ObjectInfo, HeaderMap), StorageError> {
    let bucket = client.bucket_of(key);
    let response = match client.send(change(Request::new(Method::HEAD, &bucket, key.as_str()))).await {
        Ok(response) => response,
        Err(failure) => {
            return Err(client.resolve_not_found(failure, &bucket).await.into_error(operation, key));
        }
    };
    let size_bytes =
        response.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match (size_bytes, parse_time(&response.headers, LAST_MODIFIED)) {
        (Some(size_bytes), Some(modify_time)) => {
            Ok((ObjectInfo { key: key.clone(), size_bytes, modify_time }, response.headers))
        }
        _ => Err(Failure::InvalidResponse("missing or malformed Content-Length or Last-Modified")
            .into_error(operation, key)),
    }
}

fn parse_time(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    chrono::DateTime::parse_from_rfc2822(text).ok().map(Timestamp::from)
}

pub(super) async fn delete(client: &Client, key: &ObjectKey) -> Result<(), StorageError> {
    match client.send(Request::new(Method::DELETE, client.bucket_of(key), key.as_str())).await {
        Ok(response) if versions::is_only_hidden(&response.headers) => {
            versions::delete_all(client, key).await
        }
        Ok(_) => Ok(()),
        Err(failure) if failure.code() == "NoSuchKey" || is_missing_tenant_bucket(client, &failure) => Ok(()),
        Err(failure) => Err(failure.into_error("delete object", key)),
    }
}

/// Returns whether the failure means that the tenant's bucket has not been created yet, so it has no objects.
pub(super) fn is_missing_tenant_bucket(client: &Client, failure: &Failure) -> bool {
    client.options.bucket_per_tenant && failure.code() == "NoSuchBucket"
}

pub(super) async fn get(
    client: &Client,
    key: &ObjectKey,
    range: Range<u64>,
) -> Result<ByteStream, StorageError> {
    let operation = "get object";
    if range.start >= range.end {
        // A range header cannot express an empty range.
        let size_bytes = head(client, key, operation).await?.size_bytes;
        check_range(&range, size_bytes, operation).map_err(|error| error.with_key(key))?;
        return Ok(stream::empty().boxed());
    }
    let request = Request::new(Method::GET, client.bucket_of(key), key.as_str())
        .header("range", &format!("bytes={}-{}", range.start, range.end - 1));
    let response = match client.send_streaming(request).await {
        Ok(response) => response,
        Err(failure) if is_missing_tenant_bucket(client, &failure) => {
            return Err(StorageError::new(StorageErrorKind::NotFound, operation).with_key(key));
        }
        Err(failure) => return Err(failure.into_error(operation, key)),
    };
    let invalid = |what| Failure::InvalidResponse(what).into_error(operation, key);
    let (served, size_bytes) = match response.status() {
        StatusCode::PARTIAL_CONTENT => parse_content_range(response.headers())
            .ok_or_else(|| invalid("missing or malformed Content-Range"))?,
        // A store without range support sends the whole object.
        _ => {
            let size_bytes = response.headers().get(CONTENT_LENGTH);
            let size_bytes = size_bytes.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            size_bytes
                .map(|size_bytes| (0..size_bytes, size_bytes))
                .ok_or_else(|| invalid("missing or malformed Content-Length"))?
        }
    };
    check_range(&range, size_bytes, operation).map_err(|error| error.with_key(key))?;
    if served != range {
        return Err(invalid("the range differs from the requested one"));
    }
    Ok(stream_body(response.into_body(), Some(key.clone()), range.end - range.start))
}

/// Parses a header such as `bytes 0-9/100` into the range and the object size.
fn parse_content_range(headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes ")?;
    let (range, size_bytes) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    Some((first.parse().ok()?..end, size_bytes.parse().ok()?))
}

struct BodyStream {
    body: HttpResponseBody,
    /// `None` for an object of an import source, whose name must not appear in errors.
    key: Option<ObjectKey>,
    remaining_bytes: u64,
    /// The rest of a frame that was larger than a piece.
    rest: Bytes,
}

/// Streams exactly `size_bytes` bytes of a response body, or returns a retryable error.
pub(super) fn stream_body(body: HttpResponseBody, key: Option<ObjectKey>, size_bytes: u64) -> ByteStream {
    let pieces = BodyStream { body, key, remaining_bytes: size_bytes, rest: Bytes::new() };
    stream::try_unfold(pieces, BodyStream::next).boxed()
}

impl BodyStream {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StorageError> {
        while self.rest.is_empty() {
            match self.body.frame().await {
                None if self.remaining_bytes == 0 => return Ok(None),
                None => {
                    return Err(
                        self.to_error(Failure::InvalidResponse("the body is shorter than its length"))
                    );
                }
                Some(Err(error)) => return Err(self.to_error(Failure::Http(error))),
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE_SIZE_BYTES_MAX));
        match self.remaining_bytes.checked_sub(piece.len() as u64) {
            Some(remaining_bytes) => self.remaining_bytes = remaining_bytes,
            None => return Err(self.to_error(Failure::InvalidResponse("the body is longer than its length"))),
        }
        Ok(Some((piece, self)))
    }

    fn to_error(&self, failure: Failure) -> StorageError {
        let error = failure.into_store_error("get object");
        match &self.key {
            Some(key) => error.with_key(key),
            None => error,
        }
    }
}
