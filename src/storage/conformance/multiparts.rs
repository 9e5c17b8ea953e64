//! Checks multipart uploads.

use bytes::Bytes;
use futures::future::{join_all, try_join_all};

use super::{
    super::{MultipartId, ObjectInfo, PartReceipt, PutOptions, StorageErrorKind},
    fixture::{Fixture, PART_SIZE_BYTES, assert_kind, content, options},
};
use crate::domain::{checksum::Crc64, object_key::ObjectKey};

pub(super) async fn check_all(fixture: &Fixture) {
    accepts_parts_in_any_order_and_in_parallel(fixture).await;
    accepts_a_single_short_part(fixture).await;
    object_is_invisible_before_completion(fixture).await;
    open_upload_is_listed_until_it_ends(fixture).await;
    abort_is_idempotent_and_leaves_nothing(fixture).await;
    complete_is_idempotent(fixture).await;
    abort_after_completion_keeps_the_object(fixture).await;
    wrong_parts_are_rejected_and_the_upload_stays_open(fixture).await;
    part_can_be_replaced_before_completion(fixture).await;
    unlisted_parts_are_discarded(fixture).await;
    missing_upload_is_not_found(fixture).await;
    listed_parts_can_complete_the_upload(fixture).await;
    aborted_upload_is_not_found(fixture).await;
    part_can_be_copied_from_an_object(fixture).await;
    completion_accepts_the_checksum_of_the_whole(fixture).await;
    if fixture.store.capabilities().conditional_writes {
        exactly_one_upload_to_a_key_completes(fixture).await;
    }
}

/// Two full parts and a short one.
fn bodies(seed: u64) -> Vec<Bytes> {
    vec![content(seed, PART_SIZE_BYTES), content(seed + 1, PART_SIZE_BYTES), content(seed + 2, 1234)]
}

async fn put_parts(
    fixture: &Fixture,
    key: &ObjectKey,
    id: &MultipartId,
    bodies: &[Bytes],
) -> Vec<PartReceipt> {
    let mut receipts = Vec::new();
    for (body, number) in bodies.iter().zip(1..) {
        receipts.push(fixture.put_part(key, id, number, body).await.expect("put part"));
    }
    receipts
}

async fn is_open(fixture: &Fixture, key: &ObjectKey, id: &MultipartId) -> bool {
    let page = fixture.store.list_multiparts(key.as_str(), None, 100).await.expect("list multipart uploads");
    page.multiparts.iter().any(|open| open.key == *key && open.id == *id)
}

async fn accepts_parts_in_any_order_and_in_parallel(fixture: &Fixture) {
    let (key, bodies) = (fixture.key(), bodies(10));
    let id = fixture.start(&key).await;
    let puts = [3u32, 1, 2].map(|number| fixture.put_part(&key, &id, number, &bodies[number as usize - 1]));
    let mut receipts = try_join_all(puts).await.expect("put parts");
    receipts.sort_by_key(|receipt| receipt.number);
    let sizes: Vec<_> = receipts.iter().map(|receipt| receipt.size_bytes).collect();
    assert_eq!(sizes, [PART_SIZE_BYTES, PART_SIZE_BYTES, 1234]);
    let info = fixture
        .store
        .complete_multipart(&key, &id, &receipts, None)
        .await
        .expect("complete multipart upload");
    assert_eq!((&info.key, info.size_bytes), (&key, 2 * PART_SIZE_BYTES + 1234));
    assert!(fixture.read_all(&key).await == bodies.concat());
}

async fn accepts_a_single_short_part(fixture: &Fixture) {
    let (key, body) = (fixture.key(), content(20, 10));
    let id = fixture.start(&key).await;
    let receipts = put_parts(fixture, &key, &id, std::slice::from_ref(&body)).await;
    fixture.store.complete_multipart(&key, &id, &receipts, None).await.expect("complete multipart upload");
    assert_eq!(fixture.read_all(&key).await, body);
}

