//! Checks the owner of a store before each write and each deletion. This is the outermost decorator of the
//! stores of the use cases.

use std::sync::Arc;

use super::StoreOwners;
use crate::storage::{
    Attempt, Decorator, ObjectStorage, Operation, PresignRequest, PresignedUrl, StorageError,
};

#[derive(Debug)]
pub(super) struct OwnerChecked {
    inner: Arc<dyn ObjectStorage>,
    owners: StoreOwners,
}

impl OwnerChecked {
    pub(super) fn wrap(inner: Arc<dyn ObjectStorage>, owners: StoreOwners) -> Arc<dyn ObjectStorage> {
        Arc::new(Self { inner, owners })
    }
}

impl Decorator for OwnerChecked {
    fn inner(&self) -> &dyn ObjectStorage {
        &*self.inner
    }

    async fn decorate<'a, T: Send>(
        &'a self,
        operation: Operation,
        attempt: impl Fn() -> Attempt<'a, T> + Send,
    ) -> Result<T, StorageError> {
        match operation {
            Operation::Put
            | Operation::StartMultipart
            | Operation::PutPart
            | Operation::CompleteMultipart
            | Operation::CopyPart
            | Operation::Copy => self.owners.allow_write(self.inner.provider()).await?,
            Operation::AbortMultipart | Operation::Delete | Operation::DeleteBatch => {
                self.owners.allow_deletion(self.inner.provider()).await?;
            }
            // Reads. The marker is written by the checks themselves, and a store is initialized before it has
            // an owner.
            Operation::Head
            | Operation::Get
            | Operation::List
            | Operation::ListMultiparts
            | Operation::ListParts
            | Operation::Check
            | Operation::Presign
            | Operation::Initialize
            | Operation::Space
            | Operation::ListProtections
            | Operation::ReadMarker
            | Operation::ReadMetadata
            | Operation::WriteMarker => {}
        }
        attempt().await
    }

    async fn presign(&self, request: &PresignRequest) -> Result<Option<PresignedUrl>, StorageError> {
        match request {
            PresignRequest::Get { .. } => {}
            PresignRequest::Put { .. } | PresignRequest::Part { .. } => {
                self.owners.allow_write(self.inner.provider()).await?;
            }
        }
        self.inner.presign(request).await
    }
}
