//! Where an event stands among all of its tenant's: in the order of the transactions' numbers, and within one in the order
//! of writing.
//!
//! As text it has a fixed width, so that the order of the texts, byte by byte, is the order of the positions.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The transaction that wrote it.
    pub xid: u64,
    /// Its number; those of one transaction ascend.
    pub n: u64,
}

/// The text is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position has 32 hexadecimal digits")]
pub struct NoPosition;

impl EventPosition {
    /// Before everything that this transaction and later ones write, and behind everything that earlier ones wrote: where a
    /// reader stands that has seen all of them. Numbers begin at 1.
    pub const fn before(xid: u64) -> Self {
        Self { xid, n: 0 }
    }
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.xid, self.n)
    }
}

impl FromStr for EventPosition {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let is_plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (xid, n) = text.split_at_checked(16).filter(|_| is_plain).ok_or(NoPosition)?;
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| NoPosition);
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
        fn texts_are_ordered_as_positions_are(a: (u64, u64), b: (u64, u64)) {
            let position = |(xid, n)| EventPosition { xid, n };
            let (a, b) = (position(a), position(b));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }

        #[test]
        fn other_texts_are_no_positions(text in "[0-9a-f+]{0,31}|[0-9a-f]{33,40}") {
            prop_assert_eq!(text.parse::<EventPosition>(), Err(NoPosition));
        }
    }
}
