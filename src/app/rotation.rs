//! Fair turns for what is done a page at a time: a page full of work that fails must not keep the rest waiting. Each round
//! goes on behind the last one, and begins anew when it has come to the end.
//!
//! Every replica keeps its own place; one that was lost with its process costs one turn.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// The places that rounds of one kind have come to, by what they go through.
#[derive(Debug)]
pub(super) struct Rotation<P>(Mutex<HashMap<String, P>>);

impl<P> Default for Rotation<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Clone> Rotation<P> {
    /// Behind which place the next round begins; none for the start.
    pub(super) fn place(&self, of: &str) -> Option<P> {
        self.places().get(of).cloned()
    }

    /// Notes where a round has come to: its last place, or none when there was nothing behind it.
    pub(super) fn turn(&self, of: &str, last: Option<P>) {
        let mut places = self.places();
        match last {
            Some(last) => places.insert(of.to_owned(), last),
            None => places.remove(of),
        };
    }

    fn places(&self) -> std::sync::MutexGuard<'_, HashMap<String, P>> {
        // The map is consistent after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one round of work did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// How many are done. Those that failed are not among them.
    pub done: usize,
    /// The round was full: there may be more behind it.
    pub has_more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_goes_on_behind_the_last_one_and_then_begins_anew() {
        let rotation = Rotation::default();
        assert_eq!(rotation.place("a"), None);
        rotation.turn("a", Some(7));
        rotation.turn("b", Some(1));
        assert_eq!((rotation.place("a"), rotation.place("b")), (Some(7), Some(1)));
        rotation.turn("a", None);
        assert_eq!((rotation.place("a"), rotation.place("b")), (None, Some(1)));
    }
}
