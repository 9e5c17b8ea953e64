//! Metering: the prices of a tenant, in credits, and what its ledgers contain because of them.

use super::ids::FileId;

/// The maximum of a price, in credits.
pub const PRICE_MAX: i64 = 1_000_000;
/// The reason of the entry of a download.
pub const DOWNLOAD_REASON: &str = "download";
/// The reason of the entry that returns the price of a visitor's download that sent no byte.
pub const DOWNLOAD_REFUND_REASON: &str = "download refund";
/// The reason of the entry of a day of storage.
pub const STORAGE_REASON: &str = "storage";

const GIB: u128 = 1 << 30;

/// The prices of a tenant. 0 means free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Metering {
    /// The price of downloading a version, in credits.
    pub download_credits: i64,
    /// The price of storing a GiB for a day, in credits.
    pub gib_day_credits: i64,
}

impl Metering {
    /// Returns whether nothing has a price.
    pub fn is_free(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the price of storing bytes for a day, in credits, rounded up.
pub fn storage_credits(bytes: i64, gib_day_credits: i64) -> i64 {
    let factors = (u128::try_from(bytes), u128::try_from(gib_day_credits));
    let (Ok(bytes), Ok(price)) = factors else { return 0 };
    i64::try_from((bytes * price).div_ceil(GIB)).unwrap_or(i64::MAX)
}

/// Returns the reference of the entry of a download.
pub fn download_reference(file: FileId, version: i32) -> String {
    format!("{file}/{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_price_is_rounded_up() {
        let gib = 1 << 30;
        for (bytes, price, credits) in [
            (0, 5, 0),
            (1, 0, 0),
            (1, 1, 1),
            (gib, 1, 1),
            (gib + 1, 1, 2),
            (gib / 2, 3, 2),
            (10 * gib, 7, 70),
            (-1, 7, 0),
        ] {
            assert_eq!(storage_credits(bytes, price), credits, "{bytes} bytes at {price}");
        }
        let most = storage_credits(i64::MAX, PRICE_MAX);
        assert_eq!(most, (1_i64 << 33) * PRICE_MAX, "the largest price does not overflow");
    }

    #[test]
    fn records_of_earlier_releases_have_no_price() {
        let metering: Metering = serde_json::from_str("{}").unwrap();
        assert!(metering.is_free());
    }
}
