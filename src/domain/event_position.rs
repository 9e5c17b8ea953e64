//! Positions of events in the event stream of a tenant. They are ordered by transaction id, then by the order
//! of insertion.
//!
//! The text form has a fixed width, so that strings sort by their bytes in the order of positions.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The position of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The id of the transaction that inserted the event.
    pub xid: u64,
    /// The number of the event, ascending within a transaction.
    pub n: u64,
}

/// The text is not an event position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event position must have 32 hexadecimal digits")]
pub struct InvalidPosition;

impl EventPosition {
    /// Returns the position before all events of a transaction and after all events of earlier ones. The
    /// numbers of events start at 1.
    pub const fn start_of(xid: u64) -> Self {
        Self { xid, n: 0 }
    }
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.xid, self.n)
    }
}

impl FromStr for EventPosition {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let is_plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (xid, n) = text.split_at_checked(16).filter(|_| is_plain).ok_or(InvalidPosition)?;
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| InvalidPosition);
        Ok(Self { xid: number(xid)?, n: number(n)? })
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
        fn texts_sort_like_positions(a: (u64, u64), b: (u64, u64)) {
            let position = |(xid, n)| EventPosition { xid, n };
            let (a, b) = (position(a), position(b));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }

        #[test]
        fn invalid_texts_are_rejected(text in "[0-9a-f+]{0,31}|[0-9a-f]{33,40}") {
            prop_assert_eq!(text.parse::<EventPosition>(), Err(InvalidPosition));
        }
    }
}
