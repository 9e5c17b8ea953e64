//! Positions of events in the event stream of a tenant. They are ordered by epoch, then by transaction id, then by
//! the order of insertion.
//!
//! Transaction ids belong to one incarnation of the database. A restore, an upgrade of PostgreSQL or a failover
//! begins a new epoch (`app.position_epoch`), whose positions are greater than all former ones.
//!
//! The text form has a fixed width, so that strings sort by their bytes in the order of positions: 4 hexadecimal
//! digits of the epoch, 12 of the transaction id and 16 of the number. Positions of the first epoch, which is 0,
//! have the same text as in versions without epochs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The number of bits of a transaction id in the text form.
const XID_BITS: u32 = 48;

/// The position of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The epoch of the database that inserted the event.
    pub epoch: u16,
    /// The id of the transaction that inserted the event, or of its subtransaction that has locked all files; at
    /// most [`Self::XID_MAX`].
    pub xid: u64,
    /// The number of the event, ascending within a transaction.
    pub n: u64,
}

/// The text is not an event position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event position must have 32 hexadecimal digits")]
pub struct InvalidPosition;

impl EventPosition {
    /// The greatest transaction id. A server that begins a million transactions per second reaches it after nine
    /// years.
    pub const XID_MAX: u64 = (1 << XID_BITS) - 1;

    /// A position that is not before any other one.
    pub const MAX: Self = Self { epoch: u16::MAX, xid: Self::XID_MAX, n: u64::MAX };

    /// Returns the position before all events of a transaction and after all events of earlier ones. The
    /// numbers of events start at 1.
    pub const fn start_of(epoch: u16, xid: u64) -> Self {
        Self { epoch, xid, n: 0 }
    }

    /// Returns the position before all events of an epoch and after all events of earlier ones. No transaction has
    /// the id 0.
    pub const fn start_of_epoch(epoch: u16) -> Self {
        Self::start_of(epoch, 0)
    }
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}{:012x}{:016x}", self.epoch, self.xid, self.n)
    }
}

impl FromStr for EventPosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let is_plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (start, n) = text.split_at_checked(16).filter(|_| is_plain).ok_or(InvalidPosition)?;
        let (epoch, xid) = start.split_at_checked(4).ok_or(InvalidPosition)?;
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| InvalidPosition);
        let epoch = u16::from_str_radix(epoch, 16).map_err(|_| InvalidPosition)?;
        Ok(Self { epoch, xid: number(xid)?, n: number(n)? })
    }
}

impl Serialize for EventPosition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventPosition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_sort_like_positions(a: (u16, u64, u64), b: (u16, u64, u64)) {
            let position = |(epoch, xid, n)| EventPosition { epoch, xid: xid & EventPosition::XID_MAX, n };
            let (a, b) = (position(a), position(b));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }

        #[test]
        fn invalid_texts_are_rejected(text in "[0-9a-f+]{0,31}|[0-9a-f]{33,40}") {
            prop_assert_eq!(text.parse::<EventPosition>(), Err(InvalidPosition));
        }
    }

    #[test]
    fn texts_of_first_epoch_are_those_of_former_versions() {
        let former = format!("{:016x}{:016x}", 1_000, 7);
        assert_eq!(former.parse(), Ok(EventPosition { epoch: 0, xid: 1_000, n: 7 }));
        assert_eq!(EventPosition { epoch: 0, xid: 1_000, n: 7 }.to_string(), former);
    }
}
