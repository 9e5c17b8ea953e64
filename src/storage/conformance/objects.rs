//! Checks operations on whole objects.

use std::ops::Range;

use bytes::Bytes;
use futures::future::join_all;

use super::{
    super::{DELETE_BATCH_KEYS_MAX, Payload, PutOptions, StorageErrorKind},
    fixture::{Fixture, assert_kind, content, options},
};
use crate::domain::{object_key::ObjectKey, storage_class::StorageClass};

pub(super) async fn check_all(fixture: &Fixture) {
    store_is_reachable(fixture).await;
    reads_the_bytes_that_were_put(fixture).await;
    stores_a_body_of_many_chunks_as_one_object(fixture).await;
    range_returns_exactly_its_bytes(fixture).await;
    rejects_a_range_beyond_the_end(fixture).await;
    stores_an_empty_object(fixture).await;
    if fixture.store.capabilities().conditional_writes {
        put_never_overwrites(fixture).await;
        exactly_one_of_sixteen_writers_succeeds(fixture).await;
        copy_never_overwrites(fixture).await;
    }
    copy_is_equal_and_independent(fixture).await;
    copy_of_a_missing_object_is_not_found(fixture).await;
    metadata_is_that_of_the_options(fixture).await;
    archived_objects_are_readable(fixture).await;
    missing_object_is_not_found(fixture).await;
    delete_is_idempotent(fixture).await;
    batch_deletes_each_of_its_keys(fixture).await;
    rejects_a_batch_of_too_many_keys(fixture).await;
    dropped_put_leaves_nothing_or_the_whole_object(fixture).await;
}

/// A file system without extended attributes drops metadata.
async fn metadata_is_that_of_the_options(fixture: &Fixture) {
    let (key, copy) = (fixture.key(), fixture.key());
    fixture.put(&key, &content(7, 100)).await.expect("put object");
    let read = fixture.store.read_metadata(&key).await.expect("read metadata");
    assert!(read.is_empty() || read == options().metadata, "{read:?}");
    let metadata = vec![("label".to_owned(), "Zoë 100%".to_owned())];
    let changed = PutOptions { metadata: metadata.clone(), ..PutOptions::default() };
    fixture.store.copy(&key, &copy, &changed).await.expect("copy object");
    let read = fixture.store.read_metadata(&copy).await.expect("read metadata of a copy");
    assert!(read.is_empty() || read == metadata, "{read:?}");
    assert_kind(fixture.store.read_metadata(&fixture.key()).await, StorageErrorKind::NotFound);
}

async fn store_is_reachable(fixture: &Fixture) {
    assert!(!fixture.store.provider().is_empty());
    // No decorator retries this call, so one of several attempts must succeed.
    let mut attempts = Vec::new();
    for _ in 0..5 {
        attempts.push(fixture.store.check().await);
    }
    assert!(attempts.iter().any(Result::is_ok), "{attempts:?}");
}

async fn reads_the_bytes_that_were_put(fixture: &Fixture) {
    for size_bytes in [1, 10 * 1024, 3 * 1024 * 1024 + 1] {
        let (key, body) = (fixture.key(), content(size_bytes, size_bytes));
        let put = fixture.put(&key, &body).await.expect("put object");
        assert_eq!((&put.key, put.size_bytes), (&key, size_bytes));
        let head = fixture.store.head(&key).await.expect("head object");
        assert_eq!((&head.key, head.size_bytes), (&key, size_bytes));
        assert!(fixture.read(&key, 0..size_bytes).await == body, "{size_bytes} bytes came back different");
    }
}

async fn stores_a_body_of_many_chunks_as_one_object(fixture: &Fixture) {
    let (key, body) = (fixture.key(), content(1, 100_000));
    let chunks: Payload = body.chunks(999).map(Bytes::copy_from_slice).chain([Bytes::new()]).collect();
    assert_eq!(chunks.len_bytes(), 100_000);
    fixture.store.put(&key, chunks, &options()).await.expect("put object");
    assert!(fixture.read_all(&key).await == body);
}

async fn range_returns_exactly_its_bytes(fixture: &Fixture) {
    let size_bytes = 2 * 1024 * 1024 + 7;
    let (key, body) = (fixture.key(), content(2, size_bytes));
    fixture.put(&key, &body).await.expect("put object");
    for range in [
        0..1,
        0..size_bytes,
        size_bytes - 1..size_bytes,
        524_287..524_290,
        1_048_576..1_048_577,
        1000..2_000_000,
        0..0,
        77..77,
        size_bytes..size_bytes,
    ] {
        let expected = body.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        assert!(fixture.read(&key, range.clone()).await == expected, "{range:?}");
    }
}

async fn rejects_a_range_beyond_the_end(fixture: &Fixture) {
    let key = fixture.key();
    fixture.put(&key, &content(3, 10)).await.expect("put object");
    let reversed = Range { start: 5, end: 4 };
    for range in [0..11, 10..11, 11..11, reversed] {
        let result = fixture.store.get(&key, range).await.map(|_| ());
        assert_kind(result, StorageErrorKind::InvalidInput);
    }
}

async fn stores_an_empty_object(fixture: &Fixture) {
    let key = fixture.key();
    fixture.store.put(&key, Payload::default(), &options()).await.expect("put object");
    assert_eq!(fixture.store.head(&key).await.expect("head object").size_bytes, 0);
    assert_eq!(fixture.read(&key, 0..0).await, Bytes::new());
}

