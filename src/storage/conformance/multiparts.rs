//! Objects in parts.

use futures::future::{join_all, try_join_all};

use super::*;

pub(super) async fn all(ground: &Ground) {
    parts_arrive_in_any_order_and_in_parallel(ground).await;
    one_short_part_is_enough(ground).await;
    an_object_is_never_visible_before_it_is_complete(ground).await;
    an_open_upload_is_listed_until_it_ends(ground).await;
    an_aborted_upload_leaves_nothing_and_can_be_aborted_again(ground).await;
    completing_twice_gives_the_same_answer(ground).await;
    aborting_a_completed_upload_leaves_the_object(ground).await;
    an_upload_with_wrong_parts_is_refused_and_stays_open(ground).await;
    a_part_can_be_replaced_until_the_end(ground).await;
    a_part_that_is_not_named_is_dropped(ground).await;
    an_upload_that_is_not_there_is_not_found(ground).await;
    the_parts_of_an_open_upload_are_listed_and_can_complete_it(ground).await;
    if ground.store.capabilities().conditional_writes {
        of_uploads_to_one_key_exactly_one_completes(ground).await;
    }
}

/// Two full parts and a short one.
fn bodies(seed: u64) -> Vec<Bytes> {
    vec![content(seed, PART_SIZE_BYTES), content(seed + 1, PART_SIZE_BYTES), content(seed + 2, 1234)]
}

async fn put_parts(ground: &Ground, key: &ObjectKey, id: &MultipartId, bodies: &[Bytes]) -> Vec<PartReceipt> {
    let mut receipts = Vec::new();
    for (body, number) in bodies.iter().zip(1..) {
        receipts.push(ground.put_part(key, id, number, body).await.expect("put part"));
    }
    receipts
}

async fn is_open(ground: &Ground, key: &ObjectKey, id: &MultipartId) -> bool {
    let page = ground.store.list_multiparts(key.as_str(), None, 100).await.expect("list multipart uploads");
    page.multiparts.iter().any(|open| open.key == *key && open.id == *id)
}

async fn parts_arrive_in_any_order_and_in_parallel(ground: &Ground) {
    let (key, bodies) = (ground.key(), bodies(10));
    let id = ground.start(&key).await;
    let puts = [3u32, 1, 2].map(|number| ground.put_part(&key, &id, number, &bodies[number as usize - 1]));
    let mut receipts = try_join_all(puts).await.expect("put parts");
    receipts.sort_by_key(|receipt| receipt.number);
    let sizes: Vec<_> = receipts.iter().map(|receipt| receipt.size_bytes).collect();
    assert_eq!(sizes, [PART_SIZE_BYTES, PART_SIZE_BYTES, 1234]);
    let info =
        ground.store.complete_multipart(&key, &id, &receipts).await.expect("complete multipart upload");
    assert_eq!((&info.key, info.size_bytes), (&key, 2 * PART_SIZE_BYTES + 1234));
    assert!(ground.read_all(&key).await == bodies.concat());
}

async fn one_short_part_is_enough(ground: &Ground) {
    let (key, body) = (ground.key(), content(20, 10));
    let id = ground.start(&key).await;
    let receipts = put_parts(ground, &key, &id, std::slice::from_ref(&body)).await;
    ground.store.complete_multipart(&key, &id, &receipts).await.expect("complete multipart upload");
    assert_eq!(ground.read_all(&key).await, body);
}

async fn an_object_is_never_visible_before_it_is_complete(ground: &Ground) {
    let key = ground.key();
    let id = ground.start(&key).await;
    ground.assert_absent(&key).await;
    put_parts(ground, &key, &id, &bodies(30)).await;
    ground.assert_absent(&key).await;
    ground.store.abort_multipart(&key, &id).await.expect("abort multipart upload");
}

