//! A queue that serves its owners in turn, and the items of each in order of arrival.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A queue of items with owners.
#[derive(Debug)]
pub struct TurnQueue<K, T> {
    items: HashMap<K, VecDeque<T>>,
    turns: VecDeque<K>,
    len: usize,
}

impl<K, T> Default for TurnQueue<K, T> {
    fn default() -> Self {
        Self { items: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<K: Copy + Eq + Hash, T> TurnQueue<K, T> {
    /// Adds an item after the others of its owner.
    pub fn push(&mut self, owner: K, item: T) {
        let items = self.items.entry(owner).or_default();
        if items.is_empty() {
            self.turns.push_back(owner);
        }
        items.push_back(item);
        self.len += 1;
    }

    /// Removes the first item of the owner whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let owner = self.turns.pop_front()?;
        let items = self.items.get_mut(&owner)?;
        let item = items.pop_front();
        match items.is_empty() {
            true => drop(self.items.remove(&owner)),
            false => self.turns.push_back(owner),
        }
        self.len -= 1;
        item
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_served_in_turn() {
        let mut queue = TurnQueue::default();
        for item in 1..=3 {
            queue.push("flood", item);
        }
        queue.push("alice", 10);
        assert_eq!(queue.len(), 4);
        let served: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(served, [1, 10, 2, 3]);
        assert!(queue.is_empty() && queue.items.is_empty());
    }
}
