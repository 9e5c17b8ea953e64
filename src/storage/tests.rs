//! Runs the conformance suite on every adapter and on the decorated stores, and tests the decorators.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::NaiveDate;
use futures::TryStreamExt;

use super::{
    conformance::check_conformance,
    flaky::{Fault, Flaky, Operation, Plan},
    limited::{Limited, Permits, StoreLimits},
    local::Local,
    memory::{KeptContent, Memory},
    retrying::Retrying,
    *,
};
use crate::{
    admission::Holder,
    domain::{
        clock::{SystemClock, SystemIds},
        ids::{BlobId, TenantId},
    },
};

pub(super) fn key() -> ObjectKey {
    let (tenant, blob) = (TenantId::from_uuid(SystemIds.uuid()), BlobId::from_uuid(SystemIds.uuid()));
    ObjectKey::for_blob("live", tenant, "avatar", NaiveDate::from_ymd_opt(2026, 1, 2).unwrap(), blob).unwrap()
}

pub(super) fn memory() -> Arc<dyn ObjectStorage> {
    Arc::new(Memory::new(KeptContent::All, Arc::new(SystemClock), Arc::new(SystemIds)))
}

fn local(root: &Path) -> Arc<dyn ObjectStorage> {
    Arc::new(Local::open(root, Arc::new(SystemIds)).unwrap())
}

/// Options without pauses between attempts, so that tests do not wait.
fn options(adapter: AdapterOptions, retry_attempts_max: u32) -> StorageOptions {
    StorageOptions {
        provider: "here".to_owned(),
        adapter,
        retry_attempts_max,
        retry_backoff_base: Duration::ZERO,
        retry_backoff_max: Duration::ZERO,
    }
}

/// Creates an in-memory store with this provider name.
pub(super) fn named(provider: &str) -> Arc<dyn ObjectStorage> {
    let options = StorageOptions { provider: provider.to_owned(), ..options(AdapterOptions::Memory, 1) };
    open(&options, Arc::new(SystemClock), Arc::new(SystemIds)).unwrap()
}

pub(super) fn retrying(inner: Arc<dyn ObjectStorage>, attempts_max: u32) -> Arc<dyn ObjectStorage> {
    Retrying::wrap(inner, &options(AdapterOptions::Memory, attempts_max), Arc::new(SystemIds))
}

fn flaky(plan: Plan) -> (Arc<Flaky>, Arc<dyn ObjectStorage>) {
    let flaky = Flaky::new(memory(), plan);
    let store = retrying(Arc::clone(&flaky) as _, 4);
    (flaky, store)
}

fn body(text: &'static str) -> Payload {
    Payload::from(Bytes::from_static(text.as_bytes()))
}

async fn put(
    store: &dyn ObjectStorage,
    key: &ObjectKey,
    text: &'static str,
) -> Result<ObjectInfo, StorageError> {
    store.put(key, body(text), &PutOptions::default()).await
}

async fn read(
    store: &dyn ObjectStorage,
    key: &ObjectKey,
    range: Range<u64>,
) -> Result<Vec<u8>, StorageError> {
    Ok(store.get_bytes(key, range).await?.to_vec())
}