async fn an_open_upload_is_listed_until_it_ends(ground: &Ground) {
    let key = ground.key();
    let id = ground.start(&key).await;
    assert!(is_open(ground, &key, &id).await);
    let receipts = put_parts(ground, &key, &id, &[content(40, 5)]).await;
    assert!(is_open(ground, &key, &id).await);
    ground.store.complete_multipart(&key, &id, &receipts).await.expect("complete multipart upload");
    assert!(!is_open(ground, &key, &id).await);
}

async fn an_aborted_upload_leaves_nothing_and_can_be_aborted_again(ground: &Ground) {
    let key = ground.key();
    let id = ground.start(&key).await;
    let receipts = put_parts(ground, &key, &id, &[content(50, 5)]).await;
    for _ in 0..2 {
        ground.store.abort_multipart(&key, &id).await.expect("abort multipart upload");
        assert!(!is_open(ground, &key, &id).await);
        ground.assert_absent(&key).await;
    }
    assert_kind(ground.put_part(&key, &id, 2, &content(51, 5)).await, StorageErrorKind::NotFound);
    assert_kind(ground.store.complete_multipart(&key, &id, &receipts).await, StorageErrorKind::NotFound);
}

async fn completing_twice_gives_the_same_answer(ground: &Ground) {
    let key = ground.key();
    let id = ground.start(&key).await;
    let receipts = put_parts(ground, &key, &id, &bodies(60)).await;
    let first =
        ground.store.complete_multipart(&key, &id, &receipts).await.expect("complete multipart upload");
    let second = ground.store.complete_multipart(&key, &id, &receipts).await.expect("complete it again");
    assert_eq!(first, second);
    assert_kind(ground.put_part(&key, &id, 1, &content(61, 5)).await, StorageErrorKind::NotFound);
    assert!(ground.read_all(&key).await == bodies(60).concat());
}

async fn aborting_a_completed_upload_leaves_the_object(ground: &Ground) {
    let (key, body) = (ground.key(), content(70, 10));
    let id = ground.start(&key).await;
    let receipts = put_parts(ground, &key, &id, std::slice::from_ref(&body)).await;
    ground.store.complete_multipart(&key, &id, &receipts).await.expect("complete multipart upload");
    ground.store.abort_multipart(&key, &id).await.expect("abort multipart upload");
    assert_eq!(ground.read_all(&key).await, body);
}

async fn an_upload_with_wrong_parts_is_refused_and_stays_open(ground: &Ground) {
    let (key, bodies) = (ground.key(), bodies(80));
    let id = ground.start(&key).await;
    let receipts = put_parts(ground, &key, &id, &bodies).await;
    let [one, two, three] = receipts.as_slice() else { panic!("three parts were put") };
    let never_put = PartReceipt { number: 4, ..three.clone() };
    let foreign = PartReceipt { etag: "0000000000000000".to_owned(), ..two.clone() };
    let other_size = PartReceipt { size_bytes: two.size_bytes - 1, ..two.clone() };
    let wrong: [&[&PartReceipt]; 9] = [
        &[],
        &[two, three],
        &[one, three],
        &[two, one, three],
        &[one, one, three],
        &[one, two, two],
        &[one, two, three, &never_put],
        &[one, &foreign, three],
        &[one, &other_size, three],
    ];
    for parts in wrong {
        let parts: Vec<_> = parts.iter().copied().cloned().collect();
        let refused = ground.store.complete_multipart(&key, &id, &parts).await;
        assert_kind(refused, StorageErrorKind::InvalidInput);
        ground.assert_absent(&key).await;
    }
    assert_kind(ground.put_part(&key, &id, 0, &content(1, 1)).await, StorageErrorKind::InvalidInput);
    assert_kind(ground.put_part(&key, &id, 10_001, &content(1, 1)).await, StorageErrorKind::InvalidInput);
    assert_kind(ground.put_part(&key, &id, 1, &Bytes::new()).await, StorageErrorKind::InvalidInput);
    ground.store.complete_multipart(&key, &id, &receipts).await.expect("the right parts still do");
    assert!(ground.read_all(&key).await == bodies.concat());
}

