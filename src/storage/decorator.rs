//! The base of all decorators: a type that implements [`Decorator`] implements the port.
//!
//! [`declare_decorator`] contains the only list of the asynchronous methods of the port. A decorator defines
//! its behavior for every operation in [`Decorator::decorate`], and overrides methods that need another one.
//! The base forwards all other methods to the wrapped store.
//!
//! A method that is added to [`ObjectStorage`] does not compile until it is in the list, and neither does a
//! `match` on [`Operation`] that names every operation.
//!
//! The base does not allocate: its futures are part of the future that the port returns. Each attempt clones
//! the arguments of the operation, which are references, numbers and, for a body, a pointer. The stream of a
//! download does not pass through it.

use std::{fmt::Debug, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

use super::{
    BucketProtection, ByteStream, Capabilities, DeletionResults, InitOptions, InitReport, ListPage,
    MarkerWrite, MultipartId, MultipartInfo, MultipartPage, ObjectInfo, ObjectMetadata, ObjectStorage,
    PartReceipt, Payload, PresignRequest, PresignedUrl, PutOptions, Space, StorageError,
};
use crate::domain::{checksum::Crc64, object_key::ObjectKey};

/// One attempt of an operation on the wrapped store.
pub type Attempt<'a, T> = BoxFuture<'a, Result<T, StorageError>>;

/// Declares [`Operation`] and [`Decorator`], and implements the port for all decorators.
macro_rules! declare_decorator {
    ($($operation:ident: $method:ident($($argument:ident: $type:ty),*) -> $value:ty;)*) => {
        /// The asynchronous methods of [`ObjectStorage`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation {
            $(
                #[doc = concat!("The method [`ObjectStorage::", stringify!($method), "`].")]
                $operation,
            )*
        }

        impl Operation {
            /// All operations, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$operation),*];

            /// Returns the name of the method, such as `put_part`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$operation => stringify!($method),)*
                }
            }
        }

        /// A store that wraps another one. Implements [`ObjectStorage`]; a method that is not overridden has
        /// the behavior of the wrapped store, inside [`decorate`](Self::decorate).
        pub trait Decorator: Send + Sync + Debug + 'static {
            /// Returns the wrapped store.
            fn inner(&self) -> &dyn ObjectStorage;

            /// Performs an operation. Each call of `attempt` performs it on the wrapped store. The default
            /// makes one attempt.
            fn decorate<'a, T: Send>(
                &'a self,
                _operation: Operation,
                attempt: impl Fn() -> Attempt<'a, T> + Send,
            ) -> impl Future<Output = Result<T, StorageError>> + Send {
                attempt()
            }

            /// Returns the name of the provider, see [`ObjectStorage::provider`].
            fn provider(&self) -> &str {
                self.inner().provider()
            }

            /// Returns the supported features, see [`ObjectStorage::capabilities`].
            fn capabilities(&self) -> Capabilities {
                self.inner().capabilities()
            }

            $(
                #[doc = concat!("Decorates [`ObjectStorage::", stringify!($method), "`].")]
                #[allow(clippy::manual_async_fn, reason = "an async fn would not promise that it is Send")]
                fn $method(
                    &self,
                    $($argument: $type),*
                ) -> impl Future<Output = Result<$value, StorageError>> + Send {
                    async move {
                        let attempt = || self.inner().$method($(Clone::clone(&$argument)),*);
                        self.decorate(Operation::$operation, attempt).await
                    }
                }
            )*
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods, reason = "a decorator must not bypass the wrapped store")]
        impl<D: Decorator> ObjectStorage for D {
            fn provider(&self) -> &str {
                Decorator::provider(self)
            }

            fn capabilities(&self) -> Capabilities {
                Decorator::capabilities(self)
            }

            $(
                async fn $method(&self, $($argument: $type),*) -> Result<$value, StorageError> {
                    Decorator::$method(self, $($argument),*).await
                }
            )*
        }
    };
}