#[tokio::test]
async fn memory_adapter_conforms() {
    check_conformance(memory(), Arc::new(SystemIds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_adapter_conforms() {
    let root = tempfile::tempdir().unwrap();
    check_conformance(local(root.path()), Arc::new(SystemIds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opened_stack_conforms() {
    let root = tempfile::tempdir().unwrap();
    for adapter in [AdapterOptions::Memory, AdapterOptions::Local { root: root.path().join("new") }] {
        let store = open(&options(adapter, 3), Arc::new(SystemClock), Arc::new(SystemIds)).unwrap();
        check_conformance(store, Arc::new(SystemIds)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_conform_if_one_call_in_ten_fails() {
    let root = tempfile::tempdir().unwrap();
    // With a limit of 1, an operation that acquires a second permit would deadlock. The local store is not
    // limited this way, because its syncs are slow one after the other.
    for (seed, inner, max) in [(1, memory(), 1), (2, memory(), 1), (3, local(root.path()), 16)] {
        let flaky = Flaky::new(inner, Plan::new().with_random_faults(seed, 10));
        let permits = Permits::new(StoreLimits { operations_max: max, downloads_max: max });
        let store = Limited::wrap(retrying(flaky, 12), permits, Holder::BACKGROUND);
        check_conformance(store, Arc::new(SystemIds)).await;
    }
}

#[tokio::test]
async fn batch_retries_only_the_keys_that_failed() {
    let (transient, permanent) =
        (Fault::Before(StorageErrorKind::Transient), Fault::Before(StorageErrorKind::Unavailable));
    let (flaky, store) = flaky(Plan::new().with_fault(Operation::Delete, 2, transient));
    let keys = [key(), key(), key()];
    let results = store.delete_batch(&keys).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let calls = || (flaky.call_count(Operation::DeleteBatch), flaky.call_count(Operation::Delete));
    assert_eq!(calls(), (2, 4), "one key is sent again");

    flaky.set_plan(Plan::new().with_fault(Operation::Delete, 1, permanent));
    let results = store.delete_batch(&keys).await.unwrap();
    let failed: Vec<bool> = results.iter().map(Result::is_err).collect();
    assert_eq!((failed, calls()), (vec![true, false, false], (1, 3)));
}

#[tokio::test]
async fn retried_put_recognizes_its_own_object() {
    let (flaky, store) =
        flaky(Plan::new().with_fault(Operation::Put, 1, Fault::After(StorageErrorKind::Transient)));
    let key = key();
    assert_eq!(put(&*store, &key, "mine").await.unwrap().size_bytes, 4);
    assert_eq!(flaky.call_count(Operation::Put), 2);
    assert_eq!(put(&*store, &key, "mine").await.unwrap_err().kind, StorageErrorKind::AlreadyExists);
}

#[tokio::test]
async fn retried_put_rejects_the_object_of_another_writer() {
    let (_, store) =
        flaky(Plan::new().with_fault(Operation::Put, 2, Fault::Before(StorageErrorKind::Transient)));
    let key = key();
    put(&*store, &key, "ours").await.unwrap();
    assert_eq!(put(&*store, &key, "mine").await.unwrap_err().kind, StorageErrorKind::AlreadyExists);
    assert_eq!(read(&*store, &key, 0..4).await.unwrap(), b"ours");
}

#[tokio::test]
async fn interrupted_download_resumes_at_the_byte_it_reached() {
    let plan = Plan::new()
        .with_fault(Operation::Get, 1, Fault::CutStream { after_bytes: 3 })
        .with_fault(Operation::Get, 2, Fault::EndStream { after_bytes: 2 })
        .with_fault(Operation::Get, 3, Fault::Before(StorageErrorKind::Transient))
        .with_fault(Operation::Get, 4, Fault::CutStream { after_bytes: 0 });
    let (flaky, store) = flaky(plan);
    let key = key();
    put(&*store, &key, "0123456789").await.unwrap();
    assert_eq!(read(&*store, &key, 1..9).await.unwrap(), b"12345678");
    assert_eq!(flaky.call_count(Operation::Get), 5);
}

#[tokio::test]
async fn retries_only_transient_failures() {
    for kind in [StorageErrorKind::Unavailable, StorageErrorKind::Damaged, StorageErrorKind::NoSpace] {
        let (flaky, store) = flaky(Plan::new().with_fault(Operation::Head, 1, Fault::Before(kind)));
        assert_eq!(store.head(&key()).await.unwrap_err().kind, kind);
        assert_eq!(flaky.call_count(Operation::Head), 1);
    }
}

#[tokio::test]
async fn stops_retrying_after_the_attempt_limit() {
    let (flaky, store) = flaky(Plan::new().with_random_faults(1, 100));
    flaky.set_plan((1..=9).fold(Plan::new(), |plan, nth| {
        plan.with_fault(Operation::Delete, nth, Fault::Before(StorageErrorKind::Transient))
    }));
    assert_eq!(store.delete(&key()).await.unwrap_err().kind, StorageErrorKind::Transient);
    assert_eq!(flaky.call_count(Operation::Delete), 4);
}

#[tokio::test]
async fn retry_budget_limits_load_on_unavailable_store() {
    let (flaky, store) = flaky(Plan::new().with_random_faults(1, 100));
    for _ in 0..1000 {
        store.head(&key()).await.unwrap_err();
    }
    assert_eq!(flaky.call_count(Operation::Head), 1100, "1,000 first attempts and a budget of 100 retries");
    flaky.set_plan(Plan::new());
    let key = key();
    put(&*store, &key, "back").await.unwrap();
    for _ in 0..9 {
        store.head(&key).await.unwrap();
    }
    flaky.set_plan(Plan::new().with_fault(Operation::Head, 1, Fault::Before(StorageErrorKind::Transient)));
    store.head(&key).await.expect("ten successes refill the budget by one retry");
}

#[tokio::test]
async fn full_store_returns_no_space_and_keeps_objects() {
    let (flaky, store) = flaky(Plan::new().with_capacity_bytes(6));
    let (first, second) = (key(), key());
    put(&*store, &first, "four").await.unwrap();
    assert_eq!(put(&*store, &second, "four").await.unwrap_err().kind, StorageErrorKind::NoSpace);
    assert_eq!(flaky.call_count(Operation::Put), 2);
    assert_eq!(store.head(&second).await.unwrap_err().kind, StorageErrorKind::NotFound);
    assert_eq!(read(&*store, &first, 0..4).await.unwrap(), b"four");
}

#[test]
fn rejects_options_without_attempts() {
    let options = options(AdapterOptions::Memory, 0);
    let error = open(&options, Arc::new(SystemClock), Arc::new(SystemIds)).unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::InvalidInput);
}

#[test]
fn error_names_operation_and_key_but_not_the_cause() {
    let key = key();
    let error =
        StorageError::new(StorageErrorKind::NotFound, "head object").with_key(&key).with_source("a path");
    assert_eq!(error.to_string(), format!("head object {key}: not found"));
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "a path");
}

#[tokio::test]
async fn discard_adapter_returns_repeating_content() {
    const PART_SIZE_BYTES: usize = 2 * PIECE_SIZE_BYTES_MAX;
    let store =
        open(&options(AdapterOptions::Discard, 1), Arc::new(SystemClock), Arc::new(SystemIds)).unwrap();
    let key = key();
    let part = Bytes::from([vec![1; PIECE_SIZE_BYTES_MAX - 1], vec![2]].concat().repeat(2));
    let id = store.start_multipart(&key, PART_SIZE_BYTES as u64, &PutOptions::default()).await.unwrap();
    let mut receipts = Vec::new();
    for (number, body) in [(1, part.clone()), (2, part.slice(..PIECE_SIZE_BYTES_MAX))] {
        receipts.push(store.put_part(&key, &id, number, Payload::from(body)).await.unwrap());
    }
    let info = store.complete_multipart(&key, &id, &receipts, None).await.unwrap();
    assert_eq!(info.size_bytes, 3 * PIECE_SIZE_BYTES_MAX as u64);

    let range = 5..info.size_bytes - 5;
    let pieces: Vec<Bytes> = store.get(&key, range).await.unwrap().try_collect().await.unwrap();
    assert!(pieces.concat() == part.repeat(2)[5..3 * PIECE_SIZE_BYTES_MAX - 5]);
}
