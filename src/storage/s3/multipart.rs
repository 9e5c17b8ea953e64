//! Objects in parts. Completing is where stores are least clear: the answer may be an error although the object
//! is there, or a refusal because it is there. So whatever is not plain is settled by looking.

use std::fmt::Write;

use bytes::Bytes;
use http::{Method, header::ETAG};

use super::{
    super::{
        MultipartId, ObjectInfo, PART_NUMBER_MAX, PART_SIZE_BYTES_MAX, PartReceipt, Payload, PutOptions,
        StorageError, StorageErrorKind,
        object::{check_part, check_part_size, check_parts},
    },
    client::{Call, Client},
    errors::Failure,
    headers,
    objects::{self, with_body},
    xml,
};
use crate::domain::object_key::ObjectKey;

/// No part but the last may be smaller.
const PART_SIZE_BYTES_MIN: u64 = 5 * 1024 * 1024;

fn call(client: &Client, method: Method, key: &ObjectKey) -> Call {
    Call::new(method, client.bucket_of(key), key.as_str())
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
        let reason = format!("a part of {part_size_bytes} bytes; S3 wants {PART_SIZE_BYTES_MIN} or more");
        return Err(StorageError::invalid(operation, reason).with_key(key));
    }
    let mut start = call(client, Method::POST, key)
        .query("uploads", "")
        .headers(headers::of_object(&client.options, options));
    if client.sends_checksum() && !options.has_parts_by_url {
        start = start
            .header("x-amz-checksum-algorithm", "CRC64NVME")
            .header("x-amz-checksum-type", "FULL_OBJECT");
    }
    let started = async { xml::parse::<xml::Started>(&client.write(start).await?.body, "a new upload") };
    let started = started.await.map_err(|failure| failure.into_error(operation, key))?;
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
    // The size that was agreed on is the caller's to keep; completing finds out.
    check_part(number, size_bytes, PART_SIZE_BYTES_MAX, operation).map_err(|error| error.with_key(key))?;
    let put =
        call(client, Method::PUT, key).query("partNumber", number.to_string()).query("uploadId", id.as_str());
    let answer = client.send(with_body(client, put, body)).await;
    let answer = answer.map_err(|failure| of_upload(client, failure).into_error(operation, key))?;
    client.note_write();
    match answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok()) {
        Some(etag) => Ok(PartReceipt { number, size_bytes, etag: etag.to_owned() }),
        None => Err(Failure::Garbled("a part without an etag").into_error(operation, key)),
    }
}

/// An upload cannot be in a bucket that is not there.
fn of_upload(client: &Client, failure: Failure) -> Failure {
    match objects::is_new_tenant(client, &failure) {
        true => Failure::upload_missing(),
        false => failure,
    }
}

pub(super) async fn complete(
    client: &Client,
    key: &ObjectKey,
    id: &MultipartId,
    parts: &[PartReceipt],
) -> Result<ObjectInfo, StorageError> {
    let operation = "complete multipart upload";
    let size_bytes = check_parts(parts, operation).map_err(|error| error.with_key(key))?;
    let failure = match send_complete(client, key, id, parts).await {
        Ok(()) => return made(client, key, size_bytes).await,
        Err(failure) => of_upload(client, failure),
    };
    let is_ours = match failure.kind() {
        // Nothing was made: the answer is about the parts, or the store turned us away at the door.
        StorageErrorKind::InvalidInput | StorageErrorKind::Unavailable | StorageErrorKind::NoSpace => false,
        // Somebody has the key. It may be ourselves, by an earlier attempt: then our upload is gone.
        StorageErrorKind::AlreadyExists => match list_parts(client, key, id).await {
            Err(error) if error.kind == StorageErrorKind::NotFound => true,
            Err(error) => return Err(error),
            Ok(_) => false,
        },
        // No such upload, or nobody knows: the object tells. Keys are minted once.
        _ => true,
    };
    if is_ours {
        match objects::head(client, key, operation).await {
            Ok(info) if info.size_bytes == size_bytes => return Ok(info),
            Ok(_) => {}
            Err(error) if error.kind == StorageErrorKind::NotFound => {}
            // What became of it is still not known. The next attempt looks again.
            Err(error) => return Err(error),
        }
    }
    Err(failure.into_error(operation, key))
}

async fn send_complete(
    client: &Client,
    key: &ObjectKey,
    id: &MultipartId,
    parts: &[PartReceipt],
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
    let mut complete = call(client, Method::POST, key)
        .query("uploadId", id.as_str())
        .header("content-type", "application/xml")
        .body(Payload::from(Bytes::from(body)));
    if client.options.conditional_writes {
        complete = complete.header("if-none-match", "*");
    }
    let answer = client.send(complete).await?;
    xml::parse::<xml::Made>(&answer.body, "a completed upload").map(|_| ())
}

/// The object that a plain answer has promised.
async fn made(client: &Client, key: &ObjectKey, size_bytes: u64) -> Result<ObjectInfo, StorageError> {
    let operation = "complete multipart upload";
    let info = objects::head(client, key, operation).await?;
    if info.size_bytes == size_bytes {
        return Ok(info);
    }
    let reason = format!("the object has {} bytes, its parts {size_bytes}", info.size_bytes);
    Err(StorageError::new(StorageErrorKind::Damaged, operation).with_key(key).with_source(reason))
}

pub(super) async fn abort(client: &Client, key: &ObjectKey, id: &MultipartId) -> Result<(), StorageError> {
    let abort = call(client, Method::DELETE, key).query("uploadId", id.as_str());
    match client.send(abort).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.code() == "NoSuchUpload" || objects::is_new_tenant(client, &failure) => {
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
    let at = |failure: Failure| of_upload(client, failure).into_error("list parts", key);
    let mut receipts: Vec<PartReceipt> = Vec::new();
    let mut marker = 0;
    loop {
        let list = call(client, Method::GET, key)
            .query("uploadId", id.as_str())
            .query("part-number-marker", marker.to_string());
        let answer = client.send(list).await.map_err(at)?;
        let page: xml::Parts = xml::parse(&answer.body, "a list of parts").map_err(at)?;
        let parts = page.part.into_iter().map(|part| PartReceipt {
            number: part.part_number,
            size_bytes: part.size,
            etag: part.etag,
        });
        receipts.extend(parts);
        let next = page.next_part_number_marker.or(receipts.last().map(|receipt| receipt.number));
        match next {
            // A marker that does not move would never end.
            Some(next) if page.is_truncated && (marker + 1..=PART_NUMBER_MAX).contains(&next) => {
                marker = next
            }
            _ if page.is_truncated => return Err(at(Failure::Garbled("a page of parts without an end"))),
            _ => return Ok(receipts),
        }
    }
}
