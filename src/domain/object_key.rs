//! Keys of stored objects. They consist of generated ids and configured words, never of text from callers.
//! Their alphabet is restricted, so that a key is also a safe relative path.

use std::fmt;

use chrono::{Datelike, NaiveDate};

use super::ids::{BlobId, TenantId};

/// The maximum length of a key. Local storage encodes the key of a multipart upload in one file name, which
/// is limited to 255 bytes.
pub const OBJECT_KEY_LENGTH_BYTES_MAX: usize = 200;

/// The maximum length of a prefix. With a prefix of this length, a category of up to 63 bytes fits into a
/// key.
pub const OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX: usize = 48;

/// The key of a stored object: `<prefix>/<tenant id>/<category>/<yyyy>/<mm>/<dd>/<blob id>`. Without a prefix
/// it starts with the tenant id.
///
/// A key never contains an empty, `.` or `..` segment, nor a byte outside `a-z 0-9 _ - . /`. Keys sort by
/// their bytes, as in the listings of object stores.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    // Must be the first field, because it determines the derived order. The others are parsed from it.
    text: String,
    tenant: TenantId,
    day: NaiveDate,
    blob: BlobId,
}

/// The reason that a string is not a valid object key or prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObjectKeyError {
    /// The key is longer than [`OBJECT_KEY_LENGTH_BYTES_MAX`], or the prefix is longer than
    /// [`OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX`].
    #[error("object key or prefix has {length_bytes} bytes; the limit is {length_bytes_max}")]
    TooLong { length_bytes: usize, length_bytes_max: usize },
    /// The key contains a byte outside the alphabet.
    #[error("object key may contain only a-z, 0-9, '_', '-', '.' and '/'")]
    InvalidCharacter,
    /// The key contains an empty, `.` or `..` segment.
    #[error("object key must not contain an empty, '.' or '..' segment")]
    UnsafeSegment,
    /// The key does not end in tenant, category, day and blob.
    #[error("object key must end in <tenant id>/<category>/<yyyy>/<mm>/<dd>/<blob id>")]
    WrongShape,
}

impl ObjectKey {
    /// Creates the key of a new blob. `prefix` may be empty or have several segments; `category` is exactly
    /// one segment.
    ///
    /// # Errors
    /// Returns an error if the prefix or the category contains an invalid byte or segment, or if the year
    /// does not have four digits.
    pub fn for_blob(
        prefix: &str,
        tenant: TenantId,
        category: &str,
        day: NaiveDate,
        blob: BlobId,
    ) -> Result<Self, ObjectKeyError> {
        if !(0..=9999).contains(&day.year()) || category.contains('/') {
            return Err(ObjectKeyError::WrongShape);
        }
        let separator = if prefix.is_empty() { "" } else { "/" };
        let text = format!("{prefix}{separator}{tenant}/{category}/{}/{blob}", day.format("%Y/%m/%d"));
        check_text(&text)?;
        Ok(Self { text, tenant, day, blob })
    }

    /// Creates the key of a copy: same prefix, tenant and category, with another day and blob id.
    ///
    /// # Errors
    /// Returns an error if the year does not have four digits.
    pub fn with_new_blob(&self, day: NaiveDate, id: BlobId) -> Result<Self, ObjectKeyError> {
        let stem = self.text.rsplitn(5, '/').nth(4).ok_or(ObjectKeyError::WrongShape)?;
        Self::parse(&format!("{stem}/{}/{id}", day.format("%Y/%m/%d")))
    }

    /// Parses a key from the database or from a listing.
    ///
    /// # Errors
    /// Returns an error if [`ObjectKey::for_blob`] cannot create this key.
    pub fn parse(text: &str) -> Result<Self, ObjectKeyError> {
        check_text(text)?;
        let shape = ObjectKeyError::WrongShape;
        let mut segments = text.rsplitn(7, '/');
        let mut next = || segments.next().ok_or(shape);
        let blob = next()?.parse().map_err(|_| shape)?;
        let (day, month, year) = (next()?, next()?, next()?);
        let day =
            NaiveDate::parse_from_str(&format!("{year}-{month}-{day}"), "%Y-%m-%d").map_err(|_| shape)?;
        let category = next()?;
        let tenant = next()?.parse().map_err(|_| shape)?;
        let prefix = segments.next().unwrap_or_default();
        // The parsers above also accept other forms (`2026/1/2`, uppercase ids), but each key must have
        // exactly one text form.
        let key = Self::for_blob(prefix, tenant, category, day, blob)?;
        if key.text == text { Ok(key) } else { Err(shape) }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Returns the day (UTC) on which the key was created. The sweeper uses it to list only recent days.
    pub const fn day(&self) -> NaiveDate {
        self.day
    }

    /// Returns the prefix, which may be empty.
    pub fn prefix(&self) -> &str {
        self.text.rsplitn(7, '/').nth(6).unwrap_or_default()
    }

    /// Returns the position before all keys of another day with the same prefix, tenant and category.
    /// Listings use it to skip days; no object has this key.
    pub fn day_start(&self, day: NaiveDate) -> Option<Self> {
        let category = self.text.rsplit('/').nth(4)?;
        let nil_blob = BlobId::from_uuid(uuid::Uuid::nil());
        Self::for_blob(self.prefix(), self.tenant, category, day, nil_blob).ok()
    }

    pub const fn blob(&self) -> BlobId {
        self.blob
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({})", self.text)
    }
}

/// Checks that keys may start with this prefix: an empty string, or segments that are separated by `/`.
///
/// # Errors
/// Returns an error if it is too long, contains an invalid byte, or has an empty, `.` or `..` segment.
pub fn check_prefix(prefix: &str) -> Result<(), ObjectKeyError> {
    match prefix {
        "" => Ok(()),
        _ if prefix.len() > OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX => Err(ObjectKeyError::TooLong {
            length_bytes: prefix.len(),
            length_bytes_max: OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX,
        }),
        _ => check_text(prefix),
    }
}

/// Returns what all keys with a valid prefix start with: the prefix and a `/`, or an empty string. Such a listing can
/// also contain keys with longer prefixes.
pub fn listing_prefix(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
}

fn check_text(text: &str) -> Result<(), ObjectKeyError> {
    if text.len() > OBJECT_KEY_LENGTH_BYTES_MAX {
        return Err(ObjectKeyError::TooLong {
            length_bytes: text.len(),
            length_bytes_max: OBJECT_KEY_LENGTH_BYTES_MAX,
        });
    }
    if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/')) {
        return Err(ObjectKeyError::InvalidCharacter);
    }
    if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(ObjectKeyError::UnsafeSegment);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const TENANT: &str = "0198c0de-0000-7000-8000-000000000001";
    const BLOB: &str = "0198c0de-0000-7000-8000-00000000000b";
    const NIL: &str = "00000000-0000-0000-0000-000000000000";