async fn object_is_invisible_before_completion(fixture: &Fixture) {
    let key = fixture.key();
    let id = fixture.start(&key).await;
    fixture.assert_absent(&key).await;
    put_parts(fixture, &key, &id, &bodies(30)).await;
    fixture.assert_absent(&key).await;
    fixture.store.abort_multipart(&key, &id).await.expect("abort multipart upload");
}

async fn open_upload_is_listed_until_it_ends(fixture: &Fixture) {
    let key = fixture.key();
    let id = fixture.start(&key).await;
    assert!(is_open(fixture, &key, &id).await);
    let receipts = put_parts(fixture, &key, &id, &[content(40, 5)]).await;
    assert!(is_open(fixture, &key, &id).await);
    fixture.store.complete_multipart(&key, &id, &receipts, None).await.expect("complete multipart upload");
    assert!(!is_open(fixture, &key, &id).await);
}

async fn abort_is_idempotent_and_leaves_nothing(fixture: &Fixture) {
    let key = fixture.key();
    let id = fixture.start(&key).await;
    let receipts = put_parts(fixture, &key, &id, &[content(50, 5)]).await;
    for _ in 0..2 {
        fixture.store.abort_multipart(&key, &id).await.expect("abort multipart upload");
        assert!(!is_open(fixture, &key, &id).await);
        fixture.assert_absent(&key).await;
    }
    assert_kind(fixture.put_part(&key, &id, 2, &content(51, 5)).await, StorageErrorKind::NotFound);
    assert_kind(
        fixture.store.complete_multipart(&key, &id, &receipts, None).await,
        StorageErrorKind::NotFound,
    );
}

async fn complete_is_idempotent(fixture: &Fixture) {
    let key = fixture.key();
    let id = fixture.start(&key).await;
    let receipts = put_parts(fixture, &key, &id, &bodies(60)).await;
    let first = fixture
        .store
        .complete_multipart(&key, &id, &receipts, None)
        .await
        .expect("complete multipart upload");
    let second =
        fixture.store.complete_multipart(&key, &id, &receipts, None).await.expect("complete it again");
    assert_eq!(first, second);
    assert_kind(fixture.put_part(&key, &id, 1, &content(61, 5)).await, StorageErrorKind::NotFound);
    assert!(fixture.read_all(&key).await == bodies(60).concat());
}

async fn abort_after_completion_keeps_the_object(fixture: &Fixture) {
    let (key, body) = (fixture.key(), content(70, 10));
    let id = fixture.start(&key).await;
    let receipts = put_parts(fixture, &key, &id, std::slice::from_ref(&body)).await;
    fixture.store.complete_multipart(&key, &id, &receipts, None).await.expect("complete multipart upload");
    fixture.store.abort_multipart(&key, &id).await.expect("abort multipart upload");
    assert_eq!(fixture.read_all(&key).await, body);
}

async fn wrong_parts_are_rejected_and_the_upload_stays_open(fixture: &Fixture) {
    let (key, bodies) = (fixture.key(), bodies(80));
    let id = fixture.start(&key).await;
    let receipts = put_parts(fixture, &key, &id, &bodies).await;
    let [one, two, three] = receipts.as_slice() else { panic!("three parts were put") };
    let never_put = PartReceipt { number: 4, ..three.clone() };
    let wrong_etag = PartReceipt { etag: "0000000000000000".to_owned(), ..two.clone() };
    let other_size = PartReceipt { size_bytes: two.size_bytes - 1, ..two.clone() };
    let wrong: [&[&PartReceipt]; 9] = [
        &[],
        &[two, three],
        &[one, three],
        &[two, one, three],
        &[one, one, three],
        &[one, two, two],
        &[one, two, three, &never_put],
        &[one, &wrong_etag, three],
        &[one, &other_size, three],
    ];
    for parts in wrong {
        let parts: Vec<_> = parts.iter().copied().cloned().collect();
        let result = fixture.store.complete_multipart(&key, &id, &parts, None).await;
        assert_kind(result, StorageErrorKind::PartsDiffer);
        fixture.assert_absent(&key).await;
    }
    assert_kind(fixture.put_part(&key, &id, 0, &content(1, 1)).await, StorageErrorKind::InvalidInput);
    assert_kind(fixture.put_part(&key, &id, 10_001, &content(1, 1)).await, StorageErrorKind::InvalidInput);
    assert_kind(fixture.put_part(&key, &id, 1, &Bytes::new()).await, StorageErrorKind::InvalidInput);
    fixture
        .store
        .complete_multipart(&key, &id, &receipts, None)
        .await
        .expect("complete with the right parts");
    assert!(fixture.read_all(&key).await == bodies.concat());
}

