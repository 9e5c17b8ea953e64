//! Deletes objects with the batch call of their store.

use crate::{
    domain::{error_text::with_causes, object_key::ObjectKey},
    storage::{DELETE_BATCH_KEYS_MAX, DeletionResults, ObjectStorage, StorageError},
};

/// Deletes objects of one store. Returns the result of each key, in the order of the keys. If a batch fails as
/// a whole, each of its keys has the error of the batch.
pub(in crate::app) async fn delete_objects(store: &dyn ObjectStorage, keys: &[ObjectKey]) -> DeletionResults {
    let mut results = DeletionResults::with_capacity(keys.len());
    for batch in keys.chunks(DELETE_BATCH_KEYS_MAX) {
        match store.delete_batch(batch).await {
            Ok(deleted) => results.extend(deleted),
            Err(error) => {
                let reason = with_causes(&error);
                let of_key = |key| {
                    Err(StorageError::new(error.kind, error.operation)
                        .with_key(key)
                        .with_source(reason.clone()))
                };
                results.extend(batch.iter().map(of_key));
            }
        }
    }
    results
}
