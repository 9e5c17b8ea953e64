//! All configured providers as background work uses them: each with a circuit breaker of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    ObjectStorage, Stores, UnknownProvider,
    breaker::{Breaker, BreakerOptions, BreakerStatus},
    guarded::Guarded,
};
use crate::admission::Holder;

/// The stores of background work by provider name.
#[derive(Debug, Clone)]
pub struct GuardedStores {
    stores: Stores,
    breakers: Breakers,
}

/// The circuit breakers by provider name, without the stores.
#[derive(Debug, Clone)]
pub struct Breakers(BTreeMap<String, Arc<Breaker>>);

impl Breakers {
    /// Returns the state of each breaker by provider name.
    pub fn statuses(&self) -> BTreeMap<String, BreakerStatus> {
        self.0.iter().map(|(provider, breaker)| (provider.clone(), breaker.status())).collect()
    }
}

impl GuardedStores {
    /// Adds a breaker to each store, and the limit `call_timeout` to each of its calls that does not depend on
    /// the size of an object.
    pub fn wrap(stores: &Stores, options: BreakerOptions, call_timeout: Duration) -> Self {
        // Inside the limits, so that a wait for a turn is no failure of the store.
        let breaker =
            |store: &Arc<dyn ObjectStorage>| (store.provider().to_owned(), Arc::new(Breaker::new(options)));
        let breakers = Breakers(stores.iter().map(breaker).collect());
        let guarded = stores.map(|store| match breakers.0.get(store.provider()) {
            Some(breaker) => Guarded::wrap(Arc::clone(store), Arc::clone(breaker), call_timeout),
            None => Arc::clone(store),
        });
        Self { stores: guarded, breakers }
    }

    /// Returns the store with this provider name.
    ///
    /// # Errors
    /// Returns [`UnknownProvider`] if the provider is not configured.
    pub fn get(&self, provider: &str) -> Result<&Arc<dyn ObjectStorage>, UnknownProvider> {
        self.stores.get(provider)
    }

    /// Returns the store with this provider name, for work on behalf of a holder.
    ///
    /// # Errors
    /// Returns [`UnknownProvider`] if the provider is not configured.
    pub fn get_for(&self, provider: &str, holder: Holder) -> Result<Arc<dyn ObjectStorage>, UnknownProvider> {
        self.stores.get_for(provider, holder)
    }

    /// Iterates over all stores by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn ObjectStorage>> {
        self.stores.iter()
    }

    /// Returns whether the breaker of a provider rejects calls, so that its work must wait.
    pub fn rejects_calls(&self, provider: &str) -> bool {
        self.breakers.0.get(provider).is_some_and(|breaker| breaker.rejects_calls())
    }

    /// Returns the breakers.
    pub fn breakers(&self) -> &Breakers {
        &self.breakers
    }
}
