//! The rules of what people write about a file, wherever they write it. `field` is the path under which a violation is told.

use serde_json::{Map, Value};

use super::{clock::Timestamp, policy::Policy, text, violations::Violations};

/// A name is one line, and its extension is not blocked.
pub fn check_name(field: &str, name: &str, policy: &Policy, wrong: &mut Violations) {
    wrong.take(field, text::line(name, text::NAME_CHARACTERS_MAX));
    if let Some(extension) = policy.blocked_extension(name) {
        wrong
            .add(field, format!("files with the extension `{extension}` are blocked by the tenant's policy"));
    }
}

/// A title is one line, or nothing.
pub fn check_title(field: &str, title: &str, wrong: &mut Violations) {
    wrong.take(field, text::optional_line(title, text::TITLE_CHARACTERS_MAX));
}

/// A description may have several lines.
pub fn check_description(field: &str, description: &str, wrong: &mut Violations) {
    wrong.take(field, text::block(description, text::DESCRIPTION_BYTES_MAX));
}

/// What is new in a version is said in one line, or not at all.
pub fn check_change_description(field: &str, text: &str, wrong: &mut Violations) {
    wrong.take(field, text::optional_line(text, text::CHANGE_DESCRIPTION_CHARACTERS_MAX));
}

/// Tags in bytewise order, each once.
pub fn check_tags(field: &str, tags: &[String], wrong: &mut Violations) -> Vec<String> {
    if tags.len() > text::TAGS_MAX {
        wrong.add(field, format!("must be at most {}, are {}", text::TAGS_MAX, tags.len()));
        return Vec::new();
    }
    let line = |(index, tag): (usize, &String)| {
        wrong.take(&format!("{field}[{index}]"), text::line(tag, text::TAG_CHARACTERS_MAX))
    };
    let mut tags: Vec<String> = tags.iter().enumerate().filter_map(line).collect();
    tags.sort();
    tags.dedup();
    tags
}

/// Metadata are small, and fit PostgreSQL's jsonb, which has no NUL.
pub fn check_metadata(field: &str, metadata: &Map<String, Value>, wrong: &mut Violations) {
    match serde_json::to_string(metadata) {
        Ok(json) if json.len() > text::METADATA_BYTES_MAX => wrong.add(
            field,
            format!("must have at most {} bytes as JSON, has {}", text::METADATA_BYTES_MAX, json.len()),
        ),
        Ok(_) if metadata.iter().any(|(key, value)| key.contains('\0') || has_nul(value)) => {
            wrong.add(field, "must not contain U+0000");
        }
        Ok(_) => {}
        Err(error) => wrong.add(field, format!("cannot be written as JSON: {error}")),
    }
}

/// What expires does so in the future.
pub fn check_expire_time(
    field: &str,
    expire_time: Option<Timestamp>,
    now: Timestamp,
    wrong: &mut Violations,
) {
    if expire_time.is_some_and(|expire_time| expire_time <= now) {
        wrong.add(field, "must lie in the future");
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
