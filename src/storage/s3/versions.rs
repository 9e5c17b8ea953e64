//! Buckets that keep versions. There, a deletion only hides an object behind a marker, and its bytes stay. The
//! response to the deletion says so; all versions of the object are then deleted by their names. Keys are never
//! reused, so every version of a key is ours: the object itself, and copies of it that a repeated write left.
//!
//! A version that the store protects against deletion (an object lock, or missing permissions) stays hidden. This is
//! logged once in a process, and `storage init` and `storage status` report it.

use std::sync::atomic::Ordering;

use http::{HeaderMap, Method, StatusCode};

use super::{
    super::{BucketProtection, StorageError},
    client::{Client, Request},
    errors::Failure,
    xml,
};
use crate::domain::object_key::ObjectKey;

const OPERATION: &str = "delete object";
/// The most buckets that are examined. With a bucket per tenant, they usually have the same settings.
const BUCKETS_EXAMINED_MAX: usize = 100;

/// Returns whether a deletion created a marker instead of deleting the bytes.
pub(super) fn is_only_hidden(deleted: &HeaderMap) -> bool {
    deleted.get("x-amz-delete-marker").is_some_and(|value| value == "true")
}

/// Deletes every version of an object, and the markers last, so that the object stays hidden in the meantime.
pub(super) async fn delete_all(client: &Client, key: &ObjectKey) -> Result<(), StorageError> {
    let deleted = async {
        let found = list(client, key).await?;
        for id in found.versions {
            delete_version(client, key, id).await?;
        }
        for id in found.markers {
            delete_version(client, key, id).await?;
        }
        Ok(())
    };
    match deleted.await {
        Ok(()) => Ok(()),
        Err(failure) if is_protected(&failure) => {
            if !client.has_logged_versions.swap(true, Ordering::Relaxed) {
                tracing::warn!(%key, %failure, "the store keeps versions of deleted objects; see `strongroom storage status`");
            }
            Ok(())
        }
        Err(failure) => Err(failure.into_error(OPERATION, key)),
    }
}

/// Returns whether the store does not let us list or delete versions.
fn is_protected(failure: &Failure) -> bool {
    matches!(failure.status(), Some(StatusCode::FORBIDDEN | StatusCode::NOT_IMPLEMENTED))
}

/// The ids of the versions of one object.
#[derive(Default)]
struct VersionIds {
    versions: Vec<String>,
    markers: Vec<String>,
}

async fn list(client: &Client, key: &ObjectKey) -> Result<VersionIds, Failure> {
    let mut found = VersionIds::default();
    let mut marker: Option<(String, String)> = None;
    loop {
        let mut request = Request::new(Method::GET, client.bucket_of(key), "")
            .query("versions", "")
            .query("prefix", key.as_str());
        if let Some((key_marker, id_marker)) = &marker {
            request = request.query("key-marker", key_marker).query("version-id-marker", id_marker);
        }
        let response = client.send(request).await?;
        let page: xml::Versions = xml::parse(&response.body, "malformed list of versions")?;
        let (mut is_truncated, mut next) = (false, (String::new(), String::new()));
        for element in page.elements {
            match element {
                xml::VersionsElement::IsTruncated(truncated) => is_truncated = truncated,
                xml::VersionsElement::NextKeyMarker(key) => next.0 = key,
                xml::VersionsElement::NextVersionIdMarker(id) => next.1 = id,
                xml::VersionsElement::Version(version) if version.key == key.as_str() => {
                    found.versions.push(version.version_id);
                }
                xml::VersionsElement::DeleteMarker(version) if version.key == key.as_str() => {
                    found.markers.push(version.version_id);
                }
                _ => {}
            }
        }
        // The key is the first one with this prefix, so a page that ends at another key has all of its versions.
        if !is_truncated || next.0 != key.as_str() {
            return Ok(found);
        }
        if marker.as_ref() == Some(&next) {
            return Err(Failure::InvalidResponse("a truncated list of versions without a usable marker"));
        }
        marker = Some(next);
    }
}

async fn delete_version(client: &Client, key: &ObjectKey, id: String) -> Result<(), Failure> {
    let request = Request::new(Method::DELETE, client.bucket_of(key), key.as_str()).query("versionId", id);
    match client.send(request).await {
        Ok(_) => Ok(()),
        Err(failure) if matches!(failure.code(), "NoSuchKey" | "NoSuchVersion") => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// Lists the buckets that keep the bytes of deleted objects.
pub(super) async fn list_protections(client: &Client) -> Result<Vec<BucketProtection>, StorageError> {
    let at = |failure: Failure| failure.into_store_error("list bucket protections");
    let mut protections = Vec::new();
    for bucket in client.list_buckets().await.map_err(at)?.into_iter().take(BUCKETS_EXAMINED_MAX) {
        protections.extend(find_protection(client, bucket).await.map_err(at)?);
    }
    Ok(protections)
}

/// Returns the settings of a bucket that keep the bytes of deleted objects, or `None` if there are none.
pub(super) async fn find_protection(
    client: &Client,
    bucket: String,
) -> Result<Option<BucketProtection>, Failure> {
    let protection = BucketProtection {
        has_versions: has_versions(client, &bucket).await?,
        has_object_lock: has_object_lock(client, &bucket).await?,
        bucket,
    };
    Ok((protection.has_versions || protection.has_object_lock).then_some(protection))
}

/// Returns whether the bucket has versions, also of former objects if versioning is suspended.
async fn has_versions(client: &Client, bucket: &str) -> Result<bool, Failure> {
    let Some(body) = get_setting(client, bucket, "versioning").await? else { return Ok(false) };
    let versioning: xml::Versioning = xml::parse(&body, "malformed versioning of bucket")?;
    Ok(!versioning.status.is_empty())
}

async fn has_object_lock(client: &Client, bucket: &str) -> Result<bool, Failure> {
    let Some(body) = get_setting(client, bucket, "object-lock").await? else { return Ok(false) };
    let lock: xml::ObjectLock = xml::parse(&body, "malformed object lock of bucket")?;
    Ok(lock.object_lock_enabled == "Enabled")
}

/// Returns a setting of a bucket, or `None` if the bucket does not have it, or if the store does not support it or
/// denies access to it.
async fn get_setting(
    client: &Client,
    bucket: &str,
    name: &'static str,
) -> Result<Option<bytes::Bytes>, Failure> {
    match client.send(Request::new(Method::GET, bucket, "").query(name, "")).await {
        Ok(response) => Ok(Some(response.body)),
        Err(failure) if failure.code() == "NoSuchBucket" => Err(failure),
        Err(failure) => match failure.status() {
            Some(
                StatusCode::NOT_FOUND
                | StatusCode::NOT_IMPLEMENTED
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::FORBIDDEN
                | StatusCode::BAD_REQUEST,
            ) => Ok(None),
            _ => Err(failure),
        },
    }
}
