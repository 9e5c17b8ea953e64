//! Objects in one piece.

use futures::future::join_all;

use super::*;

pub(super) async fn all(ground: &Ground) {
    the_store_is_reachable(ground).await;
    what_was_put_is_what_is_read(ground).await;
    a_body_of_many_chunks_is_one_object(ground).await;
    a_range_is_exactly_its_bytes(ground).await;
    a_range_beyond_the_end_is_refused(ground).await;
    an_empty_object_is_an_object(ground).await;
    if ground.store.capabilities().conditional_writes {
        an_object_is_never_overwritten(ground).await;
        of_sixteen_writers_of_one_key_exactly_one_wins(ground).await;
        a_copy_never_overwrites(ground).await;
    }
    a_copy_has_the_bytes_and_a_life_of_its_own(ground).await;
    a_copy_of_nothing_is_not_found(ground).await;
    what_is_archived_reads_like_everything_else(ground).await;
    an_object_that_is_not_there_is_not_found(ground).await;
    a_deleted_object_is_gone_and_can_be_deleted_again(ground).await;
    a_dropped_put_leaves_nothing_or_the_whole_object(ground).await;
}

async fn the_store_is_reachable(ground: &Ground) {
    assert!(!ground.store.provider().is_empty());
    // Not retried by any decorator, so one of a few attempts has to do.
    let mut attempts = Vec::new();
    for _ in 0..5 {
        attempts.push(ground.store.check().await);
    }
    assert!(attempts.iter().any(Result::is_ok), "{attempts:?}");
}

async fn what_was_put_is_what_is_read(ground: &Ground) {
    for size_bytes in [1, 10 * 1024, 3 * 1024 * 1024 + 1] {
        let (key, body) = (ground.key(), content(size_bytes, size_bytes));
        let put = ground.put(&key, &body).await.expect("put object");
        assert_eq!((&put.key, put.size_bytes), (&key, size_bytes));
        let head = ground.store.head(&key).await.expect("head object");
        assert_eq!((&head.key, head.size_bytes), (&key, size_bytes));
        assert!(ground.read(&key, 0..size_bytes).await == body, "{size_bytes} bytes came back different");
    }
}

async fn a_body_of_many_chunks_is_one_object(ground: &Ground) {
    let (key, body) = (ground.key(), content(1, 100_000));
    let chunks: Payload = body.chunks(999).map(Bytes::copy_from_slice).chain([Bytes::new()]).collect();
    assert_eq!(chunks.len_bytes(), 100_000);
    ground.store.put(&key, chunks, &options()).await.expect("put object");
    assert!(ground.read_all(&key).await == body);
}

async fn a_range_is_exactly_its_bytes(ground: &Ground) {
    let size_bytes = 2 * 1024 * 1024 + 7;
    let (key, body) = (ground.key(), content(2, size_bytes));
    ground.put(&key, &body).await.expect("put object");
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
        assert!(ground.read(&key, range.clone()).await == expected, "{range:?}");
    }
}

async fn a_range_beyond_the_end_is_refused(ground: &Ground) {
    let key = ground.key();
    ground.put(&key, &content(3, 10)).await.expect("put object");
    let reversed = Range { start: 5, end: 4 };
    for range in [0..11, 10..11, 11..11, reversed] {
        let refused = ground.store.get(&key, range).await.map(|_| ());
        assert_kind(refused, StorageErrorKind::InvalidInput);
    }
}

async fn an_empty_object_is_an_object(ground: &Ground) {
    let key = ground.key();
    ground.store.put(&key, Payload::default(), &options()).await.expect("put object");
    assert_eq!(ground.store.head(&key).await.expect("head object").size_bytes, 0);
    assert_eq!(ground.read(&key, 0..0).await, Bytes::new());
}

async fn a_copy_has_the_bytes_and_a_life_of_its_own(ground: &Ground) {
    for size_bytes in [0, 1, 2 * 1024 * 1024 + 1] {
        let (from, to, body) = (ground.key(), ground.key(), content(10, size_bytes));
        ground.put(&from, &body).await.expect("put object");
        let copied = ground.store.copy(&from, &to, &options()).await.expect("copy object");
        assert_eq!((&copied.key, copied.size_bytes), (&to, size_bytes));
        ground.store.delete(&from).await.expect("delete object");
        assert!(ground.read_all(&to).await == body, "a copy of {size_bytes} bytes is different");
        ground.assert_absent(&from).await;
    }
}

