//! All configured providers. New objects are written to the primary store; existing objects are read from the
//! store that their row names.
//!
//! Each store limits its operations, and its users share them fairly (`limited`): callers get the store with
//! [`Stores::get_for`] and [`Stores::primary_for`], background work with the other methods.

use std::{collections::BTreeMap, ops::Add, sync::Arc};

use super::{
    ObjectStorage, StorageError,
    limited::{Limited, Permits, StoreLimits},
};
use crate::admission::{Holder, ShareStatus};

/// The stores of this service by provider name.
#[derive(Debug, Clone)]
pub struct Stores {
    by_name: BTreeMap<String, SharedStore>,
    primary: SharedStore,
}

/// A store and its permits.
#[derive(Debug, Clone)]
struct SharedStore {
    unlimited: Arc<dyn ObjectStorage>,
    permits: Permits,
    /// The store as background work uses it.
    for_background: Arc<dyn ObjectStorage>,
}

impl SharedStore {
    fn new(unlimited: Arc<dyn ObjectStorage>, limits: StoreLimits) -> Self {
        Self::with_permits(unlimited, Permits::new(limits))
    }

    fn with_permits(unlimited: Arc<dyn ObjectStorage>, permits: Permits) -> Self {
        let for_background = Limited::wrap(Arc::clone(&unlimited), permits.clone(), Holder::BACKGROUND);
        Self { unlimited, permits, for_background }
    }

    /// Returns another store with the same permits.
    fn with_store(&self, store: Arc<dyn ObjectStorage>) -> Self {
        Self::with_permits(store, self.permits.clone())
    }

    fn store_for(&self, holder: Holder) -> Arc<dyn ObjectStorage> {
        Limited::wrap(Arc::clone(&self.unlimited), self.permits.clone(), holder)
    }
}

/// The provider of an object is not configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider `{0}` is not configured; add storage.providers.{0}")]
pub struct UnknownProvider(pub String);

impl Stores {
    /// Collects stores by their provider names. `primary` names the store for new objects. Each store has these
    /// limits.
    ///
    /// # Errors
    /// Returns `InvalidInput` if no store is named `primary`, if two stores have the same name, or if a limit is
    /// zero.
    pub fn new(
        stores: impl IntoIterator<Item = Arc<dyn ObjectStorage>>,
        primary: &str,
        limits: StoreLimits,
    ) -> Result<Self, StorageError> {
        const OPERATION: &str = "open storage providers";
        if limits.operations_max == 0 || limits.downloads_max == 0 {
            let reason = format!(
                "operations_max is {} and downloads_max is {}; each must be at least 1",
                limits.operations_max, limits.downloads_max
            );
            return Err(StorageError::invalid_input(OPERATION, reason));
        }
        let mut by_name = BTreeMap::new();
        for store in stores {
            let name = store.provider().to_owned();
            if by_name.insert(name.clone(), SharedStore::new(store, limits)).is_some() {
                return Err(StorageError::invalid_input(
                    OPERATION,
                    format!("two providers are named `{name}`"),
                ));
            }
        }
        let primary = by_name.get(primary).cloned().ok_or_else(|| {
            StorageError::invalid_input(
                OPERATION,
                format!("the provider for new objects, `{primary}`, is not configured"),
            )
        })?;
        Ok(Self { by_name, primary })
    }

    /// Returns the stores with each one replaced, under the same names. They share the permits.
    #[must_use]
    pub fn map(&self, replace: impl Fn(&Arc<dyn ObjectStorage>) -> Arc<dyn ObjectStorage>) -> Self {
        let replace = |shared: &SharedStore| shared.with_store(replace(&shared.unlimited));
        let by_name = self.by_name.iter().map(|(name, shared)| (name.clone(), replace(shared))).collect();
        Self { by_name, primary: replace(&self.primary) }
    }

    /// Returns this provider, or the names of all of them.
    pub fn select_providers(&self, provider: Option<&str>) -> Vec<String> {
        match provider {
            Some(provider) => vec![provider.to_owned()],
            None => self.by_name.keys().cloned().collect(),
        }
    }

    /// Iterates over all stores without their limits, for checks that other operations wait for.
    pub fn unlimited(&self) -> impl Iterator<Item = &Arc<dyn ObjectStorage>> {
        self.by_name.values().map(|shared| &shared.unlimited)
    }

    /// Returns the store for new objects, for background work.
    pub fn primary(&self) -> &Arc<dyn ObjectStorage> {
        &self.primary.for_background
    }