async fn copy_is_equal_and_independent(fixture: &Fixture) {
    for size_bytes in [0, 1, 2 * 1024 * 1024 + 1] {
        let (from, to, body) = (fixture.key(), fixture.key(), content(10, size_bytes));
        fixture.put(&from, &body).await.expect("put object");
        let copied = fixture.store.copy(&from, &to, &options()).await.expect("copy object");
        assert_eq!((&copied.key, copied.size_bytes), (&to, size_bytes));
        fixture.store.delete(&from).await.expect("delete object");
        assert!(fixture.read_all(&to).await == body, "a copy of {size_bytes} bytes is different");
        fixture.assert_absent(&from).await;
    }
}

/// A store without storage classes ignores the class; one with classes allows immediate reads.
async fn archived_objects_are_readable(fixture: &Fixture) {
    let archived = options().with_class(StorageClass::Archive);
    let (put, copied, back, body) = (fixture.key(), fixture.key(), fixture.key(), content(13, 100_000));
    fixture.store.put(&put, Payload::from(body.clone()), &archived).await.expect("put object");
    fixture.store.copy(&put, &copied, &archived).await.expect("copy object");
    fixture.store.copy(&copied, &back, &options()).await.expect("copy object");
    for key in [&put, &copied, &back] {
        assert_eq!(fixture.store.head(key).await.expect("head object").size_bytes, 100_000);
        assert!(fixture.read_all(key).await == body, "an archived object, or one that was, is different");
        assert_eq!(fixture.read(key, 99_990..100_000).await, body.slice(99_990..));
    }
}

async fn copy_of_a_missing_object_is_not_found(fixture: &Fixture) {
    let (from, to) = (fixture.key(), fixture.key());
    assert_kind(fixture.store.copy(&from, &to, &options()).await, StorageErrorKind::NotFound);
    fixture.assert_absent(&to).await;
}

async fn copy_never_overwrites(fixture: &Fixture) {
    let (from, to, body) = (fixture.key(), fixture.key(), content(12, 10));
    fixture.put(&from, &content(11, 10)).await.expect("put object");
    fixture.put(&to, &body).await.expect("put object");
    assert_kind(fixture.store.copy(&from, &to, &options()).await, StorageErrorKind::AlreadyExists);
    assert_eq!(fixture.read_all(&to).await, body);
}

async fn put_never_overwrites(fixture: &Fixture) {
    let (key, first) = (fixture.key(), content(5, 1000));
    fixture.put(&key, &first).await.expect("put object");
    for other in [content(6, 1000), content(7, 10), Bytes::new()] {
        assert_kind(fixture.put(&key, &other).await, StorageErrorKind::AlreadyExists);
    }
    assert_eq!(fixture.read_all(&key).await, first);
    let empty = fixture.key();
    fixture.put(&empty, &Bytes::new()).await.expect("put object");
    assert_kind(fixture.put(&empty, &content(4, 1)).await, StorageErrorKind::AlreadyExists);
}

async fn exactly_one_of_sixteen_writers_succeeds(fixture: &Fixture) {
    for round in 0..4 {
        let key = fixture.key();
        let bodies: Vec<Bytes> = (0..16).map(|writer| content(round << 8 | writer, 20_000)).collect();
        let results = join_all(bodies.iter().map(|body| fixture.put(&key, body))).await;
        let mut winners = Vec::new();
        for (result, body) in results.into_iter().zip(&bodies) {
            match result {
                Ok(_) => winners.push(body),
                loser => assert_kind(loser, StorageErrorKind::AlreadyExists),
            }
        }
        assert_eq!(winners.len(), 1, "successful writers");
        assert!(fixture.read_all(&key).await == winners[0], "the object is not the winner's");
    }
}

async fn missing_object_is_not_found(fixture: &Fixture) {
    fixture.assert_absent(&fixture.key()).await;
}

async fn delete_is_idempotent(fixture: &Fixture) {
    let (key, neighbor) = (fixture.key(), fixture.key());
    for key in [&key, &neighbor] {
        fixture.put(key, &content(8, 10)).await.expect("put object");
    }
    for _ in 0..2 {
        fixture.store.delete(&key).await.expect("delete object");
        fixture.assert_absent(&key).await;
    }
    assert_eq!(fixture.read_all(&neighbor).await, content(8, 10));
}

async fn batch_deletes_each_of_its_keys(fixture: &Fixture) {
    // Keys of different tenants, which may have buckets of their own, and one that does not exist.
    let (keys, neighbor) = ([fixture.key(), fixture.key(), fixture.key()], fixture.key());
    for key in [&keys[0], &keys[2], &neighbor] {
        fixture.put(key, &content(14, 10)).await.expect("put object");
    }
    for _ in 0..2 {
        let results = fixture.store.delete_batch(&keys).await.expect("delete objects");
        assert_eq!(results.len(), keys.len());
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        for key in &keys {
            fixture.assert_absent(key).await;
        }
    }
    assert_eq!(fixture.read_all(&neighbor).await, content(14, 10));
    assert!(fixture.store.delete_batch(&[]).await.expect("delete no objects").is_empty());
}

async fn rejects_a_batch_of_too_many_keys(fixture: &Fixture) {
    let keys: Vec<ObjectKey> = (0..=DELETE_BATCH_KEYS_MAX).map(|_| fixture.key()).collect();
    assert_kind(fixture.store.delete_batch(&keys).await, StorageErrorKind::InvalidInput);
}

async fn dropped_put_leaves_nothing_or_the_whole_object(fixture: &Fixture) {
    for polls in 0..8 {
        let (key, body) = (fixture.key(), content(9, 300_000));
        {
            let mut put = std::pin::pin!(fixture.put(&key, &body));
            for _ in 0..polls {
                if futures::poll!(put.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // Whatever the outcome of the dropped put, a second put must succeed or find the whole object.
        match fixture.put(&key, &body).await {
            Ok(_) => {}
            result => assert_kind(result, StorageErrorKind::AlreadyExists),
        }
        assert!(fixture.read_all(&key).await == body, "after {polls} polls");
    }
}
