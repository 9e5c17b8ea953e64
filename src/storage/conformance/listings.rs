//! Lists of objects and of open uploads.

use super::{super::MultipartInfo, *};

pub(super) async fn all(ground: &Ground) {
    a_listing_is_in_bytewise_order_whatever_the_pages(ground).await;
    a_prefix_is_text_and_not_a_directory(ground).await;
    a_listing_goes_on_after_a_key_that_is_gone(ground).await;
    open_uploads_are_listed_in_order_and_in_pages(ground).await;
}

/// Keys whose order differs between directories (`a/…` before `a-b/…`) and bytes (`a-b/…` before `a/…`).
fn keys(ground: &Ground) -> (String, Vec<ObjectKey>) {
    let tenant = TenantId::from_uuid(ground.ids.uuid());
    let categories = ["a", "a-b", "a.b", "a0", "a_b", "b"];
    let mut keys: Vec<_> =
        categories.iter().flat_map(|category| [(); 3].map(|()| ground.key_of(category, tenant))).collect();
    keys.sort_by(|left, right| left.as_str().as_bytes().cmp(right.as_str().as_bytes()));
    (format!("{}/{tenant}/", ground.prefix), keys)
}

async fn list_all(ground: &Ground, prefix: &str, limit: usize) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> = Vec::new();
    loop {
        let page = ground.store.list(prefix, keys.last(), limit).await.expect("list objects");
        assert!(page.objects.len() <= limit, "a page is too long");
        assert!(page.is_last || !page.objects.is_empty(), "a page from which there is no way on");
        assert!(page.objects.iter().all(|object| object.size_bytes == 3), "a wrong size");
        keys.extend(page.objects.into_iter().map(|object| object.key));
        assert!(keys.is_sorted_by(|left, right| left < right), "out of order, or listed twice");
        if page.is_last {
            return keys;
        }
    }
}

async fn put_all(ground: &Ground, keys: &[ObjectKey]) {
    for key in keys.iter().rev() {
        ground.put(key, &content(200, 3)).await.expect("put object");
    }
}

async fn a_listing_is_in_bytewise_order_whatever_the_pages(ground: &Ground) {
    let (prefix, keys) = keys(ground);
    assert_eq!(list_all(ground, &prefix, 10).await, []);
    put_all(ground, &keys).await;
    for limit in [1, 4, keys.len() - 1, keys.len(), keys.len() + 1, 1000] {
        assert_eq!(list_all(ground, &prefix, limit).await, keys, "in pages of {limit}");
    }
}

async fn a_prefix_is_text_and_not_a_directory(ground: &Ground) {
    let (prefix, keys) = keys(ground);
    put_all(ground, &keys).await;
    for tail in ["", "a", "a/", "a-", "a-b/2026", "a_b/2026/01/02/", "b/2026/01/0", "c", "a/2026/01/03"] {
        let prefix = format!("{prefix}{tail}");
        let expected: Vec<_> = keys.iter().filter(|key| key.as_str().starts_with(&prefix)).cloned().collect();
        assert_eq!(list_all(ground, &prefix, 2).await, expected, "with prefix {tail:?}");
    }
    let whole_key = keys[7].as_str();
    assert_eq!(list_all(ground, whole_key, 2).await, keys[7..8]);
}

async fn a_listing_goes_on_after_a_key_that_is_gone(ground: &Ground) {
    let (prefix, mut keys) = keys(ground);
    put_all(ground, &keys).await;
    for position in [0, 8, keys.len() - 3] {
        let gone = keys.remove(position);
        ground.store.delete(&gone).await.expect("delete object");
        let page = ground.store.list(&prefix, Some(&gone), 1000).await.expect("list objects");
        let listed: Vec<_> = page.objects.into_iter().map(|object| object.key).collect();
        assert_eq!(listed, keys[position..], "after {position}");
    }
}

async fn open_uploads_are_listed_in_order_and_in_pages(ground: &Ground) {
    let (prefix, keys) = keys(ground);
    let mut started = Vec::new();
    for key in keys.iter().step_by(4).chain(keys.first()) {
        started.push((key.clone(), ground.start(key).await));
    }
    started.sort();
    for limit in [1, 2, 1000] {
        let mut listed: Vec<MultipartInfo> = Vec::new();
        loop {
            let page =
                ground.store.list_multiparts(&prefix, listed.last(), limit).await.expect("list uploads");
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
        // A retried start may have left another one behind; it is swept as these are.
        let ours: Vec<_> = listed.into_iter().filter(|open| started.contains(open)).collect();
        assert_eq!(ours, started, "in pages of {limit}");
    }
    for (key, id) in &started {
        ground.store.abort_multipart(key, id).await.expect("abort multipart upload");
    }
    let left = ground.store.list_multiparts(&prefix, None, 1000).await.expect("list uploads").multiparts;
    assert!(!left.into_iter().any(|open| started.contains(&(open.key, open.id))));
}
