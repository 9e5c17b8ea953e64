//! The CRC-64/NVME of a whole object. It is requested when a multipart upload is started, sent when it is completed,
//! and compared with the one that the store reports.
//!
//! A store that supports it repeats its type in the response to the start. Other stores verify the parts only, which
//! is logged once in a process.

use std::sync::atomic::Ordering;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, StatusCode};

use super::{
    super::{ObjectInfo, StorageError},
    client::{Client, Request},
    errors::Failure,
    objects,
};
use crate::domain::{checksum::Crc64, object_key::ObjectKey};

const VALUE: &str = "x-amz-checksum-crc64nvme";
const TYPE: &str = "x-amz-checksum-type";
const WHOLE: &str = "FULL_OBJECT";

/// Requests a checksum of the whole object for a new multipart upload.
pub(super) fn request_whole(start: Request) -> Request {
    start.header("x-amz-checksum-algorithm", "CRC64NVME").header(TYPE, WHOLE)
}

/// Adds the checksum of the whole object to a completion.
pub(super) fn send_whole(complete: Request, crc64nvme: Crc64) -> Request {
    complete.header(VALUE, &BASE64_STANDARD.encode(crc64nvme.to_be_bytes())).header(TYPE, WHOLE)
}

/// Records whether the store supports the checksum that was requested for a multipart upload.
pub(super) fn record_support(client: &Client, started: &HeaderMap) {
    let is_supported = has_whole_type(started);
    client.takes_whole_checksum.store(is_supported, Ordering::Relaxed);
    if !is_supported && !client.has_logged_checksum.swap(true, Ordering::Relaxed) {
        let bucket = &client.options.bucket;
        tracing::info!(bucket, "the store verifies the checksums of parts, but not that of a whole object");
    }
}

/// Returns whether the store is known to verify the checksum of a whole object.
pub(super) fn is_supported(client: &Client) -> bool {
    client.takes_whole_checksum.load(Ordering::Relaxed)
}

/// Returns whether the store refused the checksum itself, rather than found another one.
pub(super) fn is_refused(failure: &Failure) -> bool {
    let codes = ["InvalidDigest", "InvalidRequest", "InvalidArgument", "NotImplemented"];
    codes.contains(&failure.code()) || failure.status() == Some(StatusCode::NOT_IMPLEMENTED)
}

/// Returns the object with the checksum that the store reports for the whole of it, if it reports one.
pub(super) async fn head(
    client: &Client,
    key: &ObjectKey,
    operation: &'static str,
) -> Result<(ObjectInfo, Option<Crc64>), StorageError> {
    let (info, headers) = objects::head_with(client, key, operation, |request| {
        request.header("x-amz-checksum-mode", "ENABLED")
    })
    .await?;
    Ok((info, reported_whole(&headers)))
}

/// Returns the checksum in the response, unless it is that of the parts' checksums, or of another algorithm.
fn reported_whole(headers: &HeaderMap) -> Option<Crc64> {
    let text = headers.get(VALUE).filter(|_| has_whole_type(headers))?.to_str().ok()?;
    Crc64::from_slice(&BASE64_STANDARD.decode(text).ok()?)
}

fn has_whole_type(headers: &HeaderMap) -> bool {
    headers.get(TYPE).is_some_and(|kind| kind == WHOLE)
}
