//! Copies inside the store: in one call, or above its limit in parts.

use futures::{StreamExt, TryStreamExt, stream};
use http::Method;

use super::{
    super::{MultipartId, ObjectInfo, PartReceipt, PutOptions, StorageError, StorageErrorKind},
    client::{Call, Client},
    errors::Failure,
    headers, multipart,
    objects::{self, is_new_tenant},
    xml,
};
use crate::domain::object_key::ObjectKey;

/// The largest object that is copied in one call.
pub(super) const SINGLE_COPY_SIZE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// A terabyte is a thousand of them; the largest object, of 5 TiB, stays below 10,000 parts.
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
        // Not every store heeds the condition on a copy, so it is also asked for beforehand.
        match objects::head(client, to, OPERATION).await {
            Err(error) if error.kind == StorageErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(StorageError::new(StorageErrorKind::AlreadyExists, OPERATION).with_key(to)),
        }
    }
    if source.size_bytes > single_copy_size_bytes_max {
        return copy_in_parts(client, &source, to, options, single_copy_size_bytes_max).await;
    }
    let mut call = Call::new(Method::PUT, client.bucket_of(to), to.as_str())
        .headers(headers::of_object(&client.options, options))
        .header("x-amz-copy-source", &address(client, from))
        // Else the metadata of the source would stay, which may name another owner.
        .header("x-amz-metadata-directive", "REPLACE")
        .header("x-amz-tagging-directive", "REPLACE");
    if client.options.conditional_writes {
        call = call.header("if-none-match", "*");
    }
    let made = async { xml::parse::<xml::Made>(&client.write(call).await?.body, "a copied object") };
    match made.await {
        Ok(_) => objects::head(client, to, OPERATION).await,
        Err(failure) if is_new_tenant(client, &failure) => {
            Err(StorageError::new(StorageErrorKind::NotFound, OPERATION).with_key(from))
        }
        Err(failure) => Err(failure.into_error(OPERATION, to)),
    }
}

fn address(client: &Client, key: &ObjectKey) -> String {
    format!("/{}/{key}", client.bucket_of(key))
}

/// An upload that fails half way is given up here; one that a crash cuts off is swept like any other.
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
        multipart::complete(client, to, &id, &receipts).await
    };
    match copied.await {
        Ok(info) => Ok(info),
        Err(error) => {
            if let Err(abort) = multipart::abort(client, to, &id).await {
                tracing::warn!(key = %to, error = %abort, "the upload of a failed copy stays until it is swept");
            }
            Err(error)
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
    let call = Call::new(Method::PUT, client.bucket_of(to), to.as_str())
        .query("partNumber", number.to_string())
        .query("uploadId", id.as_str())
        .header("x-amz-copy-source", &address(client, from))
        .header("x-amz-copy-source-range", &format!("bytes={}-{}", range.start, range.end - 1));
    let copied = async {
        let answer = client.send(call).await?;
        xml::parse::<xml::Made>(&answer.body, "a copied part")
    };
    let copied: Result<xml::Made, Failure> = copied.await;
    let made = copied.map_err(|failure| failure.into_error(OPERATION, to))?;
    Ok(PartReceipt { number, size_bytes: range.end - range.start, etag: made.etag })
}
