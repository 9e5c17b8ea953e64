//! Listings. Ours rather than `object_store`'s, whose listing fails as a whole on a name that is none of its
//! paths; here foreign names are left out.
//!
//! With a bucket per tenant the buckets are walked in the order of their tenants. That is the order of the keys
//! as long as all have one prefix, which is what configuration gives them.

use http::Method;

use super::{
    super::{ListPage, MultipartId, MultipartInfo, MultipartPage, ObjectInfo, StorageError},
    client::{Call, Client},
    errors::Failure,
    objects::is_new_tenant,
    xml,
};
use crate::domain::{ids::TenantId, object_key::ObjectKey};

/// No store gives longer pages.
const PAGE_LENGTH_MAX: usize = 1_000;

/// A page of one bucket: what is ours of it, and where to go on, if there is more.
struct Page<T, M> {
    items: Vec<T>,
    next: Option<M>,
}

pub(super) async fn objects(
    client: &Client,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: usize,
) -> Result<ListPage, StorageError> {
    let at = |failure: Failure| failure.into_error_of_store("list objects");
    let mut objects: Vec<ObjectInfo> = Vec::new();
    for bucket in buckets(client, prefix, after).await.map_err(at)? {
        let mut marker = after.map(|key| key.as_str().to_owned());
        loop {
            if objects.len() >= limit {
                return Ok(ListPage { objects, is_last: false });
            }
            let wanted = limit - objects.len();
            let page = objects_page(client, &bucket, prefix, marker.as_deref(), wanted).await.map_err(at)?;
            objects.extend(page.items);
            match page.next {
                Some(next) => marker = Some(next),
                None => break,
            }
        }
    }
    Ok(ListPage { objects, is_last: true })
}

async fn objects_page(
    client: &Client,
    bucket: &str,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<ObjectInfo, String>, Failure> {
    let mut call = Call::new(Method::GET, bucket, "")
        .query("list-type", "2")
        .query("prefix", prefix)
        .query("max-keys", limit.min(PAGE_LENGTH_MAX).to_string());
    if let Some(after) = after {
        call = call.query("start-after", after);
    }
    let answer = match client.send(call).await {
        Err(failure) if is_new_tenant(client, &failure) => return Ok(Page { items: Vec::new(), next: None }),
        answer => answer?,
    };
    let page: xml::Objects = xml::parse(&answer.body, "a list of objects")?;
    let next = next(page.is_truncated, page.contents.last().map(|object| object.key.clone()))?;
    let ours = |object: xml::Object| {
        let key = ObjectKey::parse(&object.key).ok()?;
        Some(ObjectInfo { key, size_bytes: object.size, modify_time: object.last_modified })
    };
    Ok(Page { items: page.contents.into_iter().filter_map(ours).collect(), next })
}

pub(super) async fn multiparts(
    client: &Client,
    prefix: &str,
    after: Option<&MultipartInfo>,
    limit: usize,
) -> Result<MultipartPage, StorageError> {
    let at = |failure: Failure| failure.into_error_of_store("list multipart uploads");
    let mut multiparts: Vec<MultipartInfo> = Vec::new();
    for bucket in buckets(client, prefix, after.map(|info| &info.key)).await.map_err(at)? {
        let mut marker = after.map(|info| (info.key.to_string(), info.id.to_string()));
        loop {
            if multiparts.len() >= limit {
                return Ok(MultipartPage { multiparts, is_last: false });
            }
            let wanted = limit - multiparts.len();
            let page = multiparts_page(client, &bucket, prefix, marker.as_ref(), wanted).await.map_err(at)?;
            multiparts.extend(page.items);
            match page.next {
                Some(next) => marker = Some(next),
                None => break,
            }
        }
    }
    Ok(MultipartPage { multiparts, is_last: true })
}

async fn multiparts_page(
    client: &Client,
    bucket: &str,
    prefix: &str,
    after: Option<&(String, String)>,
    limit: usize,
) -> Result<Page<MultipartInfo, (String, String)>, Failure> {
    let mut call = Call::new(Method::GET, bucket, "")
        .query("uploads", "")
        .query("prefix", prefix)
        .query("max-uploads", limit.min(PAGE_LENGTH_MAX).to_string());
    if let Some((key, id)) = after {
        call = call.query("key-marker", key);
        if !id.is_empty() {
            call = call.query("upload-id-marker", id);
        }
    }
    let answer = match client.send(call).await {
        Err(failure) if is_new_tenant(client, &failure) => return Ok(Page { items: Vec::new(), next: None }),
        answer => answer?,
    };
    let page: xml::Uploads = xml::parse(&answer.body, "a list of uploads")?;
    let next = next(page.is_truncated, page.next_marker())?;
    let ours = |upload: xml::Upload| {
        let key = ObjectKey::parse(&upload.key).ok()?;
        Some(MultipartInfo { key, id: MultipartId::new(upload.upload_id), start_time: upload.initiated })
    };
    let mut items: Vec<_> = page.upload.into_iter().filter_map(ours).collect();
    // Garage has its pages in order, but not what is on one. The uploads of one key stay in the store's order.
    items.sort_by(|left, right| left.key.cmp(&right.key));
    Ok(Page { items, next })
}

impl xml::Uploads {
    /// Key and, unless all uploads of that key have been listed, id.
    fn next_marker(&self) -> Option<(String, String)> {
        (!self.next_key_marker.is_empty())
            .then(|| (self.next_key_marker.clone(), self.next_upload_id_marker.clone()))
    }
}

/// Where to go on. A page that says that more follows, and holds nothing to go on from, is no page: to take it
/// for the last would hide objects.
fn next<M>(is_truncated: bool, last: Option<M>) -> Result<Option<M>, Failure> {
    match (is_truncated, last) {
        (false, _) => Ok(None),
        (true, Some(last)) => Ok(Some(last)),
        (true, None) => Err(Failure::Garbled("a page that is not the last and does not say where to go on")),
    }
}

/// The buckets in which something may be, and nothing was listed yet.
async fn buckets(client: &Client, prefix: &str, after: Option<&ObjectKey>) -> Result<Vec<String>, Failure> {
    if !client.options.bucket_per_tenant {
        return client.buckets().await;
    }
    // A segment that is an id may be the tenant's or stand in the prefix of all keys; the bucket tells.
    for bucket in tenants_in(prefix).map(|tenant| client.bucket_of_tenant(tenant)) {
        if client.has_bucket(&bucket).await? {
            return Ok(vec![bucket]);
        }
    }
    let mut buckets = client.buckets().await?;
    if let Some(after) = after {
        let reached = client.bucket_of_tenant(after.tenant());
        buckets.retain(|bucket| *bucket >= reached);
    }
    Ok(buckets)
}

/// The whole segments that are ids, the last first.
fn tenants_in(prefix: &str) -> impl Iterator<Item = TenantId> + '_ {
    let whole = prefix.rsplit_once('/').map_or("", |(whole, _)| whole);
    whole.rsplit('/').filter_map(|segment| segment.parse().ok())
}
