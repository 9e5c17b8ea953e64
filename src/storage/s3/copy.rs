//! Copies objects inside the store, in one request or, above the size limit, in parts.

use futures::{StreamExt, TryStreamExt, stream};
use http::Method;

use super::{
    super::{
        MultipartId, ObjectInfo, PART_SIZE_BYTES_MAX, PartReceipt, PutOptions, StorageError,
        StorageErrorKind, object::check_part,
    },
    client::{Client, Request},
    errors::Failure,
    headers, multipart,
    objects::{self, is_missing_tenant_bucket},
    xml,
};
use crate::domain::object_key::ObjectKey;

/// The maximum size of an object that can be copied in one request.
pub(super) const SINGLE_COPY_SIZE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// 1 TiB takes 1,024 parts. The maximum object size of 5 TiB stays below the limit of 10,000 parts.
const COPY_PART_SIZE_BYTES: u64 = 1024 * 1024 * 1024;
const COPY_PARTS_IN_FLIGHT_MAX: usize = 4;
const OPERATION: &str = "copy object";

pub(super) async fn copy(
    client: &Client,
    from: &ObjectKey,
    to: &ObjectKey,
    options: &PutOptions,
    single_copy_size_bytes_max: u64,
) -> Result<ObjectInfo, StorageError> {
    let source = objects::head(client, from, OPERATION).await?;
    if client.options.conditional_writes {
        // Some stores ignore the condition on a copy, so also check beforehand.
        match objects::head(client, to, OPERATION).await {
            Err(error) if error.kind == StorageErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(StorageError::new(StorageErrorKind::AlreadyExists, OPERATION).with_key(to)),
        }
    }
    if source.size_bytes > single_copy_size_bytes_max {
        return copy_in_parts(client, &source, to, options, single_copy_size_bytes_max).await;
    }
    let mut request = Request::new(Method::PUT, client.bucket_of(to), to.as_str())
        .headers(headers::object_headers(&client.options, options))
        .header("x-amz-copy-source", &copy_source(client, from))
        // Otherwise the copy would keep the source's metadata, which may name another owner.
        .header("x-amz-metadata-directive", "REPLACE")
        .header("x-amz-tagging-directive", "REPLACE");
    if client.options.conditional_writes {
        request = request.header("if-none-match", "*");
    }
    let copied = async {
        xml::parse::<xml::EtagResult>(&client.write(request).await?.body, "malformed result of CopyObject")
    };
    match copied.await {
        Ok(_) => objects::head(client, to, OPERATION).await,
        Err(failure) if is_missing_tenant_bucket(client, &failure) => {
            Err(StorageError::new(StorageErrorKind::NotFound, OPERATION).with_key(from))
        }
        Err(failure) => Err(failure.into_error(OPERATION, to)),
    }
}

fn copy_source(client: &Client, key: &ObjectKey) -> String {
    format!("/{}/{key}", client.bucket_of(key))
}

/// Copies in parts. A failed copy aborts its upload; one interrupted by a crash is swept like any other.
async fn copy_in_parts(
    client: &Client,
    source: &ObjectInfo,
    to: &ObjectKey,
    options: &PutOptions,
    single_copy_size_bytes_max: u64,
) -> Result<ObjectInfo, StorageError> {
    let part_size_bytes = COPY_PART_SIZE_BYTES.min(single_copy_size_bytes_max);
    let id = multipart::start(client, to, part_size_bytes, options).await?;
    let copied = async {
        let starts = (0..source.size_bytes).step_by(usize::try_from(part_size_bytes).unwrap_or(usize::MAX));
        let parts = starts.zip(1..).map(|(start, number)| {
            let end = source.size_bytes.min(start + part_size_bytes);
            copy_part(client, &source.key, to, &id, number, start..end)
        });
        let receipts: Vec<PartReceipt> =
            stream::iter(parts).buffered(COPY_PARTS_IN_FLIGHT_MAX).try_collect().await?;
        multipart::complete(client, to, &id, &receipts, None).await
    };
    match copied.await {
        Ok(info) => Ok(info),
        Err(error) => {
            if let Err(abort) = multipart::abort(client, to, &id).await {
                tracing::warn!(key = %to, error = %abort, "failed to abort the upload of a failed copy");
            }
            Err(error)
        }
    }
}

/// Copies a whole object into a part of an upload, whose size is at most [`PART_SIZE_BYTES_MAX`]. Stores that are
/// asked for a range refuse small objects, so none is sent.
pub(super) async fn copy_whole_part(
    client: &Client,
    key: &ObjectKey,
    id: &MultipartId,
    number: u32,
    from: &ObjectInfo,
) -> Result<PartReceipt, StorageError> {
    let operation = "copy part";
    check_part(number, from.size_bytes, PART_SIZE_BYTES_MAX, operation)
        .map_err(|error| error.with_key(key))?;
    match send_copy_part(client, &from.key, key, id, number, None).await {
        Ok(etag) => Ok(PartReceipt { number, size_bytes: from.size_bytes, etag }),
        Err(failure) if matches!(failure.code(), "NoSuchKey" | "InvalidRange") => {
            Err(StorageError::new(StorageErrorKind::Damaged, operation)
                .with_key(&from.key)
                .with_source(Box::new(failure)))
        }
        Err(failure) => {
            Err(multipart::map_missing_bucket(client, failure).into_multipart_error(operation, key))
        }
    }
}

async fn copy_part(
    client: &Client,
    from: &ObjectKey,
    to: &ObjectKey,
    id: &MultipartId,
    number: u32,
    range: std::ops::Range<u64>,
) -> Result<PartReceipt, StorageError> {
    let size_bytes = range.end - range.start;
    let etag = send_copy_part(client, from, to, id, number, Some(range)).await;
    let etag = etag.map_err(|failure| failure.into_error(OPERATION, to))?;
    Ok(PartReceipt { number, size_bytes, etag })
}

/// Copies an object, or a range of it, into a part. Returns the etag of the part.
async fn send_copy_part(
    client: &Client,
    from: &ObjectKey,
    to: &ObjectKey,
    id: &MultipartId,
    number: u32,
    range: Option<std::ops::Range<u64>>,
) -> Result<String, Failure> {
    let mut request = Request::new(Method::PUT, client.bucket_of(to), to.as_str())
        .query("partNumber", number.to_string())
        .query("uploadId", id.as_str())
        .header("x-amz-copy-source", &copy_source(client, from));
    if let Some(range) = range {
        request =
            request.header("x-amz-copy-source-range", &format!("bytes={}-{}", range.start, range.end - 1));
    }
    let response = client.send(request).await?;
    let made: xml::EtagResult = xml::parse(&response.body, "malformed result of UploadPartCopy")?;
    Ok(made.etag)
}
