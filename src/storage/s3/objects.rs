//! Objects in one piece: written, looked at, read, removed.

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
        check_range,
    },
    client::{Call, Client},
    digest,
    errors::Failure,
    headers,
};
use crate::domain::{clock::Timestamp, object_key::ObjectKey};

pub(super) async fn put(
    client: &Client,
    key: &ObjectKey,
    body: Payload,
    options: &PutOptions,
) -> Result<ObjectInfo, StorageError> {
    let size_bytes = body.len_bytes();
    let mut call = Call::new(Method::PUT, client.bucket_of(key), key.as_str())
        .headers(headers::of_object(&client.options, options));
    if client.options.conditional_writes {
        call = call.header("if-none-match", "*");
    }
    let answer = client.write(with_body(client, call, body)).await;
    let answer = answer.map_err(|failure| failure.into_error("put object", key))?;
    client.note_write();
    match time(&answer.headers, DATE) {
        Some(modify_time) => Ok(ObjectInfo { key: key.clone(), size_bytes, modify_time }),
        None => head(client, key, "put object").await,
    }
}

/// With a checksum, where the signature does not cover the bytes.
pub(super) fn with_body(client: &Client, call: Call, body: Payload) -> Call {
    let call = match client.sends_checksum() {
        true => call.header("x-amz-checksum-crc64nvme", &digest::crc64_nvme(&body)),
        false => call,
    };
    call.body(body)
}

pub(super) async fn head(
    client: &Client,
    key: &ObjectKey,
    operation: &'static str,
) -> Result<ObjectInfo, StorageError> {
    let bucket = client.bucket_of(key);
    let answer = match client.send(Call::new(Method::HEAD, &bucket, key.as_str())).await {
        Ok(answer) => answer,
        Err(failure) => {
            return Err(client.explain_absence(failure, &bucket).await.into_error(operation, key));
        }
    };
    let size_bytes =
        answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match (size_bytes, time(&answer.headers, LAST_MODIFIED)) {
        (Some(size_bytes), Some(modify_time)) => Ok(ObjectInfo { key: key.clone(), size_bytes, modify_time }),
        _ => Err(Failure::Garbled("an object without size or time").into_error(operation, key)),
    }
}

fn time(headers: &HeaderMap, name: HeaderName) -> Option<Timestamp> {
    let text = headers.get(name)?.to_str().ok()?;
    chrono::DateTime::parse_from_rfc2822(text).ok().map(Timestamp::from)
}

pub(super) async fn delete(client: &Client, key: &ObjectKey) -> Result<(), StorageError> {
    match client.send(Call::new(Method::DELETE, client.bucket_of(key), key.as_str())).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.code() == "NoSuchKey" || is_new_tenant(client, &failure) => Ok(()),
        Err(failure) => Err(failure.into_error("delete object", key)),
    }
}

/// Whose bucket is not made yet: there is nothing in it.
pub(super) fn is_new_tenant(client: &Client, failure: &Failure) -> bool {
    client.options.bucket_per_tenant && failure.code() == "NoSuchBucket"
}

pub(super) async fn get(
    client: &Client,
    key: &ObjectKey,
    range: Range<u64>,
) -> Result<ByteStream, StorageError> {
    let operation = "get object";
    if range.start >= range.end {
        // No range header can ask for nothing.
        let size_bytes = head(client, key, operation).await?.size_bytes;
        check_range(&range, size_bytes, operation).map_err(|error| error.with_key(key))?;
        return Ok(stream::empty().boxed());
    }
    let call = Call::new(Method::GET, client.bucket_of(key), key.as_str())
        .header("range", &format!("bytes={}-{}", range.start, range.end - 1));
    let response = match client.begin(call).await {
        Ok(response) => response,
        Err(failure) if is_new_tenant(client, &failure) => {
            return Err(StorageError::new(StorageErrorKind::NotFound, operation).with_key(key));
        }
        Err(failure) => return Err(failure.into_error(operation, key)),
    };
    let at = |what| Failure::Garbled(what).into_error(operation, key);
    let (served, size_bytes) = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            content_range(response.headers()).ok_or_else(|| at("a part of an object without its place"))?
        }
        // A store that knows no ranges sends all.
        _ => {
            let size_bytes = response.headers().get(CONTENT_LENGTH);
            let size_bytes = size_bytes.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            size_bytes.map(|size_bytes| (0..size_bytes, size_bytes)).ok_or_else(|| at("no length"))?
        }
    };
    check_range(&range, size_bytes, operation).map_err(|error| error.with_key(key))?;
    if served != range {
        return Err(at("another range than was asked for"));
    }
    Ok(pieces(response.into_body(), Some(key.clone()), range.end - range.start))
}

/// `bytes 0-9/100`
fn content_range(headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes ")?;
    let (range, size_bytes) = text.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    Some((first.parse().ok()?..end, size_bytes.parse().ok()?))
}

struct Pieces {
    body: HttpResponseBody,
    /// None of an object that is not ours: its name is not to be repeated.
    key: Option<ObjectKey>,
    remaining_bytes: u64,
    /// What came in one frame and was too large for one piece.
    rest: Bytes,
}

/// Exactly so many bytes, or an error that a further attempt may mend.
pub(super) fn pieces(body: HttpResponseBody, key: Option<ObjectKey>, size_bytes: u64) -> ByteStream {
    let pieces = Pieces { body, key, remaining_bytes: size_bytes, rest: Bytes::new() };
    stream::try_unfold(pieces, Pieces::next).boxed()
}

impl Pieces {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, StorageError> {
        while self.rest.is_empty() {
            match self.body.frame().await {
                None if self.remaining_bytes == 0 => return Ok(None),
                None => return Err(self.failed(Failure::Garbled("fewer bytes than announced"))),
                Some(Err(error)) => return Err(self.failed(Failure::Http(error))),
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE_SIZE_BYTES_MAX));
        match self.remaining_bytes.checked_sub(piece.len() as u64) {
            Some(remaining_bytes) => self.remaining_bytes = remaining_bytes,
            None => return Err(self.failed(Failure::Garbled("more bytes than announced"))),
        }
        Ok(Some((piece, self)))
    }

    fn failed(&self, failure: Failure) -> StorageError {
        let error = failure.into_error_of_store("get object");
        match &self.key {
            Some(key) => error.with_key(key),
            None => error,
        }
    }
}
