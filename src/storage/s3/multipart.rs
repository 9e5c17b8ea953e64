//! Multipart uploads. The response to a completion is often ambiguous: it may be an error although the object
//! was created, or a rejection because the object exists. Ambiguous outcomes are resolved by looking at the
//! object.

use std::fmt::Write;

use bytes::Bytes;
use http::{Method, header::ETAG};

use super::{
    super::{
        MultipartId, ObjectInfo, PART_NUMBER_MAX, PART_SIZE_BYTES_MAX, PartReceipt, Payload, PutOptions,
        StorageError, StorageErrorKind,
        object::{check_part, check_part_size, check_parts},
    },
    checksum,
    client::{Client, Request},
    errors::Failure,
    headers,
    objects::{self, attach_body},
    xml,
};
use crate::domain::{checksum::Crc64, object_key::ObjectKey};

const COMPLETE: &str = "complete multipart upload";

/// The minimum size of every part except the last.
const PART_SIZE_BYTES_MIN: u64 = 5 * 1024 * 1024;

fn request(client: &Client, method: Method, key: &ObjectKey) -> Request {
    Request::new(method, client.bucket_of(key), key.as_str())
}

pub(super) async fn start(
    client: &Client,
    key: &ObjectKey,
    part_size_bytes: u64,
    options: &PutOptions,
) -> Result<MultipartId, StorageError> {
    let operation = "start multipart upload";
    check_part_size(part_size_bytes, operation)?;
    if part_size_bytes < PART_SIZE_BYTES_MIN {
        let reason =
            format!("part size is {part_size_bytes} bytes; the minimum for S3 is {PART_SIZE_BYTES_MIN}");
        return Err(StorageError::invalid_input(operation, reason).with_key(key));
    }
    let mut start = request(client, Method::POST, key)
        .query("uploads", "")
        .headers(headers::object_headers(&client.options, options));
    let requests_checksum = client.sends_checksum() && !options.has_presigned_parts;
    if requests_checksum {
        start = checksum::request_whole(start);
    }
    let started = async {
        let response = client.write(start).await?;
        let started: xml::InitiatedUpload =
            xml::parse(&response.body, "malformed result of CreateMultipartUpload")?;
        Ok((response.headers, started))
    };
    let started: Result<_, Failure> = started.await;
    let (headers, started) = started.map_err(|failure| failure.into_error(operation, key))?;
    if requests_checksum {
        checksum::record_support(client, &headers);
    }
    Ok(MultipartId::new(started.upload_id))
}

pub(super) async fn put_part(
    client: &Client,
    key: &ObjectKey,
    id: &MultipartId,
    number: u32,
    body: Payload,
) -> Result<PartReceipt, StorageError> {
    let operation = "put part";
    let size_bytes = body.len_bytes();
    // S3 does not check the agreed part size here; completing the upload does.
    check_part(number, size_bytes, PART_SIZE_BYTES_MAX, operation).map_err(|error| error.with_key(key))?;
    let put = request(client, Method::PUT, key)
        .query("partNumber", number.to_string())
        .query("uploadId", id.as_str());
    let response = client.send(attach_body(client, put, body)).await;
    let response = response
        .map_err(|failure| map_missing_bucket(client, failure).into_multipart_error(operation, key))?;
    client.record_write();
    match response.headers.get(ETAG).and_then(|etag| etag.to_str().ok()) {
        Some(etag) => Ok(PartReceipt { number, size_bytes, etag: etag.to_owned() }),
        None => Err(Failure::InvalidResponse("missing ETag").into_error(operation, key)),
    }
}

/// Maps a missing tenant bucket to a missing upload.
pub(super) fn map_missing_bucket(client: &Client, failure: Failure) -> Failure {
    match objects::is_missing_tenant_bucket(client, &failure) {
        true => Failure::upload_missing(),
        false => failure,
    }
}

pub(super) async fn complete(
    client: &Client,
    key: &ObjectKey,
    id: &MultipartId,
    parts: &[PartReceipt],
    crc64nvme: Option<Crc64>,
) -> Result<ObjectInfo, StorageError> {
    let size_bytes = check_parts(parts, COMPLETE).map_err(|error| error.with_key(key))?;
    let whole = WholeObject { size_bytes, crc64nvme };
    let sent = crc64nvme.filter(|_| checksum::is_supported(client));
    let mut completed = send_complete(client, key, id, parts, sent).await;
    if sent.is_some() && completed.as_ref().is_err_and(checksum::is_refused) {
        // The upload may have been started without a checksum. The reported checksum is compared in any case.
        tracing::debug!(%key, "the store refused the checksum of a whole object");
        completed = send_complete(client, key, id, parts, None).await;
    }
    let failure = match completed {
        Ok(()) => return whole.verify(client, key).await,
        Err(failure) => map_missing_bucket(client, failure),
    };
    let is_ours = match failure.kind() {
        // The object was not created: the parts are invalid, or the store rejected the request.
        StorageErrorKind::PartsDiffer
        | StorageErrorKind::InvalidInput
        | StorageErrorKind::Unavailable
        | StorageErrorKind::NoSpace => false,
        // The key is in use, possibly by an earlier attempt of this upload. In that case the upload no longer
        // exists.
        StorageErrorKind::AlreadyExists => match list_parts(client, key, id).await {
            Err(error) if error.kind == StorageErrorKind::NotFound => true,
            Err(error) => return Err(error),
            Ok(_) => false,
        },
        // The upload is missing or the outcome is unknown. Look at the object: keys are never reused.
        _ => true,
    };
    if is_ours {
        match checksum::head(client, key, COMPLETE).await {
            Ok((info, reported)) if info.size_bytes == size_bytes => {
                return whole.compare(info, reported, key);
            }
            Ok(_) => {}
            Err(error) if error.kind == StorageErrorKind::NotFound => {}
            // The outcome is still unknown. The next attempt checks again.
            Err(error) => return Err(error),
        }
    }
    if sent.is_some() && failure.code() == "BadDigest" {
        return Err(StorageError::new(StorageErrorKind::Damaged, COMPLETE)
            .with_key(key)
            .with_source(Box::new(failure)));
    }
    Err(failure.into_multipart_error(COMPLETE, key))
}