// Do not reorder: the random faults of `flaky` depend on the order of the operations.
declare_decorator! {
    Put: put(key: &ObjectKey, body: Payload, options: &PutOptions) -> ObjectInfo;
    StartMultipart:
        start_multipart(key: &ObjectKey, part_size_bytes: u64, options: &PutOptions) -> MultipartId;
    PutPart: put_part(key: &ObjectKey, id: &MultipartId, number: u32, body: Payload) -> PartReceipt;
    CompleteMultipart: complete_multipart(
        key: &ObjectKey,
        id: &MultipartId,
        parts: &[PartReceipt],
        crc64nvme: Option<Crc64>
    ) -> ObjectInfo;
    AbortMultipart: abort_multipart(key: &ObjectKey, id: &MultipartId) -> ();
    Head: head(key: &ObjectKey) -> ObjectInfo;
    Get: get(key: &ObjectKey, range: Range<u64>) -> ByteStream;
    Delete: delete(key: &ObjectKey) -> ();
    List: list(prefix: &str, after: Option<&ObjectKey>, limit: usize) -> ListPage;
    ListMultiparts:
        list_multiparts(prefix: &str, after: Option<&MultipartInfo>, limit: usize) -> MultipartPage;
    Check: check() -> ();
    Copy: copy(from: &ObjectKey, to: &ObjectKey, options: &PutOptions) -> ObjectInfo;
    ListParts: list_parts(key: &ObjectKey, id: &MultipartId) -> Vec<PartReceipt>;
    Presign: presign(request: &PresignRequest) -> Option<PresignedUrl>;
    Initialize: initialize(options: &InitOptions) -> InitReport;
    Space: space() -> Option<Space>;
    CopyPart: copy_part(key: &ObjectKey, id: &MultipartId, number: u32, from: &ObjectInfo) -> PartReceipt;
    ListProtections: list_protections() -> Vec<BucketProtection>;
    DeleteBatch: delete_batch(keys: &[ObjectKey]) -> DeletionResults;
    ReadMarker: read_marker(prefix: &str) -> Option<Bytes>;
    WriteMarker: write_marker(prefix: &str, body: Bytes, write: MarkerWrite) -> ();
    ReadMetadata: read_metadata(key: &ObjectKey) -> ObjectMetadata;
}

impl Operation {
    /// Returns the verb phrase of errors, such as `put object`.
    pub const fn verb_phrase(self) -> &'static str {
        match self {
            Self::Put => "put object",
            Self::StartMultipart => "start multipart upload",
            Self::PutPart => "put part",
            Self::CompleteMultipart => "complete multipart upload",
            Self::AbortMultipart => "abort multipart upload",
            Self::Head => "head object",
            Self::Get => "get object",
            Self::Delete => "delete object",
            Self::List => "list objects",
            Self::ListMultiparts => "list multipart uploads",
            Self::Check => "check store",
            Self::Copy => "copy object",
            Self::ListParts => "list parts",
            Self::Presign => "presign",
            Self::Initialize => "initialize store",
            Self::Space => "query free space",
            Self::CopyPart => "copy part",
            Self::ListProtections => "list bucket protections",
            Self::DeleteBatch => "delete objects",
            Self::ReadMarker => "read owner marker",
            Self::WriteMarker => "write owner marker",
            Self::ReadMetadata => "read metadata of object",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        admission::Holder,
        domain::clock::{SystemIds, Timestamp},
        storage::{
            Traced,
            breaker::{Breaker, BreakerOptions},
            conformance::check_conformance,
            flaky::{Flaky, Plan},
            guarded::Guarded,
            limited::{Limited, Permits, StoreLimits},
            tests::{key, memory, retrying},
        },
        telemetry::Metrics,
    };

    #[derive(Debug)]
    struct Unchanged(Arc<dyn ObjectStorage>);

    impl Decorator for Unchanged {
        fn inner(&self) -> &dyn ObjectStorage {
            &*self.0
        }
    }

