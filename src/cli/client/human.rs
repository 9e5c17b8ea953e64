//! Formats sizes, times and names for people, and parses sizes.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, Utc};
use prost_types::Timestamp;

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// Formats a size, such as `1.5 KiB` for 1536. Rounds down, so that a limit is never displayed as larger than
/// it is.
pub(super) fn size(bytes: i64) -> String {
    for (unit, shift) in UNITS {
        if bytes >> shift > 0 {
            let tenths = (i128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// Parses a size such as `1048576`, `10GiB` or `10 GB`. `K`, `M`, `G` and `T` alone are binary units, as in
/// most tools.
pub(super) fn parse_size(text: &str) -> Result<i64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: i64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => {
            return Err(
                "unknown unit; use a whole number of bytes, or one with KiB, MiB, GiB, TiB, KB, MB, GB or TB"
                    .to_owned(),
            );
        }
    };
    let number: i64 =
        number.parse().map_err(|_| "not a whole number; use a size such as 1048576 or 10GiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "the size exceeds the maximum of 8 EiB".to_owned())
}

/// Converts a protobuf timestamp. Returns `None` if it is out of range.
pub(super) fn time(at: &Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?)
}

/// Parses a time such as `2030-01-31T08:30:00Z`, or a date such as `2030-01-31`, which means midnight UTC.
pub(super) fn parse_time(text: &str) -> Result<DateTime<FixedOffset>, String> {
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(NaiveTime::MIN).and_utc().fixed_offset());
    }
    DateTime::parse_from_rfc3339(text)
        .map_err(|_| "use a date such as 2030-01-31, or a time such as 2030-01-31T08:30:00Z".to_owned())
}

/// Converts a time. chrono encodes a leap second as more than 999,999,999 ns, which a protobuf timestamp cannot
/// represent.
pub(super) fn timestamp(time: DateTime<FixedOffset>) -> Timestamp {
    let nanos = i32::try_from(time.timestamp_subsec_nanos().min(999_999_999)).unwrap_or_default();
    Timestamp { seconds: time.timestamp(), nanos }
}

/// Formats a time as `2026-08-30 14:05 UTC`, or returns a dash for no time.
pub(super) fn time_column(at: Option<&Timestamp>) -> String {
    at.and_then(time).map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%d %H:%M UTC").to_string())
}

/// Makes untrusted text safe for a terminal: escapes characters that could move the cursor, change colors or
/// change the text direction.
pub(super) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    safe
}

/// Whether a character is a control character, a line separator, or changes the text direction.
pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061C}' | '\u{200B}' | '\u{200E}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}' | '\u{E0000}'..='\u{E007F}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_formatted_in_binary_units_rounded_down() {
        let formatted = [0, 1_023, 1_024, 1_536, 1_048_575, 1 << 30, i64::MAX].map(size);
        assert_eq!(
            formatted,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 GiB", "8388607.9 TiB"]
        );
    }

    #[test]
    fn parse_size_accepts_optional_unit() {
        assert_eq!(parse_size("1048576"), Ok(1 << 20));
        assert_eq!(parse_size("10GiB"), Ok(10 << 30));
        assert_eq!(parse_size("10 gb"), Ok(10_000_000_000));
        assert_eq!(parse_size("2M"), Ok(2 << 20));
        for wrong in ["", "GiB", "-1", "1.5GiB", "10 XiB", "9999999999TiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn date_without_time_is_midnight_utc() {
        assert_eq!(parse_time("2030-01-31"), parse_time("2030-01-31T00:00:00Z"));
        assert_eq!(parse_time("2030-01-31T02:00:00+02:00"), parse_time("2030-01-31"));
        for wrong in ["", "31.01.2030", "2030-02-30", "2030-01-31 08:30"] {
            assert!(parse_time(wrong).unwrap_err().contains("2030-01-31"), "{wrong}");
        }
    }

    #[test]
    fn printable_escapes_terminal_control_characters() {
        assert_eq!(printable("a\u{1b}[31mb\u{202e}c\n"), "a\\u{1b}[31mb\\u{202e}c\\u{a}");
        assert_eq!(printable("отчёт 報告.pdf"), "отчёт 報告.pdf");
    }
}