async fn send_complete(
    client: &Client,
    key: &ObjectKey,
    id: &MultipartId,
    parts: &[PartReceipt],
    crc64nvme: Option<Crc64>,
) -> Result<(), Failure> {
    let mut body =
        String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for part in parts {
        // Writing into a String cannot fail.
        let _ = write!(
            body,
            "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag></Part>",
            part.number,
            xml::escape(&part.etag)
        );
    }
    body.push_str("</CompleteMultipartUpload>");
    let mut complete = request(client, Method::POST, key)
        .query("uploadId", id.as_str())
        .header("content-type", "application/xml")
        .body(Payload::from(Bytes::from(body)));
    if client.options.conditional_writes {
        complete = complete.header("if-none-match", "*");
    }
    if let Some(crc64nvme) = crc64nvme {
        complete = checksum::send_whole(complete, crc64nvme);
    }
    let response = client.send(complete).await?;
    xml::parse::<xml::EtagResult>(&response.body, "malformed result of CompleteMultipartUpload").map(|_| ())
}

/// The object that a completion creates.
struct WholeObject {
    size_bytes: u64,
    crc64nvme: Option<Crc64>,
}

impl WholeObject {
    /// Checks the object after a successful completion.
    async fn verify(&self, client: &Client, key: &ObjectKey) -> Result<ObjectInfo, StorageError> {
        let (info, reported) = checksum::head(client, key, COMPLETE).await?;
        if info.size_bytes == self.size_bytes {
            return self.compare(info, reported, key);
        }
        let reason = format!("the object has {} bytes; its parts have {}", info.size_bytes, self.size_bytes);
        Err(StorageError::new(StorageErrorKind::Damaged, COMPLETE).with_key(key).with_source(reason))
    }

    /// Compares the checksum that the store reports, if it reports one.
    fn compare(
        &self,
        info: ObjectInfo,
        reported: Option<Crc64>,
        key: &ObjectKey,
    ) -> Result<ObjectInfo, StorageError> {
        match (self.crc64nvme, reported) {
            (Some(expected), Some(reported)) if expected != reported => {
                let reason = format!("the store reports the checksum {reported}; the parts have {expected}");
                Err(StorageError::new(StorageErrorKind::Damaged, COMPLETE).with_key(key).with_source(reason))
            }
            _ => Ok(info),
        }
    }
}

pub(super) async fn abort(client: &Client, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError> {
    let abort = request(client, Method::DELETE, key).query("uploadId", id.as_str());
    match client.send(abort).await {
        Ok(_) => Ok(()),
        Err(failure)
            if failure.code() == "NoSuchUpload" || objects::is_missing_tenant_bucket(client, &failure) =>
        {
            Ok(())
        }
        Err(failure) => Err(failure.into_error("abort multipart upload", key)),
    }
}

pub(super) async fn list_parts(
    client: &Client,
    key: &ObjectKey,
    id: &MultipartId,
) -> Result<Vec<PartReceipt>, StorageError> {
    let at = |failure: Failure| map_missing_bucket(client, failure).into_multipart_error("list parts", key);
    let mut receipts: Vec<PartReceipt> = Vec::new();
    let mut marker = 0;
    loop {
        let list = request(client, Method::GET, key)
            .query("uploadId", id.as_str())
            .query("part-number-marker", marker.to_string());
        let response = client.send(list).await.map_err(at)?;
        let page: xml::Parts = xml::parse(&response.body, "malformed list of parts").map_err(at)?;
        let parts = page.part.into_iter().map(|part| PartReceipt {
            number: part.part_number,
            size_bytes: part.size,
            etag: part.etag,
        });
        receipts.extend(parts);
        let next = page.next_part_number_marker.or(receipts.last().map(|receipt| receipt.number));
        match next {
            // A marker that does not advance would cause an endless loop.
            Some(next) if page.is_truncated && (marker + 1..=PART_NUMBER_MAX).contains(&next) => {
                marker = next
            }
            _ if page.is_truncated => {
                return Err(at(Failure::InvalidResponse(
                    "a truncated list of parts without a usable marker",
                )));
            }
            _ => return Ok(receipts),
        }
    }
}
