//! Tests of the shares of a store: slow operations of one holder leave turns to the others.

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use uuid::Uuid;

use super::*;
use crate::{
    admission::CallerKey,
    domain::ids::TenantId,
    storage::{
        Payload, PutOptions,
        tests::{key, memory},
    },
};

/// A store whose deletions never end.
#[derive(Debug)]
struct Stalled(Arc<dyn ObjectStorage>);

impl Decorator for Stalled {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.0
    }

    async fn decorate<'a, T: Send>(
        &'a self,
        operation: Operation,
        attempt: impl Fn() -> Attempt<'a, T> + Send,
    ) -> Result<T, StorageError> {
        match operation {
            Operation::Delete => std::future::pending().await,
            _ => attempt().await,
        }
    }
}

fn caller(of_tenant: u128, name: &str) -> Holder {
    Holder::new(TenantId::from_uuid(Uuid::from_u128(of_tenant)), CallerKey::of_user(name))
}

/// A store with this many permits whose deletions never end.
struct StalledStore {
    permits: Permits,
    inner: Arc<dyn ObjectStorage>,
    key: ObjectKey,
}

/// An operation that was started. Dropping it releases its permit.
type Started = BoxFuture<'static, bool>;

impl StalledStore {
    fn new(operations_max: usize) -> Self {
        let permits = Permits::new(StoreLimits { operations_max, downloads_max: 1 });
        Self { permits, inner: Arc::new(Stalled(memory())), key: key() }
    }

    fn store_for(&self, holder: Holder) -> Arc<dyn ObjectStorage> {
        Limited::wrap(Arc::clone(&self.inner), self.permits.clone(), holder)
    }

    /// Starts operations that never end.
    fn stall(&self, holder: Holder, count: usize) -> Vec<Started> {
        let start = || {
            let (store, key) = (self.store_for(holder), self.key.clone());
            let mut started = async move { store.delete(&key).await.is_ok() }.boxed();
            assert!((&mut started).now_or_never().is_none());
            started
        };
        (0..count).map(|_| start()).collect()
    }

    /// Starts an operation that ends as soon as it has a permit.
    fn start(&self, holder: Holder) -> Started {
        let (store, key) = (self.store_for(holder), self.key.clone());
        let mut started = async move { store.list("", Some(&key), 1).await.is_ok() }.boxed();
        match (&mut started).now_or_never() {
            Some(is_ok) => std::future::ready(is_ok).boxed(),
            None => started,
        }
    }

    fn in_use(&self) -> usize {
        self.permits.operation_status().in_use
    }
}

fn has_ended(started: &mut Started) -> bool {
    started.now_or_never().is_some()
}

#[tokio::test]
async fn download_holds_its_permit_until_the_stream_is_dropped() {
    let key = key();
    let permits = Permits::new(StoreLimits { operations_max: 1, downloads_max: 1 });
    let limited = Limited::wrap(memory(), permits, Holder::BACKGROUND);
    let body = Payload::from(Bytes::from_static(b"slow"));
    limited.put(&key, body, &PutOptions::default()).await.unwrap();
    let mut stream = limited.get(&key, 0..4).await.unwrap();
    assert!(limited.get(&key, 0..4).now_or_never().is_none(), "the only download permit is in use");
    assert!(limited.head(&key).now_or_never().is_some(), "other operations have their own permits");
    assert!(limited.check().now_or_never().is_some(), "readiness checks need no permit");
    assert_eq!(stream.next().await.unwrap().unwrap(), "slow");
    assert!(limited.get(&key, 0..4).now_or_never().is_none(), "the stream is still open");
    drop(stream);
    assert!(limited.get(&key, 0..4).now_or_never().is_some());
}

#[test]
fn slow_operations_of_a_caller_leave_permits_to_others() {
    let store = StalledStore::new(16);
    let flood = store.stall(caller(1, "flood"), 100);
    assert_eq!(store.in_use(), 14, "all but one for other tenants and one for its colleagues");
    for other in [caller(1, "colleague"), caller(2, "zoe"), Holder::BACKGROUND] {
        assert!(has_ended(&mut store.start(other)), "{other:?}");
    }
    drop(flood);
    assert_eq!((store.in_use(), store.permits.operation_status().waiting), (0, 0));
}

#[test]
fn waiting_operations_are_served_in_turn() {
    let store = StalledStore::new(4);
    let mut flood = store.stall(caller(1, "flood"), 50);
    let held = store.stall(caller(2, "zoe"), 1);
    assert_eq!(store.in_use(), 4);
    let (mut other, mut background) = (store.start(caller(3, "yan")), store.start(Holder::BACKGROUND));
    assert!(!has_ended(&mut other) && !has_ended(&mut background));
    // Each operation of the flood that ends gives its permit to the next turn.
    flood.drain(..3).for_each(drop);
    assert!(has_ended(&mut other) && has_ended(&mut background), "{}", flood.len());
    drop((flood, held));
    assert_eq!(store.in_use(), 0);
}

#[test]
fn background_work_does_not_stop_callers() {
    let store = StalledStore::new(16);
    let sweep = store.stall(Holder::BACKGROUND, 100);
    assert!(has_ended(&mut store.start(caller(1, "alice"))));
    let callers = store.stall(caller(1, "alice"), 100);
    let mut late = store.start(Holder::of_tenant(TenantId::from_uuid(Uuid::from_u128(2))));
    assert!(!has_ended(&mut late), "all permits are in use");
    drop(sweep);
    assert!(has_ended(&mut late));
    drop(callers);
}