    const BREAKER: BreakerOptions = BreakerOptions {
        failures_max: 5,
        backoff_base: Duration::from_secs(1),
        backoff_max: Duration::from_secs(1),
    };

    type Decorate = fn(Arc<dyn ObjectStorage>) -> Arc<dyn ObjectStorage>;

    /// All decorators, the base first.
    const DECORATORS: [Decorate; 6] = [
        |store| Arc::new(Unchanged(store)),
        |store| Flaky::new(store, Plan::new()),
        |store| {
            let permits = Permits::new(StoreLimits { operations_max: 1, downloads_max: 1 });
            Limited::wrap(store, permits, Holder::BACKGROUND)
        },
        |store| retrying(store, 3),
        |store| Traced::wrap(store, Metrics::for_tests().unwrap()),
        |store| Guarded::wrap(store, Arc::new(Breaker::new(BREAKER)), Duration::from_secs(60)),
    ];

    /// Performs an operation on an object that does not exist. The result does not matter.
    async fn perform(store: &dyn ObjectStorage, operation: Operation) {
        let (key, id, body, options) =
            (key(), MultipartId::new("none"), Payload::default(), PutOptions::default());
        match operation {
            Operation::Put => drop(store.put(&key, body, &options).await),
            Operation::StartMultipart => drop(store.start_multipart(&key, 1, &options).await),
            Operation::PutPart => drop(store.put_part(&key, &id, 1, body).await),
            Operation::CompleteMultipart => drop(store.complete_multipart(&key, &id, &[], None).await),
            Operation::AbortMultipart => drop(store.abort_multipart(&key, &id).await),
            Operation::Head => drop(store.head(&key).await),
            Operation::Get => drop(store.get(&key, 0..0).await),
            Operation::Delete => drop(store.delete(&key).await),
            Operation::List => drop(store.list("", None, 1).await),
            Operation::ListMultiparts => drop(store.list_multiparts("", None, 1).await),
            Operation::Check => drop(store.check().await),
            Operation::Copy => drop(store.copy(&key, &key, &options).await),
            Operation::ListParts => drop(store.list_parts(&key, &id).await),
            Operation::Presign => {
                let (expires_in, content_type) = (Duration::from_secs(1), None);
                drop(
                    store
                        .presign(&PresignRequest::Put { key, size_bytes: 0, expires_in, content_type })
                        .await,
                );
            }
            Operation::Initialize => {
                drop(store.initialize(&InitOptions { abort_incomplete_after_days: None }).await);
            }
            Operation::Space => drop(store.space().await),
            // Without keys, because each also counts as a call of `delete`.
            Operation::DeleteBatch => drop(store.delete_batch(&[]).await),
            Operation::CopyPart => {
                let from = ObjectInfo { key: key.clone(), size_bytes: 1, modify_time: Timestamp::UNIX_EPOCH };
                drop(store.copy_part(&key, &id, 1, &from).await);
            }
            Operation::ListProtections => drop(store.list_protections().await),
            Operation::ReadMarker => drop(store.read_marker("").await),
            Operation::ReadMetadata => drop(store.read_metadata(&key).await),
            Operation::WriteMarker => drop(store.write_marker("", Bytes::new(), MarkerWrite::Create).await),
        }
    }

    #[tokio::test]
    async fn every_decorator_forwards_every_operation_once() {
        for decorate in DECORATORS {
            let counter = Flaky::new(memory(), Plan::new());
            let store = decorate(Arc::clone(&counter) as _);
            for operation in Operation::ALL {
                perform(&*store, *operation).await;
            }
            for operation in Operation::ALL {
                assert_eq!(counter.call_count(*operation), 1, "{operation:?} of {store:?}");
            }
            assert_eq!(store.capabilities(), memory().capabilities(), "{store:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_decorators_together_conform() {
        let store = DECORATORS.iter().fold(memory(), |store, decorate| decorate(store));
        check_conformance(store, Arc::new(SystemIds)).await;
    }
}
