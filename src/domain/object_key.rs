//! The name of a stored object. It is made of what we mint and of configured words, never of what a caller
//! typed, and its alphabet is so narrow that a key is also a safe relative path.

use std::fmt;

use chrono::{Datelike, NaiveDate};

use super::ids::{BlobId, TenantId};

/// The longest key. An unfinished object on a local disk carries its key in one file name, and those end at
/// 255 bytes.
pub const OBJECT_KEY_LENGTH_BYTES_MAX: usize = 200;

/// The longest prefix: with it, every category of up to 63 bytes still fits into a key.
pub const OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX: usize = 48;

/// `<prefix>/<tenant id>/<category>/<yyyy>/<mm>/<dd>/<blob id>`; without a prefix it begins with the tenant's
/// id.
///
/// A value of this type never holds an empty, `.` or `..` segment, nor a byte outside `a-z 0-9 _ - . /`. Keys
/// compare bytewise, as object stores list them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    // First, because the derived order is that of the text; the others follow from it.
    text: String,
    tenant: TenantId,
    day: NaiveDate,
    blob: BlobId,
}

/// Why a text is no key of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObjectKeyError {
    /// Longer than [`OBJECT_KEY_LENGTH_BYTES_MAX`].
    #[error("an object key has at most {OBJECT_KEY_LENGTH_BYTES_MAX} bytes")]
    TooLong,
    /// A byte outside the alphabet.
    #[error("an object key holds only a-z, 0-9, '_', '-', '.' and '/'")]
    ForeignCharacter,
    /// An empty, `.` or `..` segment.
    #[error("no segment of an object key may be empty, '.' or '..'")]
    UnsafeSegment,
    /// Tenant, category, day and blob are not where they belong.
    #[error("an object key ends in <tenant id>/<category>/<yyyy>/<mm>/<dd>/<blob id>")]
    WrongShape,
}

impl ObjectKey {
    /// The key of a new blob. `prefix` may be empty or several segments, `category` is exactly one.
    ///
    /// # Errors
    /// When the prefix or the category leaves the alphabet, or the year does not have four digits.
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

    /// The key of another object for the same bytes: same prefix, tenant and category, made on `day` under a new id.
    ///
    /// # Errors
    /// When the year does not have four digits.
    pub fn anew(&self, day: NaiveDate, id: BlobId) -> Result<Self, ObjectKeyError> {
        let stem = self.text.rsplitn(5, '/').nth(4).ok_or(ObjectKeyError::WrongShape)?;
        Self::parse(&format!("{stem}/{}/{id}", day.format("%Y/%m/%d")))
    }

    /// Reads a key back from the database or from a listing.
    ///
    /// # Errors
    /// When the text is not, byte for byte, what [`ObjectKey::for_blob`] would have made.
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
        // The parsers above are lenient (`2026/1/2`, capital letters in ids); one text per key is what we
        // want.
        let key = Self::for_blob(prefix, tenant, category, day, blob)?;
        if key.text == text { Ok(key) } else { Err(shape) }
    }

    /// The key as the store knows it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose object it is.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The day (UTC) on which the key was made: whoever looks for unclaimed objects need only look at young days.
    pub const fn day(&self) -> NaiveDate {
        self.day
    }

    /// What it begins with: the prefix that it was made under, which may be empty.
    pub fn prefix(&self) -> &str {
        self.text.rsplitn(7, '/').nth(6).unwrap_or_default()
    }

    /// The place before every key of another day, beside this one: same prefix, tenant and category. For walks that
    /// skip days; no object has this key.
    pub fn start_of(&self, day: NaiveDate) -> Option<Self> {
        let category = self.text.rsplit('/').nth(4)?;
        let nothing = BlobId::from_uuid(uuid::Uuid::nil());
        Self::for_blob(self.prefix(), self.tenant, category, day, nothing).ok()
    }

    /// The blob whose bytes it holds.
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

/// Whether keys may begin with this prefix: nothing, or several segments with `/` between them.
///
/// # Errors
/// When it is too long, leaves the alphabet, or has an empty, `.` or `..` segment.
pub fn check_prefix(prefix: &str) -> Result<(), ObjectKeyError> {
    match prefix {
        "" => Ok(()),
        _ if prefix.len() > OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX => Err(ObjectKeyError::TooLong),
        _ => check_text(prefix),
    }
}

fn check_text(text: &str) -> Result<(), ObjectKeyError> {
    if text.len() > OBJECT_KEY_LENGTH_BYTES_MAX {
        return Err(ObjectKeyError::TooLong);
    }
    if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/')) {
        return Err(ObjectKeyError::ForeignCharacter);
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
    fn a_key_names_prefix_tenant_category_day_and_blob() {
        let made = key("live/eu", "media_resource").unwrap();
        assert_eq!(made.as_str(), format!("live/eu/{TENANT}/media_resource/2026/01/02/{BLOB}"));
        let read = ObjectKey::parse(made.as_str()).unwrap();
        assert_eq!((read.tenant(), read.day(), read.blob()), (made.tenant(), made.day(), made.blob()));
        assert_eq!(read, made);
    }

    #[test]
    fn a_key_without_a_prefix_has_no_leading_slash() {
        assert_eq!(key("", "avatar").unwrap().as_str(), format!("{TENANT}/avatar/2026/01/02/{BLOB}"));
    }

    #[test]
    fn a_prefix_that_is_accepted_makes_keys_and_one_that_is_refused_makes_none() {
        let longest = "p".repeat(OBJECT_KEY_PREFIX_LENGTH_BYTES_MAX);
        for prefix in ["", "live", "live/eu-1", "a.b_c", &longest] {
            assert_eq!(check_prefix(prefix), Ok(()), "{prefix}");
            assert!(key(prefix, &"c".repeat(63)).is_ok(), "{prefix}");
        }
        for prefix in ["/", "live/", "/live", "a//b", "a/../b", ".", "Live", "a b", "ä", "a\\b"] {
            assert!(check_prefix(prefix).is_err() && key(prefix, "avatar").is_err(), "{prefix}");
        }
        assert_eq!(check_prefix(&format!("{longest}p")), Err(ObjectKeyError::TooLong));
    }

    #[test]
    fn a_day_begins_before_its_keys_and_after_those_of_the_day_before() {
        for prefix in ["", "live", "live/eu"] {
            let key = key(prefix, "avatar").unwrap();
            assert_eq!(key.prefix(), prefix);
            let start = |day| key.start_of(NaiveDate::from_ymd_opt(2026, 1, day).unwrap()).unwrap();
            assert!(start(1) < start(2) && start(2) < key && key < start(3), "{prefix}");
            assert_eq!(start(3).to_string(), key.to_string().replace("01/02", "01/03").replace(BLOB, NIL));
        }
    }

    #[test]
    fn a_text_that_we_would_not_have_made_is_no_key() {
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
        fn no_input_makes_a_key_that_leaves_its_directory(
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
        fn no_text_parses_into_a_key_that_leaves_its_directory(
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
