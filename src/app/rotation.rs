//! The positions of rounds of background work. Items that fail must not block the rest: each round continues
//! after the previous one, and starts over at the end, in the same round if nothing is left.
//!
//! Every process has its own position, in memory. A restart costs one extra pass.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// The positions of the rounds of one kind of work, by key, such as a provider.
#[derive(Debug)]
pub(super) struct Rotation<P>(Mutex<HashMap<String, P>>);

impl<P> Default for Rotation<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Clone> Rotation<P> {
    /// Returns the position after which the next round starts, or `None` for the beginning.
    pub(super) fn position(&self, key: &str) -> Option<P> {
        self.positions().get(key).cloned()
    }

    /// Records the position of the item that a round processes, or `None` if the round reached the end.
    pub(super) fn advance(&self, key: &str, position: Option<P>) {
        let mut positions = self.positions();
        match position {
            Some(position) => positions.insert(key.to_owned(), position),
            None => positions.remove(key),
        };
    }

    fn positions(&self) -> std::sync::MutexGuard<'_, HashMap<String, P>> {
        // The map is consistent after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_after_last_round_and_starts_over_at_end() {
        let rotation = Rotation::default();
        assert_eq!(rotation.position("a"), None);
        rotation.advance("a", Some(7));
        rotation.advance("b", Some(1));
        assert_eq!((rotation.position("a"), rotation.position("b")), (Some(7), Some(1)));
        rotation.advance("a", None);
        assert_eq!((rotation.position("a"), rotation.position("b")), (None, Some(1)));
    }
}