/// A store that has no classes keeps it as everything; one that has them gives it out at once.
async fn what_is_archived_reads_like_everything_else(ground: &Ground) {
    let archived = options().in_class(StorageClass::Archive);
    let (put, copied, back, body) = (ground.key(), ground.key(), ground.key(), content(13, 100_000));
    ground.store.put(&put, Payload::from(body.clone()), &archived).await.expect("put object");
    ground.store.copy(&put, &copied, &archived).await.expect("copy object");
    ground.store.copy(&copied, &back, &options()).await.expect("copy object");
    for key in [&put, &copied, &back] {
        assert_eq!(ground.store.head(key).await.expect("head object").size_bytes, 100_000);
        assert!(ground.read_all(key).await == body, "an archived object, or one that was, is different");
        assert_eq!(ground.read(key, 99_990..100_000).await, body.slice(99_990..));
    }
}

async fn a_copy_of_nothing_is_not_found(ground: &Ground) {
    let (from, to) = (ground.key(), ground.key());
    assert_kind(ground.store.copy(&from, &to, &options()).await, StorageErrorKind::NotFound);
    ground.assert_absent(&to).await;
}

async fn a_copy_never_overwrites(ground: &Ground) {
    let (from, to, body) = (ground.key(), ground.key(), content(12, 10));
    ground.put(&from, &content(11, 10)).await.expect("put object");
    ground.put(&to, &body).await.expect("put object");
    assert_kind(ground.store.copy(&from, &to, &options()).await, StorageErrorKind::AlreadyExists);
    assert_eq!(ground.read_all(&to).await, body);
}

async fn an_object_is_never_overwritten(ground: &Ground) {
    let (key, first) = (ground.key(), content(5, 1000));
    ground.put(&key, &first).await.expect("put object");
    for other in [content(6, 1000), content(7, 10), Bytes::new()] {
        assert_kind(ground.put(&key, &other).await, StorageErrorKind::AlreadyExists);
    }
    assert_eq!(ground.read_all(&key).await, first);
    let empty = ground.key();
    ground.put(&empty, &Bytes::new()).await.expect("put object");
    assert_kind(ground.put(&empty, &content(4, 1)).await, StorageErrorKind::AlreadyExists);
}

async fn of_sixteen_writers_of_one_key_exactly_one_wins(ground: &Ground) {
    for round in 0..4 {
        let key = ground.key();
        let bodies: Vec<Bytes> = (0..16).map(|writer| content(round << 8 | writer, 20_000)).collect();
        let results = join_all(bodies.iter().map(|body| ground.put(&key, body))).await;
        let mut winners = Vec::new();
        for (result, body) in results.into_iter().zip(&bodies) {
            match result {
                Ok(_) => winners.push(body),
                loser => assert_kind(loser, StorageErrorKind::AlreadyExists),
            }
        }
        assert_eq!(winners.len(), 1, "writers that were told they had won");
        assert!(ground.read_all(&key).await == winners[0], "the object is not the winner's");
    }
}

async fn an_object_that_is_not_there_is_not_found(ground: &Ground) {
    ground.assert_absent(&ground.key()).await;
}

async fn a_deleted_object_is_gone_and_can_be_deleted_again(ground: &Ground) {
    let (key, neighbour) = (ground.key(), ground.key());
    for key in [&key, &neighbour] {
        ground.put(key, &content(8, 10)).await.expect("put object");
    }
    for _ in 0..2 {
        ground.store.delete(&key).await.expect("delete object");
        ground.assert_absent(&key).await;
    }
    assert_eq!(ground.read_all(&neighbour).await, content(8, 10));
}

async fn a_dropped_put_leaves_nothing_or_the_whole_object(ground: &Ground) {
    for polls in 0..8 {
        let (key, body) = (ground.key(), content(9, 300_000));
        {
            let mut put = std::pin::pin!(ground.put(&key, &body));
            for _ in 0..polls {
                if futures::poll!(put.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // Whatever became of the dropped one, a second put finds a clear state, and whole bytes are the end
        // of it.
        match ground.put(&key, &body).await {
            Ok(_) => {}
            refused => assert_kind(refused, StorageErrorKind::AlreadyExists),
        }
        assert!(ground.read_all(&key).await == body, "after {polls} polls");
    }
}