    fn key(prefix: &str, category: &str) -> Result<ObjectKey, ObjectKeyError> {
        let day = NaiveDate::from_ymd_opt(2026, 1, 2).unwrap();
        ObjectKey::for_blob(prefix, TENANT.parse().unwrap(), category, day, BLOB.parse().unwrap())
    }

    #[test]
    fn key_contains_prefix_tenant_category_day_and_blob() {
        let created = key("live/eu", "media_resource").unwrap();
        assert_eq!(created.as_str(), format!("live/eu/{TENANT}/media_resource/2026/01/02/{BLOB}"));
        let parsed = ObjectKey::parse(created.as_str()).unwrap();
        assert_eq!(
            (parsed.tenant(), parsed.day(), parsed.blob()),
            (created.tenant(), created.day(), created.blob())
        );
        assert_eq!(parsed, created);
    }

    #[test]
    fn key_without_prefix_has_no_leading_slash() {
        assert_eq!(key("", "avatar").unwrap().as_str(), format!("{TENANT}/avatar/2026/01/02/{BLOB}"));
    }

    #[test]
    fn prefix_check_agrees_with_key_creation() {
        let longest = "p".repeat(OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX);
        for prefix in ["", "live", "live/eu-1", "a.b_c", &longest] {
            assert_eq!(check_prefix(prefix), Ok(()), "{prefix}");
            assert!(key(prefix, &"c".repeat(63)).is_ok(), "{prefix}");
        }
        for prefix in ["/", "live/", "/live", "a//b", "a/../b", ".", "Live", "a b", "ä", "a\\b"] {
            assert!(check_prefix(prefix).is_err() && key(prefix, "avatar").is_err(), "{prefix}");
        }
        let error = check_prefix(&format!("{longest}p")).unwrap_err();
        assert_eq!(error.to_string(), "object key or prefix has 49 bytes; the limit is 48");
    }

    #[test]
    fn day_start_sorts_between_keys_of_adjacent_days() {
        for prefix in ["", "live", "live/eu"] {
            let key = key(prefix, "avatar").unwrap();
            assert_eq!(key.prefix(), prefix);
            let start = |day| key.day_start(NaiveDate::from_ymd_opt(2026, 1, day).unwrap()).unwrap();
            assert!(start(1) < start(2) && start(2) < key && key < start(3), "{prefix}");
            assert_eq!(start(3).to_string(), key.to_string().replace("01/02", "01/03").replace(BLOB, NIL));
        }
    }

    #[test]
    fn parse_rejects_keys_that_for_blob_never_creates() {
        let tail = format!("{TENANT}/avatar/2026/01/02/{BLOB}");
        for text in [
            String::new(),
            format!("/{tail}"),
            format!("{tail}/"),
            format!("../{tail}"),
            format!("./{tail}"),
            format!("a//{tail}"),
            format!("a\\{tail}"),
            format!("a\0/{tail}"),
            format!("{TENANT}/avatar/2026/1/2/{BLOB}"),
            format!("{TENANT}/avatar/2026/13/02/{BLOB}"),
            format!("{TENANT}/avatar/2026/01/02"),
            tail.replace('b', "B"),
            format!("{}/{tail}", "p".repeat(OBJECT_KEY_LENGTH_BYTES_MAX)),
        ] {
            assert!(ObjectKey::parse(&text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn created_keys_never_leave_their_directory(
            prefix in "[a-z./~\\\\]{0,12}",
            category in prop_oneof!["\\PC{0,8}", "[a-z./]{0,6}"],
            days in -800_000i32..4_000_000,
            tenant in any::<u128>(),
        ) {
            let Some(day) = NaiveDate::from_num_days_from_ce_opt(days) else { return Ok(()) };
            let tenant = TenantId::from_uuid(Uuid::from_u128(tenant));
            let blob = BlobId::from_uuid(Uuid::from_u128(7));
            if let Ok(key) = ObjectKey::for_blob(&prefix, tenant, &category, day, blob) {
                prop_assert!(key.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert_eq!(ObjectKey::parse(key.as_str()), Ok(key));
            }
        }

        #[test]
        fn parsed_keys_never_leave_their_directory(
            text in "[a-z0-9./-]{0,60}",
            head in "[a-z./]{0,9}",
        ) {
            for text in [text, format!("{head}/{TENANT}/c/2026/01/02/{BLOB}")] {
                if let Ok(key) = ObjectKey::parse(&text) {
                    prop_assert!(key.as_str().split('/').all(|part| !matches!(part, "" | "." | "..")));
                    prop_assert_eq!(key.as_str(), text);
                }
            }
        }
    }
}
