//! Listings. `object_store` is not used here, because its listing fails as a whole if a name is not a valid
//! path. Here, names that are not an `ObjectKey` are skipped.
//!
//! With a bucket per tenant, buckets are visited in the order of their tenants. This is also the order of the
//! keys if all keys have the same prefix, which the configuration ensures.

use http::Method;

use super::{
    super::{ListPage, MultipartId, MultipartInfo, MultipartPage, ObjectInfo, StorageError},
    client::{Client, Request},
    errors::Failure,
    objects::is_missing_tenant_bucket,
    xml,
};
use crate::domain::{ids::TenantId, object_key::ObjectKey};

/// The maximum page length of S3.
const PAGE_LENGTH_MAX: usize = 1_000;

/// A page of one bucket: its items, and the marker of the next page if there is one.
struct Page<T, M> {
    items: Vec<T>,
    next: Option<M>,
}

/// The last upload of a page.
struct UploadMarker {
    key: String,
    /// Empty if all uploads of the key have been listed.
    id: String,
}

pub(super) async fn list_objects(
    client: &Client,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: usize,
) -> Result<ListPage, StorageError> {
    let at = |failure: Failure| failure.into_store_error("list objects");
    let mut objects: Vec<ObjectInfo> = Vec::new();
    for bucket in find_buckets(client, prefix, after).await.map_err(at)? {
        let mut marker = after.map(|key| key.as_str().to_owned());
        loop {
            if objects.len() >= limit {
                return Ok(ListPage { objects, is_last: false });
            }
            let wanted = limit - objects.len();
            let page =
                fetch_objects_page(client, &bucket, prefix, marker.as_deref(), wanted).await.map_err(at)?;
            objects.extend(page.items);
            match page.next {
                Some(next) => marker = Some(next),
                None => break,
            }
        }
    }
    Ok(ListPage { objects, is_last: true })
}

async fn fetch_objects_page(
    client: &Client,
    bucket: &str,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<ObjectInfo, String>, Failure> {
    let mut request = Request::new(Method::GET, bucket, "")
        .query("list-type", "2")
        .query("prefix", prefix)
        .query("max-keys", limit.min(PAGE_LENGTH_MAX).to_string());
    if let Some(after) = after {
        request = request.query("start-after", after);
    }
    let response = match client.send(request).await {
        Err(failure) if is_missing_tenant_bucket(client, &failure) => {
            return Ok(Page { items: Vec::new(), next: None });
        }
        response => response?,
    };
    let page: xml::Objects = xml::parse(&response.body, "malformed list of objects")?;
    let next = next_marker(page.is_truncated, page.contents.last().map(|object| object.key.clone()))?;
    let ours = |object: xml::Object| {
        let key = ObjectKey::parse(&object.key).ok()?;
        Some(ObjectInfo { key, size_bytes: object.size, modify_time: object.last_modified })
    };
    Ok(Page { items: page.contents.into_iter().filter_map(ours).collect(), next })
}

pub(super) async fn list_multiparts(
    client: &Client,
    prefix: &str,
    after: Option<&MultipartInfo>,
    limit: usize,
) -> Result<MultipartPage, StorageError> {
    let at = |failure: Failure| failure.into_store_error("list multipart uploads");
    let mut multiparts: Vec<MultipartInfo> = Vec::new();
    for bucket in find_buckets(client, prefix, after.map(|info| &info.key)).await.map_err(at)? {
        let mut marker =
            after.map(|info| UploadMarker { key: info.key.to_string(), id: info.id.to_string() });
        loop {
            if multiparts.len() >= limit {
                return Ok(MultipartPage { multiparts, is_last: false });
            }
            let wanted = limit - multiparts.len();
            let page =
                fetch_multiparts_page(client, &bucket, prefix, marker.as_ref(), wanted).await.map_err(at)?;
            multiparts.extend(page.items);
            match page.next {
                Some(next) => marker = Some(next),
                None => break,
            }
        }
    }
    Ok(MultipartPage { multiparts, is_last: true })
}

async fn fetch_multiparts_page(
    client: &Client,
    bucket: &str,
    prefix: &str,
    after: Option<&UploadMarker>,
    limit: usize,
) -> Result<Page<MultipartInfo, UploadMarker>, Failure> {
    let mut request = Request::new(Method::GET, bucket, "")
        .query("uploads", "")
        .query("prefix", prefix)
        .query("max-uploads", limit.min(PAGE_LENGTH_MAX).to_string());
    if let Some(UploadMarker { key, id }) = after {
        request = request.query("key-marker", key);
        if !id.is_empty() {
            request = request.query("upload-id-marker", id);
        }
    }
    let response = match client.send(request).await {
        Err(failure) if is_missing_tenant_bucket(client, &failure) => {
            return Ok(Page { items: Vec::new(), next: None });
        }
        response => response?,
    };
    let page: xml::Uploads = xml::parse(&response.body, "malformed list of uploads")?;
    let next = next_marker(page.is_truncated, upload_marker(&page))?;
    let ours = |upload: xml::Upload| {
        let key = ObjectKey::parse(&upload.key).ok()?;
        Some(MultipartInfo { key, id: MultipartId::new(upload.upload_id), start_time: upload.initiated })
    };
    let mut items: Vec<_> = page.upload.into_iter().filter_map(ours).collect();
    // Garage returns pages in order, but the entries of a page are unordered. The uploads of one key keep the
    // store's order.
    items.sort_by(|left, right| left.key.cmp(&right.key));
    Ok(Page { items, next })
}

fn upload_marker(page: &xml::Uploads) -> Option<UploadMarker> {
    let has_marker = !page.next_key_marker.is_empty();
    has_marker
        .then(|| UploadMarker { key: page.next_key_marker.clone(), id: page.next_upload_id_marker.clone() })
}

/// Returns the marker of the next page. A truncated page without a marker is invalid: treating it as the last
/// page would hide objects.
fn next_marker<M>(is_truncated: bool, last: Option<M>) -> Result<Option<M>, Failure> {
    match (is_truncated, last) {
        (false, _) => Ok(None),
        (true, Some(last)) => Ok(Some(last)),
        (true, None) => Err(Failure::InvalidResponse("a truncated page without a marker")),
    }
}

/// Lists the buckets that can contain matches after `after`.
async fn find_buckets(
    client: &Client,
    prefix: &str,
    after: Option<&ObjectKey>,
) -> Result<Vec<String>, Failure> {
    if !client.options.bucket_per_tenant {
        return client.list_buckets().await;
    }
    // A segment that is an id may be a tenant id or part of the common key prefix. Check whether its bucket
    // exists.
    for bucket in parse_tenant_ids(prefix).map(|tenant| client.bucket_of_tenant(tenant)) {
        if client.has_bucket(&bucket).await? {
            return Ok(vec![bucket]);
        }
    }
    let mut buckets = client.list_buckets().await?;
    if let Some(after) = after {
        let reached = client.bucket_of_tenant(after.tenant());
        buckets.retain(|bucket| *bucket >= reached);
    }
    Ok(buckets)
}

/// Returns the complete segments that are ids, the last one first.
fn parse_tenant_ids(prefix: &str) -> impl Iterator<Item = TenantId> + '_ {
    let whole = prefix.rsplit_once('/').map_or("", |(whole, _)| whole);
    whole.rsplit('/').filter_map(|segment| segment.parse().ok())
}