async fn part_can_be_replaced_before_completion(fixture: &Fixture) {
    let key = fixture.key();
    let id = fixture.start(&key).await;
    let stale = fixture.put_part(&key, &id, 1, &content(90, 500)).await.expect("put part");
    let fresh = fixture.put_part(&key, &id, 1, &content(91, 400)).await.expect("put the part again");
    let result = fixture.store.complete_multipart(&key, &id, &[stale], None).await;
    assert_kind(result, StorageErrorKind::PartsDiffer);
    fixture.store.complete_multipart(&key, &id, &[fresh], None).await.expect("complete multipart upload");
    assert_eq!(fixture.read_all(&key).await, content(91, 400));
}

async fn unlisted_parts_are_discarded(fixture: &Fixture) {
    let (key, bodies) = (fixture.key(), bodies(100));
    let id = fixture.start(&key).await;
    let receipts = put_parts(fixture, &key, &id, &bodies).await;
    let info = fixture
        .store
        .complete_multipart(&key, &id, &receipts[..2], None)
        .await
        .expect("complete multipart upload");
    assert_eq!(info.size_bytes, 2 * PART_SIZE_BYTES);
    assert!(fixture.read_all(&key).await == bodies[..2].concat());
}

async fn missing_upload_is_not_found(fixture: &Fixture) {
    let (key, other) = (fixture.key(), fixture.key());
    let id = fixture.start(&key).await;
    let receipts = put_parts(fixture, &key, &id, &[content(110, 5)]).await;
    assert_kind(fixture.put_part(&other, &id, 1, &content(111, 5)).await, StorageErrorKind::NotFound);
    assert_kind(
        fixture.store.complete_multipart(&other, &id, &receipts, None).await,
        StorageErrorKind::NotFound,
    );
    fixture.store.abort_multipart(&other, &id).await.expect("abort under another key");
    assert!(is_open(fixture, &key, &id).await, "another key's upload was aborted");
    fixture.store.abort_multipart(&key, &id).await.expect("abort multipart upload");
}

async fn listed_parts_can_complete_the_upload(fixture: &Fixture) {
    let (key, bodies) = (fixture.key(), bodies(130));
    let id = fixture.start(&key).await;
    assert_eq!(fixture.store.list_parts(&key, &id).await.expect("list parts"), []);
    for number in [3u32, 1, 2, 3] {
        fixture.put_part(&key, &id, number, &bodies[number as usize - 1]).await.expect("put part");
    }
    let listed = fixture.store.list_parts(&key, &id).await.expect("list parts");
    let sizes: Vec<_> = listed.iter().map(|receipt| (receipt.number, receipt.size_bytes)).collect();
    assert_eq!(sizes, [(1, PART_SIZE_BYTES), (2, PART_SIZE_BYTES), (3, 1234)]);
    fixture.store.complete_multipart(&key, &id, &listed, None).await.expect("complete multipart upload");
    assert!(fixture.read_all(&key).await == bodies.concat());
    assert_kind(fixture.store.list_parts(&key, &id).await, StorageErrorKind::NotFound);
}

/// The lifecycle rule of a store aborts an upload as `abort_multipart` does.
async fn aborted_upload_is_not_found(fixture: &Fixture) {
    let key = fixture.key();
    let id = fixture.start(&key).await;
    let receipts = put_parts(fixture, &key, &id, &bodies(140)).await;
    fixture.store.abort_multipart(&key, &id).await.expect("abort multipart upload");
    assert_kind(fixture.put_part(&key, &id, 4, &content(141, 5)).await, StorageErrorKind::NotFound);
    assert_kind(fixture.store.list_parts(&key, &id).await, StorageErrorKind::NotFound);
    let result = fixture.store.complete_multipart(&key, &id, &receipts, None).await;
    assert_kind(result, StorageErrorKind::NotFound);
    fixture.assert_absent(&key).await;
}

