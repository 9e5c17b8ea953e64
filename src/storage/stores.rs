//! All configured providers. New objects are written to the primary store; existing objects are read from the
//! store that their row names.

use std::{collections::BTreeMap, sync::Arc};

use super::{ObjectStorage, StorageError};

/// The stores of this service by provider name.
#[derive(Debug, Clone)]
pub struct Stores {
    by_name: BTreeMap<String, Arc<dyn ObjectStorage>>,
    primary: Arc<dyn ObjectStorage>,
}

/// The provider of an object is not configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("provider `{0}` is not configured; add storage.providers.{0}")]
pub struct UnknownProvider(pub String);

impl Stores {
    /// Collects stores by their provider names. `primary` names the store for new objects.
    ///
    /// # Errors
    /// Returns `InvalidInput` if no store is named `primary`, or if two stores have the same name.
    pub fn new(
        stores: impl IntoIterator<Item = Arc<dyn ObjectStorage>>,
        primary: &str,
    ) -> Result<Self, StorageError> {
        const OPERATION: &str = "open storage providers";
        let mut by_name = BTreeMap::new();
        for store in stores {
            let name = store.provider().to_owned();
            if by_name.insert(name.clone(), store).is_some() {
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

    /// Returns the stores with each one replaced, under the same names.
    #[must_use]
    pub fn map(&self, replace: impl Fn(&Arc<dyn ObjectStorage>) -> Arc<dyn ObjectStorage>) -> Self {
        let by_name = self.by_name.iter().map(|(name, store)| (name.clone(), replace(store))).collect();
        Self { by_name, primary: replace(&self.primary) }
    }

    /// Returns the store for new objects.
    pub fn primary(&self) -> &Arc<dyn ObjectStorage> {
        &self.primary
    }

    /// Returns the store with this provider name.
    ///
    /// # Errors
    /// Returns [`UnknownProvider`] if the provider is not configured.
    pub fn get(&self, provider: &str) -> Result<&Arc<dyn ObjectStorage>, UnknownProvider> {
        self.by_name.get(provider).ok_or_else(|| UnknownProvider(provider.to_owned()))
    }

    /// Iterates over all stores by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn ObjectStorage>> {
        self.by_name.values()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::named, *};

    #[test]
    fn returns_the_store_with_the_requested_name() {
        let stores = Stores::new([named("old"), named("new")], "new").unwrap();
        assert_eq!(stores.primary().provider(), "new");
        assert_eq!(stores.get("old").unwrap().provider(), "old");
        assert_eq!(stores.get("gone").unwrap_err(), UnknownProvider("gone".to_owned()));
        assert_eq!(stores.iter().map(|store| store.provider()).collect::<Vec<_>>(), ["new", "old"]);
    }

    #[test]
    fn rejects_duplicate_names_and_a_missing_primary_store() {
        assert!(Stores::new([named("old"), named("old")], "old").is_err());
        assert!(Stores::new([named("old")], "new").is_err());
    }
}