    /// Returns the store for new objects, for operations on behalf of a holder.
    pub fn primary_for(&self, holder: Holder) -> Arc<dyn ObjectStorage> {
        self.primary.store_for(holder)
    }

    /// Returns the store with this provider name, for background work.
    ///
    /// # Errors
    /// Returns [`UnknownProvider`] if the provider is not configured.
    pub fn get(&self, provider: &str) -> Result<&Arc<dyn ObjectStorage>, UnknownProvider> {
        Ok(&self.find(provider)?.for_background)
    }

    /// Returns the store with this provider name, for operations on behalf of a holder.
    ///
    /// # Errors
    /// Returns [`UnknownProvider`] if the provider is not configured.
    pub fn get_for(&self, provider: &str, holder: Holder) -> Result<Arc<dyn ObjectStorage>, UnknownProvider> {
        Ok(self.find(provider)?.store_for(holder))
    }

    /// Iterates over all stores by name, for background work.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn ObjectStorage>> {
        self.by_name.values().map(|shared| &shared.for_background)
    }

    /// Returns how holders share the operations of all stores.
    pub fn operation_status(&self) -> ShareStatus {
        self.sum_of(Permits::operation_status)
    }

    /// Returns how holders share the open downloads of all stores.
    pub fn download_status(&self) -> ShareStatus {
        self.sum_of(Permits::download_status)
    }

    fn sum_of(&self, status: impl Fn(&Permits) -> ShareStatus) -> ShareStatus {
        let statuses = self.by_name.values().map(|shared| status(&shared.permits));
        statuses.fold(ShareStatus::default(), ShareStatus::add)
    }

    fn find(&self, provider: &str) -> Result<&SharedStore, UnknownProvider> {
        self.by_name.get(provider).ok_or_else(|| UnknownProvider(provider.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::{
        super::tests::{key, named},
        *,
    };
    use crate::{
        admission::CallerKey,
        domain::ids::TenantId,
        storage::{Payload, PutOptions},
    };

    const LIMITS: StoreLimits = StoreLimits { operations_max: 8, downloads_max: 8 };

    #[test]
    fn returns_the_store_with_the_requested_name() {
        let stores = Stores::new([named("old"), named("new")], "new", LIMITS).unwrap();
        assert_eq!(stores.primary().provider(), "new");
        assert_eq!(stores.primary_for(Holder::PLATFORM).provider(), "new");
        assert_eq!(stores.get("old").unwrap().provider(), "old");
        assert_eq!(stores.get_for("old", Holder::PLATFORM).unwrap().provider(), "old");
        assert_eq!(stores.get("gone").unwrap_err(), UnknownProvider("gone".to_owned()));
        assert_eq!(stores.iter().map(|store| store.provider()).collect::<Vec<_>>(), ["new", "old"]);
    }

    #[test]
    fn rejects_duplicate_names_and_a_missing_primary_store() {
        assert!(Stores::new([named("old"), named("old")], "old", LIMITS).is_err());
        assert!(Stores::new([named("old")], "new", LIMITS).is_err());
    }

    #[test]
    fn rejects_limits_of_zero() {
        for limits in
            [StoreLimits { operations_max: 0, ..LIMITS }, StoreLimits { downloads_max: 0, ..LIMITS }]
        {
            assert!(Stores::new([named("old")], "old", limits).is_err(), "{limits:?}");
        }
    }

    #[tokio::test]
    async fn holders_share_the_permits_of_a_store() {
        let stores = Stores::new([named("here")], "here", LIMITS).unwrap();
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(1));
        let holder = |name: &str| Holder::new(tenant, CallerKey::of_user(name));
        let key = key();
        let body = Payload::from(bytes::Bytes::from_static(b"data"));
        stores.primary_for(holder("alice")).put(&key, body, &PutOptions::default()).await.unwrap();
        assert_eq!(stores.operation_status(), ShareStatus { capacity: 8, ..ShareStatus::default() });
        let mut open = Vec::new();
        while let Some(stream) = stores.primary_for(holder("flood")).get(&key, 0..4).now_or_never() {
            open.push(stream.unwrap());
        }
        assert_eq!((open.len(), stores.download_status().in_use), (5, 5));
        let colleague = stores.primary_for(holder("alice")).get(&key, 0..4).now_or_never();
        assert!(colleague.is_some());
        assert!(stores.get("here").unwrap().get(&key, 0..4).now_or_never().is_some());
    }
}
