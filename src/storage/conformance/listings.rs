//! Listings of objects and of open multipart uploads.

use super::{
    super::MultipartInfo,
    fixture::{Fixture, content},
};
use crate::domain::{ids::TenantId, object_key::ObjectKey};

pub(super) async fn check_all(fixture: &Fixture) {
    lists_in_bytewise_order_with_any_page_size(fixture).await;
    prefix_is_text_and_not_a_directory(fixture).await;
    listing_continues_after_a_deleted_key(fixture).await;
    lists_open_uploads_in_order_and_in_pages(fixture).await;
}

/// Keys whose order differs between directories (`a/…` before `a-b/…`) and bytes (`a-b/…` before `a/…`).
fn keys(fixture: &Fixture) -> (String, Vec<ObjectKey>) {
    let tenant = TenantId::from_uuid(fixture.ids.uuid());
    let categories = ["a", "a-b", "a.b", "a0", "a_b", "b"];
    let mut keys: Vec<_> =
        categories.iter().flat_map(|category| [(); 3].map(|()| fixture.key_of(category, tenant))).collect();
    keys.sort_by(|left, right| left.as_str().as_bytes().cmp(right.as_str().as_bytes()));
    (format!("{}/{tenant}/", fixture.prefix), keys)
}

async fn list_all(fixture: &Fixture, prefix: &str, limit: usize) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> = Vec::new();
    loop {
        let page = fixture.store.list(prefix, keys.last(), limit).await.expect("list objects");
        assert!(page.objects.len() <= limit, "a page is too long");
        assert!(page.is_last || !page.objects.is_empty(), "an empty page that is not the last");
        assert!(page.objects.iter().all(|object| object.size_bytes == 3), "a wrong size");
        keys.extend(page.objects.into_iter().map(|object| object.key));
        assert!(keys.is_sorted_by(|left, right| left < right), "out of order, or listed twice");
        if page.is_last {
            return keys;
        }
    }
}

async fn put_all(fixture: &Fixture, keys: &[ObjectKey]) {
    for key in keys.iter().rev() {
        fixture.put(key, &content(200, 3)).await.expect("put object");
    }
}

async fn lists_in_bytewise_order_with_any_page_size(fixture: &Fixture) {
    let (prefix, keys) = keys(fixture);
    assert_eq!(list_all(fixture, &prefix, 10).await, []);
    put_all(fixture, &keys).await;
    for limit in [1, 4, keys.len() - 1, keys.len(), keys.len() + 1, 1000] {
        assert_eq!(list_all(fixture, &prefix, limit).await, keys, "in pages of {limit}");
    }
}

async fn prefix_is_text_and_not_a_directory(fixture: &Fixture) {
    let (prefix, keys) = keys(fixture);
    put_all(fixture, &keys).await;
    for tail in ["", "a", "a/", "a-", "a-b/2026", "a_b/2026/01/02/", "b/2026/01/0", "c", "a/2026/01/03"] {
        let prefix = format!("{prefix}{tail}");
        let expected: Vec<_> = keys.iter().filter(|key| key.as_str().starts_with(&prefix)).cloned().collect();
        assert_eq!(list_all(fixture, &prefix, 2).await, expected, "with prefix {tail:?}");
    }
    let whole_key = keys[7].as_str();
    assert_eq!(list_all(fixture, whole_key, 2).await, keys[7..8]);
}

async fn listing_continues_after_a_deleted_key(fixture: &Fixture) {
    let (prefix, mut keys) = keys(fixture);
    put_all(fixture, &keys).await;
    for position in [0, 8, keys.len() - 3] {
        let gone = keys.remove(position);
        fixture.store.delete(&gone).await.expect("delete object");
        let page = fixture.store.list(&prefix, Some(&gone), 1000).await.expect("list objects");
        let listed: Vec<_> = page.objects.into_iter().map(|object| object.key).collect();
        assert_eq!(listed, keys[position..], "after {position}");
    }
}

async fn lists_open_uploads_in_order_and_in_pages(fixture: &Fixture) {
    let (prefix, keys) = keys(fixture);
    let mut started = Vec::new();
    for key in keys.iter().step_by(4).chain(keys.first()) {
        started.push((key.clone(), fixture.start(key).await));
    }
    started.sort();
    for limit in [1, 2, 1000] {
        let mut listed: Vec<MultipartInfo> = Vec::new();
        loop {
            let page =
                fixture.store.list_multiparts(&prefix, listed.last(), limit).await.expect("list uploads");
            assert!(page.multiparts.len() <= limit && (page.is_last || !page.multiparts.is_empty()));
            listed.extend(page.multiparts);
            assert!(listed.is_sorted_by_key(|open| &open.key), "out of order");
            if page.is_last {
                break;
            }
        }
        let mut listed: Vec<_> = listed.into_iter().map(|open| (open.key, open.id)).collect();
        listed.sort();
        assert!(listed.is_sorted_by(|left, right| left < right), "listed twice");
        // A retried start may have left additional uploads, which are swept like these.
        let ours: Vec<_> = listed.into_iter().filter(|open| started.contains(open)).collect();
        assert_eq!(ours, started, "in pages of {limit}");
    }
    for (key, id) in &started {
        fixture.store.abort_multipart(key, id).await.expect("abort multipart upload");
    }
    let left = fixture.store.list_multiparts(&prefix, None, 1000).await.expect("list uploads").multiparts;
    assert!(!left.into_iter().any(|open| started.contains(&(open.key, open.id))));
}
