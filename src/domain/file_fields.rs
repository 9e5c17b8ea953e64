//! Validation of the fields of a file's record. In all functions, `field` is the path that violations are
//! reported under.

use chrono::TimeDelta;
use serde_json::{Map, Value};

use super::{clock::Timestamp, file_name::clean_name, policy::Policy, text, violations::Violations};

/// The longest retention, in days: a century.
pub const RETENTION_DAYS_MAX: i32 = 36_500;

/// How far the clock of a client that computes the latest permitted time may be ahead.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// Checks a name by the rule of [`file_name`](super::file_name), then that its extension is not blocked.
/// Returns the name to store.
pub fn check_name(field: &str, name: &str, policy: &Policy, violations: &mut Violations) -> String {
    let Some(name) = violations.ok_or_add(field, clean_name(name)) else { return String::new() };
    if let Some(extension) = policy.blocked_extension(&name) {
        violations
            .add(field, format!("files with the extension `{extension}` are blocked by the tenant's policy"));
    }
    name
}

/// Checks that the policy contains the category.
pub fn check_category(field: &str, category: &str, policy: &Policy, violations: &mut Violations) {
    if !policy.categories.contains_key(category) {
        let known = policy.categories.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        violations.add(field, format!("is not a category of this tenant; the categories are {known}"));
    }
}

/// Checks that a title is at most one line.
pub fn check_title(field: &str, title: &str, violations: &mut Violations) {
    violations.ok_or_add(field, text::check_optional_line(title, text::TITLE_CHARACTERS_MAX));
}

/// Checks that a description is a block of text.
pub fn check_description(field: &str, description: &str, violations: &mut Violations) {
    violations.ok_or_add(field, text::check_block(description, text::DESCRIPTION_BYTES_MAX));
}

/// Checks that a change description is at most one line.
pub fn check_change_description(field: &str, text: &str, violations: &mut Violations) {
    violations.ok_or_add(field, text::check_optional_line(text, text::CHANGE_DESCRIPTION_CHARACTERS_MAX));
}

/// Checks tags, and returns them in NFC, sorted bytewise and without duplicates.
pub fn check_tags(field: &str, tags: &[String], violations: &mut Violations) -> Vec<String> {
    if tags.len() > text::TAGS_MAX {
        violations.add(field, format!("must have at most {} tags, has {}", text::TAGS_MAX, tags.len()));
        return Vec::new();
    }
    let line = |(index, tag): (usize, &String)| {
        violations.ok_or_add(
            &format!("{field}[{index}]"),
            text::check_line(&text::to_nfc(tag), text::TAG_CHARACTERS_MAX),
        )
    };
    let mut tags: Vec<String> = tags.iter().enumerate().filter_map(line).collect();
    tags.sort();
    tags.dedup();
    tags
}

/// Checks that metadata contains no NUL, which PostgreSQL's jsonb does not support. The size is checked when
/// the request is decoded, because the limits apply to the encoded metadata.
pub fn check_metadata(field: &str, metadata: &Map<String, Value>, violations: &mut Violations) {
    if metadata.iter().any(|(key, value)| key.contains('\0') || has_nul(value)) {
        violations.add(field, "must not contain U+0000");
    }
}

/// Checks that an expiry time is in the future.
pub fn check_expire_time(
    field: &str,
    expire_time: Option<Timestamp>,
    now: Timestamp,
    violations: &mut Violations,
) {
    if expire_time.is_some_and(|expire_time| expire_time <= now) {
        violations.add(field, "must be in the future");
    }
}

/// Checks that the end of a retention is in the future and at most [`RETENTION_DAYS_MAX`] days ahead.
pub fn check_retain_until_time(
    field: &str,
    retain_until_time: Option<Timestamp>,
    now: Timestamp,
    violations: &mut Violations,
) {
    let Some(until) = retain_until_time else { return };
    if until <= now {
        violations.add(field, "must be in the future");
    }
    if is_beyond(until, now, RETENTION_DAYS_MAX.into()) {
        violations.add(field, format!("must be at most {RETENTION_DAYS_MAX} days in the future"));
    }
}

/// Returns whether a time is more than some days and [`CLOCK_TOLERANCE`] ahead.
fn is_beyond(time: Timestamp, now: Timestamp, days: i64) -> bool {
    now.checked_add_signed(TimeDelta::days(days) + CLOCK_TOLERANCE).is_some_and(|latest| time > latest)
}

/// Checks that the end of a retention is at most `days_max` days ahead, the limit of the policy for the caller's
/// role.
pub fn check_retain_limit(
    field: &str,
    retain_until_time: Option<Timestamp>,
    days_max: u32,
    now: Timestamp,
    violations: &mut Violations,
) {
    let Some(until) = retain_until_time else { return };
    if days_max == 0 {
        violations.add(field, "must be absent: the tenant's policy does not let your role retain files");
    } else if is_beyond(until, now, days_max.into()) {
        let until = until.to_rfc3339();
        violations.add(
            field,
            format!("is {until}; the tenant's policy allows your role at most {days_max} days in the future"),
        );
    }
}

/// Checks that a file does not end before its retention ends. `field` is the field that would end the file at
/// `end`.
pub fn check_end_time(
    field: &str,
    end: Option<Timestamp>,
    retain_until_time: Option<Timestamp>,
    violations: &mut Violations,
) {
    if let (Some(end), Some(until)) = (end, retain_until_time)
        && end < until
    {
        let (end, until) = (end.to_rfc3339(), until.to_rfc3339());
        violations
            .add(field, format!("would delete the file at {end}, before its retain_until_time {until}"));
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admins_retain_ten_calendar_years_by_default() {
        let days_max = Policy::preset("general").unwrap().retain.admin_days_max;
        let is_allowed = |now: &str, until: &str| {
            let mut violations = Violations::new();
            let (now, until) = (now.parse().unwrap(), until.parse().unwrap());
            check_retain_limit("until", Some(until), days_max, now, &mut violations);
            violations.into_result().is_ok()
        };
        assert!(is_allowed("2026-11-30T08:00:00Z", "2036-11-30T08:00:00Z"), "with three leap days");
        assert!(
            is_allowed("2026-11-30T08:00:00Z", "2036-11-30T08:05:00Z"),
            "the clock of the client is ahead"
        );
        assert!(!is_allowed("2026-11-30T08:00:00Z", "2036-11-30T08:05:01Z"));
    }
}