/// The second part is larger than the first one, as in a growing layout.
async fn part_can_be_copied_from_an_object(fixture: &Fixture) {
    let tenant = fixture.key().tenant();
    let [key, from, gone] = std::array::from_fn(|_| fixture.key_of("media_resource", tenant));
    let growing = PutOptions { equal_parts: Some(1), ..options() };
    let started = fixture.store.start_multipart(&key, PART_SIZE_BYTES, &growing).await;
    let id = started.expect("start multipart upload");
    let fragments = fixture.start(&from).await;
    let receipts = put_parts(fixture, &from, &fragments, &bodies(150)[..2]).await;
    let completed = fixture.store.complete_multipart(&from, &fragments, &receipts, None).await;
    let whole = completed.expect("complete multipart upload");
    let first = fixture.put_part(&key, &id, 1, &content(152, PART_SIZE_BYTES)).await.expect("put part");
    let second = fixture.store.copy_part(&key, &id, 2, &whole).await.expect("copy part");
    assert_eq!((second.number, second.size_bytes), (2, 2 * PART_SIZE_BYTES));
    let third = fixture.put_part(&key, &id, 3, &content(153, 1234)).await.expect("put part");
    let gone = ObjectInfo { key: gone, ..whole.clone() };
    assert_kind(fixture.store.copy_part(&key, &id, 2, &gone).await, StorageErrorKind::Damaged);
    let parts = [first, second, third];
    let info = fixture.store.complete_multipart(&key, &id, &parts, None).await.expect("complete it");
    assert_eq!(info.size_bytes, 3 * PART_SIZE_BYTES + 1234);
    let expected = [content(152, PART_SIZE_BYTES), bodies(150)[..2].concat().into(), content(153, 1234)];
    assert!(fixture.read_all(&key).await == expected.concat());
    assert!(fixture.read_all(&from).await == bodies(150)[..2].concat(), "the copied object is unchanged");
    assert_kind(fixture.store.copy_part(&key, &id, 2, &whole).await, StorageErrorKind::NotFound);
}

async fn completion_accepts_the_checksum_of_the_whole(fixture: &Fixture) {
    let (key, bodies) = (fixture.key(), bodies(160));
    let id = fixture.start(&key).await;
    let receipts = put_parts(fixture, &key, &id, &bodies).await;
    let crc64nvme = Some(Crc64::compute(&bodies.concat()));
    for _ in 0..2 {
        let completed = fixture.store.complete_multipart(&key, &id, &receipts, crc64nvme).await;
        completed.expect("complete multipart upload");
    }
    assert!(fixture.read_all(&key).await == bodies.concat());
}

async fn exactly_one_upload_to_a_key_completes(fixture: &Fixture) {
    let key = fixture.key();
    let mut uploads = Vec::new();
    for seed in 120..124u64 {
        // The sizes differ, because a store without conditional writes identifies its own object by its size.
        let body = content(seed, seed);
        let id = fixture.start(&key).await;
        let receipts = put_parts(fixture, &key, &id, std::slice::from_ref(&body)).await;
        uploads.push((body, id, receipts));
    }
    let completes =
        uploads.iter().map(|(_, id, receipts)| fixture.store.complete_multipart(&key, id, receipts, None));
    let mut winners = Vec::new();
    for (result, (body, ..)) in join_all(completes).await.into_iter().zip(&uploads) {
        match result {
            Ok(_) => winners.push(body),
            loser => assert_kind(loser, StorageErrorKind::AlreadyExists),
        }
    }
    assert_eq!(winners.len(), 1, "completed uploads");
    assert_eq!(fixture.read_all(&key).await, winners[0]);
    for (_, id, _) in &uploads {
        fixture.store.abort_multipart(&key, id).await.expect("abort multipart upload");
    }
}