async fn a_part_can_be_replaced_until_the_end(ground: &Ground) {
    let key = ground.key();
    let id = ground.start(&key).await;
    let stale = ground.put_part(&key, &id, 1, &content(90, 500)).await.expect("put part");
    let fresh = ground.put_part(&key, &id, 1, &content(91, 400)).await.expect("put the part again");
    assert_kind(ground.store.complete_multipart(&key, &id, &[stale]).await, StorageErrorKind::InvalidInput);
    ground.store.complete_multipart(&key, &id, &[fresh]).await.expect("complete multipart upload");
    assert_eq!(ground.read_all(&key).await, content(91, 400));
}

async fn a_part_that_is_not_named_is_dropped(ground: &Ground) {
    let (key, bodies) = (ground.key(), bodies(100));
    let id = ground.start(&key).await;
    let receipts = put_parts(ground, &key, &id, &bodies).await;
    let info =
        ground.store.complete_multipart(&key, &id, &receipts[..2]).await.expect("complete multipart upload");
    assert_eq!(info.size_bytes, 2 * PART_SIZE_BYTES);
    assert!(ground.read_all(&key).await == bodies[..2].concat());
}

async fn an_upload_that_is_not_there_is_not_found(ground: &Ground) {
    let (key, other) = (ground.key(), ground.key());
    let id = ground.start(&key).await;
    let receipts = put_parts(ground, &key, &id, &[content(110, 5)]).await;
    assert_kind(ground.put_part(&other, &id, 1, &content(111, 5)).await, StorageErrorKind::NotFound);
    assert_kind(ground.store.complete_multipart(&other, &id, &receipts).await, StorageErrorKind::NotFound);
    ground.store.abort_multipart(&other, &id).await.expect("abort under another key");
    assert!(is_open(ground, &key, &id).await, "another key's upload was aborted");
    ground.store.abort_multipart(&key, &id).await.expect("abort multipart upload");
}

async fn the_parts_of_an_open_upload_are_listed_and_can_complete_it(ground: &Ground) {
    let (key, bodies) = (ground.key(), bodies(130));
    let id = ground.start(&key).await;
    assert_eq!(ground.store.list_parts(&key, &id).await.expect("list parts"), []);
    for number in [3u32, 1, 2, 3] {
        ground.put_part(&key, &id, number, &bodies[number as usize - 1]).await.expect("put part");
    }
    let listed = ground.store.list_parts(&key, &id).await.expect("list parts");
    let sizes: Vec<_> = listed.iter().map(|receipt| (receipt.number, receipt.size_bytes)).collect();
    assert_eq!(sizes, [(1, PART_SIZE_BYTES), (2, PART_SIZE_BYTES), (3, 1234)]);
    ground.store.complete_multipart(&key, &id, &listed).await.expect("complete multipart upload");
    assert!(ground.read_all(&key).await == bodies.concat());
    assert_kind(ground.store.list_parts(&key, &id).await, StorageErrorKind::NotFound);
}

async fn of_uploads_to_one_key_exactly_one_completes(ground: &Ground) {
    let key = ground.key();
    let mut uploads = Vec::new();
    for seed in 120..124u64 {
        // Of different sizes: a store without conditional writes tells its own object from another by that.
        let body = content(seed, seed);
        let id = ground.start(&key).await;
        let receipts = put_parts(ground, &key, &id, std::slice::from_ref(&body)).await;
        uploads.push((body, id, receipts));
    }
    let completes =
        uploads.iter().map(|(_, id, receipts)| ground.store.complete_multipart(&key, id, receipts));
    let mut winners = Vec::new();
    for (result, (body, ..)) in join_all(completes).await.into_iter().zip(&uploads) {
        match result {
            Ok(_) => winners.push(body),
            loser => assert_kind(loser, StorageErrorKind::AlreadyExists),
        }
    }
    assert_eq!(winners.len(), 1, "uploads that were told they had won");
    assert_eq!(ground.read_all(&key).await, winners[0]);
    for (_, id, _) in &uploads {
        ground.store.abort_multipart(&key, id).await.expect("abort multipart upload");
    }
}
