//! Deletes many objects with one request (`DeleteObjects`), or one by one in a store that does not know it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::atomic::Ordering,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, StatusCode};

use super::{
    super::{DeletionResults, Payload, StorageError, object::check_delete_batch},
    client::{Client, Request},
    digest,
    errors::Failure,
    objects, versions, xml,
};
use crate::domain::object_key::ObjectKey;

const OPERATION: &str = "delete objects";
/// The number of concurrent requests to a store without batch deletion.
const CONCURRENT_REQUESTS_MAX: usize = 16;

/// The keys that were not deleted. Keys that are not in the map were.
type FailedKeys<'a> = HashMap<&'a str, StorageError>;

pub(super) async fn delete_batch(
    client: &Client,
    keys: &[ObjectKey],
) -> Result<DeletionResults, StorageError> {
    check_delete_batch(keys)?;
    let mut by_bucket: BTreeMap<String, Vec<&ObjectKey>> = BTreeMap::new();
    for key in keys {
        by_bucket.entry(client.bucket_of(key)).or_default().push(key);
    }
    let mut failed = FailedKeys::new();
    for (bucket, keys) in by_bucket {
        failed.extend(delete_in_bucket(client, &bucket, &keys).await);
    }
    Ok(keys.iter().map(|key| failed.remove(key.as_str()).map_or(Ok(()), Err)).collect())
}

async fn delete_in_bucket<'a>(client: &Client, bucket: &str, keys: &[&'a ObjectKey]) -> FailedKeys<'a> {
    if client.lacks_batch_deletion.load(Ordering::Relaxed) {
        return delete_each(client, keys).await;
    }
    match send(client, bucket, keys).await {
        Ok(result) => {
            let hidden = find_hidden(&result, keys);
            let mut failed = find_failed(result, keys);
            // In a bucket that keeps versions. All keys of a batch are usually in this state, or none.
            failed.extend(run_each(&hidden, |key| versions::delete_all(client, key)).await);
            failed
        }
        Err(failure) if objects::is_missing_tenant_bucket(client, &failure) => FailedKeys::new(),
        Err(failure) if is_unsupported(&failure) => {
            tracing::info!(bucket, %failure, "the store has no batch deletion; deleting objects one by one");
            client.lacks_batch_deletion.store(true, Ordering::Relaxed);
            delete_each(client, keys).await
        }
        Err(failure) => {
            let (kind, reason) = (failure.kind(), failure.to_string());
            let error = |key: &ObjectKey| {
                StorageError::new(kind, OPERATION).with_key(key).with_source(reason.clone())
            };
            keys.iter().map(|key| (key.as_str(), error(key))).collect()
        }
    }
}

async fn send(client: &Client, bucket: &str, keys: &[&ObjectKey]) -> Result<xml::DeleteResult, Failure> {
    let mut body = String::from("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for key in keys {
        // Writing into a String cannot fail.
        let _ = write!(body, "<Object><Key>{}</Key></Object>", xml::escape(key.as_str()));
    }
    body.push_str("</Delete>");
    let body = Payload::from(Bytes::from(body));
    // The store requires a checksum, whether the body is signed or not.
    let checksum = BASE64_STANDARD.encode(digest::sha256(&body).await);
    let request = Request::new(Method::POST, bucket, "")
        .query("delete", "")
        .header("content-type", "application/xml")
        .header("x-amz-checksum-sha256", &checksum)
        .body(body);
    let response = client.send(request).await?;
    xml::parse(&response.body, "malformed result of DeleteObjects")
}

/// Returns the keys that the store did not delete. A key that the result does not mention counts as failed.
fn find_failed<'a>(result: xml::DeleteResult, keys: &[&'a ObjectKey]) -> FailedKeys<'a> {
    let unmentioned = |key: &&'a ObjectKey| {
        let failure = Failure::InvalidResponse("the result of DeleteObjects does not mention the key");
        (key.as_str(), failure.into_error(OPERATION, key))
    };
    let mut failed: FailedKeys<'a> = keys.iter().map(unmentioned).collect();
    for entry in result.entries {
        match entry {
            xml::DeletionEntry::Text(_) => {}
            xml::DeletionEntry::Deleted { key, .. } => drop(failed.remove(key.as_str())),
            xml::DeletionEntry::Error { key, code, .. } if code == "NoSuchKey" => {
                failed.remove(key.as_str());
            }
            xml::DeletionEntry::Error { key, code, message } => {
                let Some(key) = keys.iter().find(|known| known.as_str() == key) else { continue };
                // The request succeeded, so the status shows nothing about the key.
                let failure = Failure::Rejected { status: StatusCode::OK, code, message };
                failed.insert(key.as_str(), failure.into_error(OPERATION, key));
            }
        }
    }
    failed
}

/// Returns whether the store does not know this request, or requires an MD5 digest, as only old stores do.
fn is_unsupported(failure: &Failure) -> bool {
    matches!(failure.code(), "NotImplemented" | "MethodNotAllowed" | "MissingContentMD5")
        || matches!(failure.status(), Some(StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED))
}

/// Returns the keys whose bytes are still stored, behind a marker.
fn find_hidden<'a>(result: &xml::DeleteResult, keys: &[&'a ObjectKey]) -> Vec<&'a ObjectKey> {
    let is_hidden = |entry: &xml::DeletionEntry, key: &ObjectKey| matches!(entry, xml::DeletionEntry::Deleted { key: deleted, delete_marker: true } if deleted == key.as_str());
    keys.iter().copied().filter(|key| result.entries.iter().any(|entry| is_hidden(entry, key))).collect()
}

async fn delete_each<'a>(client: &Client, keys: &[&'a ObjectKey]) -> FailedKeys<'a> {
    run_each(keys, |key| objects::delete(client, key)).await
}

/// Runs a deletion for each key, several at the same time.
async fn run_each<'a, F>(keys: &[&'a ObjectKey], delete: impl Fn(&'a ObjectKey) -> F) -> FailedKeys<'a>
where
    F: Future<Output = Result<(), StorageError>>,
{
    let mut failed = FailedKeys::new();
    for chunk in keys.chunks(CONCURRENT_REQUESTS_MAX) {
        let mut deletions = Vec::with_capacity(chunk.len());
        for &key in chunk {
            deletions.push(delete(key));
        }
        for (key, deleted) in chunk.iter().zip(join_all(deletions).await) {
            if let Err(error) = deleted {
                failed.insert(key.as_str(), error);
            }
        }
    }
    failed
}
