//! Every configured provider, side by side: new bytes go to one of them, stored bytes are found where their row says.

use std::{collections::BTreeMap, sync::Arc};

use super::{ObjectStorage, StorageError};

/// The stores of this service, by the names of their providers.
#[derive(Debug, Clone)]
pub struct Stores {
    by_name: BTreeMap<String, Arc<dyn ObjectStorage>>,
    writing: Arc<dyn ObjectStorage>,
}

/// Rows name a provider that the configuration does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the provider `{0}` is not configured; add storage.providers.{0}")]
pub struct UnknownProvider(pub String);

impl Stores {
    /// Puts stores together, each under the name it answers to. `writing` is the one that new bytes go to.
    ///
    /// # Errors
    /// `InvalidInput` when `writing` is none of them, or two answer to one name.
    pub fn new(
        stores: impl IntoIterator<Item = Arc<dyn ObjectStorage>>,
        writing: &str,
    ) -> Result<Self, StorageError> {
        const OPERATION: &str = "open the providers";
        let mut by_name = BTreeMap::new();
        for store in stores {
            let name = store.provider().to_owned();
            if by_name.insert(name.clone(), store).is_some() {
                return Err(StorageError::invalid(OPERATION, format!("two are named `{name}`")));
            }
        }
        let writing = by_name.get(writing).cloned().ok_or_else(|| {
            StorageError::invalid(OPERATION, format!("`{writing}`, where new bytes go, is not configured"))
        })?;
        Ok(Self { by_name, writing })
    }

    /// Where new bytes go.
    pub fn writing(&self) -> &Arc<dyn ObjectStorage> {
        &self.writing
    }

    /// Where the bytes are whose row names this provider.
    ///
    /// # Errors
    /// When it is not configured.
    pub fn of(&self, provider: &str) -> Result<&Arc<dyn ObjectStorage>, UnknownProvider> {
        self.by_name.get(provider).ok_or_else(|| UnknownProvider(provider.to_owned()))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn ObjectStorage>> {
        self.by_name.values()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::named, *};

    #[test]
    fn a_row_is_served_by_the_provider_that_it_names_and_by_no_other() {
        let stores = Stores::new([named("old"), named("new")], "new").unwrap();
        assert_eq!(stores.writing().provider(), "new");
        assert_eq!(stores.of("old").unwrap().provider(), "old");
        assert_eq!(stores.of("gone").unwrap_err(), UnknownProvider("gone".to_owned()));
        assert_eq!(stores.iter().map(|store| store.provider()).collect::<Vec<_>>(), ["new", "old"]);
    }

    #[test]
    fn two_providers_of_one_name_or_none_to_write_to_are_refused() {
        assert!(Stores::new([named("old"), named("old")], "old").is_err());
        assert!(Stores::new([named("old")], "new").is_err());
    }
}
