//! Requests by address. Finds the address with the most requests, and its oldest one, without reading the others.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::IpAddr,
};

/// The number of requests of an address, and the oldest of them.
type Rank = (usize, Reverse<u64>, IpAddr);

#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// The ids of the requests of each address that has some. Older requests have smaller ids.
    of_address: HashMap<IpAddr, BTreeSet<u64>>,
    /// The rank of each address.
    ranks: BTreeSet<Rank>,
}

/// The requests of the address that has the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Largest {
    pub(super) count: usize,
    pub(super) oldest: u64,
}

impl Crowd {
    pub(super) fn insert(&mut self, address: IpAddr, id: u64) {
        let ids = self.of_address.entry(address).or_default();
        if let Some(former) = rank(address, ids) {
            self.ranks.remove(&former);
        }
        ids.insert(id);
        self.ranks.extend(rank(address, ids));
    }

    pub(super) fn remove(&mut self, address: IpAddr, id: u64) {
        let Entry::Occupied(mut ids) = self.of_address.entry(address) else { return };
        if let Some(former) = rank(address, ids.get()) {
            self.ranks.remove(&former);
        }
        ids.get_mut().remove(&id);
        match rank(address, ids.get()) {
            Some(rank) => {
                self.ranks.insert(rank);
            }
            None => {
                ids.remove();
            }
        }
    }

    /// Returns the number of requests of an address.
    pub(super) fn count_of(&self, address: IpAddr) -> usize {
        self.of_address.get(&address).map_or(0, BTreeSet::len)
    }

    /// Returns the requests of the address that has the most. Of several such addresses it is `preferred`, or that of
    /// the oldest request.
    pub(super) fn largest(&self, preferred: IpAddr) -> Option<Largest> {
        let (count, Reverse(oldest), _) = self.ranks.last().copied()?;
        let of_preferred = self.of_address.get(&preferred).filter(|ids| ids.len() == count);
        let oldest = of_preferred.and_then(|ids| ids.first().copied()).unwrap_or(oldest);
        Some(Largest { count, oldest })
    }
}

fn rank(address: IpAddr, ids: &BTreeSet<u64>) -> Option<Rank> {
    ids.first().map(|oldest| (ids.len(), Reverse(*oldest), address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn largest_address_is_found_after_any_changes() {
        let (mut crowd, mut requests) = (Crowd::default(), Vec::new());
        assert_eq!(crowd.largest(address(1)), None);
        for id in 0..2_000_u64 {
            // Addresses of different sizes, and requests that end in another order than they began.
            let of_address = address(u8::try_from(id * id % 7).unwrap());
            crowd.insert(of_address, id);
            requests.push((of_address, id));
            if id % 3 == 0 || requests.len() > 50 {
                let (ended, ended_id) = requests.remove(usize::try_from(id).unwrap() * 31 % requests.len());
                crowd.remove(ended, ended_id);
            }
            let preferred = address(u8::try_from(id % 7).unwrap());
            let count = |of: IpAddr| requests.iter().filter(|(other, _)| *other == of).count();
            // Any order of requests, as a model.
            let best = requests.iter().max_by_key(|(of, id)| (count(*of), *of == preferred, Reverse(*id)));
            let expected = best.map(|(of, id)| Largest { count: count(*of), oldest: *id });
            assert_eq!(crowd.largest(preferred), expected);
            assert_eq!(crowd.count_of(preferred), count(preferred));
        }
        for (ended, id) in requests {
            crowd.remove(ended, id);
        }
        assert!(crowd.of_address.is_empty() && crowd.ranks.is_empty());
    }
}
