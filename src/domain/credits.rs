//! Credits: the balance of a user, and the entries of its ledger. Amounts are whole credits.

use super::{caller::Actor, clock::Timestamp};

/// The maximum amount of one entry.
pub const ENTRY_AMOUNT_MAX: i64 = 1_000_000_000;
/// The maximum balance of a user. JSON numbers represent it exactly.
pub const BALANCE_MAX: i64 = 1_000_000_000_000_000;
/// The maximum length of the reason of an entry, in characters.
pub const REASON_CHARACTERS_MAX: usize = 255;
/// The maximum length of the reference of an entry, in characters.
pub const REFERENCE_CHARACTERS_MAX: usize = 255;

/// The credits of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreditBalance {
    /// The id of the user or service.
    pub user_id: String,
    /// The sum of the amounts of all its entries.
    pub balance: i64,
    /// The number of its entries, which is the number of the last one.
    pub entry_count: i64,
    /// The time of the last entry. `None` without entries.
    pub update_time: Option<Timestamp>,
}

/// An entry of the ledger of a user. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CreditEntry {
    /// The id of the user or service.
    pub user_id: String,
    /// The place in the ledger of this user, from 1 and without gaps.
    pub number: i64,
    /// The change of the balance: negative for a deduction.
    pub amount: i64,
    pub balance_after: i64,
    pub reason: String,
    /// The id of the order, invoice or file that the entry is for. May be empty.
    pub reference: String,
    pub actor: Actor,
    pub create_time: Timestamp,
}
