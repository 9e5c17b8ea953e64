//! The templates of migrations and functions.
//!
//! States are numbers in the database, and have names in the files: `{upload_state.open}` is replaced with the
//! number that the enum [`UploadState`] defines. `{function.now}` is replaced with the file of the function.
//! Placeholders are replaced before the SQL is executed, so CHECK constraints, predicates of indexes and
//! functions contain literals. The tests name states in their SQL in the same way.

use super::embedded::FUNCTIONS;
use crate::{
    db::{
        audit_entries::AuditAction,
        events::EventKind,
        jobs::{JobOutcome, JobState},
    },
    domain::{
        caller::{ActorKind, TenantKind, TenantState},
        file::{ContentState, ScanStatus, StateReason, Visibility},
        media_type::MediaKind,
        storage_class::StorageClass,
        upload::UploadState,
        webhook::{DeliveryState, WebhookState},
    },
};

/// A template contains a placeholder that has no value.
#[derive(Debug, thiserror::Error)]
#[error("{location}: unknown placeholder {{{placeholder}}}")]
pub struct TemplateError {
    location: String,
    placeholder: String,
}

/// Replaces the placeholders of a file. `path` is relative to `migrations/`.
pub(super) fn render(path: &str, text: &str) -> Result<String, TemplateError> {
    render_at(&format!("migrations/{path}"), text)
}

/// Replaces the names of states in a statement, such as `{upload_state.open}`, with their numbers. Other
/// braces remain.
pub fn replace_state_names(sql: &str) -> Result<String, TemplateError> {
    render_at("statement", sql)
}

fn render_at(location: &str, text: &str) -> Result<String, TemplateError> {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        rendered.push_str(before);
        let Some((kind, name, tail)) = split_placeholder(after) else {
            rendered.push('{');
            rest = after;
            continue;
        };
        rendered.push_str(&resolve(location, kind, name)?);
        rest = tail;
    }
    rendered.push_str(rest);
    Ok(rendered)
}

/// Splits the text after an opening brace into the two names of a placeholder and the text after it. Returns
/// `None` for other braces, such as those of an empty array.
fn split_placeholder(after: &str) -> Option<(&str, &str, &str)> {
    let (placeholder, tail) = after.split_once('}')?;
    let (kind, name) = placeholder.split_once('.')?;
    let is_name = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    (is_name(kind) && is_name(name)).then_some((kind, name, tail))
}

fn resolve(location: &str, kind: &str, name: &str) -> Result<String, TemplateError> {
    if kind == "function"
        && location.ends_with("/up.sql")
        && let Some(function) = FUNCTIONS.iter().find(|function| function.name == name)
    {
        return Ok(function.render()?.trim_end().to_owned());
    }
    let number = find_number(kind, name);
    number
        .map(|number| number.to_string())
        .ok_or_else(|| TemplateError { location: location.to_owned(), placeholder: format!("{kind}.{name}") })
}

fn find_number(kind: &str, name: &str) -> Option<i16> {
    macro_rules! number_in {
        ($enum:ty) => {
            <$enum>::ALL.iter().find(|value| value.as_str() == name).map(|value| value.number())
        };
    }
    match kind {
        "actor_kind" => number_in!(ActorKind),
        "audit_action" => number_in!(AuditAction),
        "content_state" => number_in!(ContentState),
        "delivery_state" => number_in!(DeliveryState),
        "event_kind" => number_in!(EventKind),
        "job_outcome" => number_in!(JobOutcome),
        "job_state" => number_in!(JobState),
        "media_kind" => number_in!(MediaKind),
        "scan_status" => number_in!(ScanStatus),
        "state_reason" => number_in!(StateReason),
        "storage_class" => number_in!(StorageClass),
        "tenant_kind" => number_in!(TenantKind),
        "tenant_state" => number_in!(TenantState),
        "upload_state" => number_in!(UploadState),
        "visibility" => number_in!(Visibility),
        "webhook_state" => number_in!(WebhookState),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::migrate::embedded::MIGRATIONS;

    #[test]
    fn all_files_render() {
        for migration in MIGRATIONS {
            migration.render().unwrap();
        }
        for function in FUNCTIONS {
            let text = function.render().unwrap();
            assert!(text.contains(&format!(" app.{}(", function.name)), "{}", function.name);
        }
    }

    #[test]
    fn placeholders_become_numbers() {
        let text = "state IN ({upload_state.open}, {upload_state.abandoned}), '{}', {a, b}";
        assert_eq!(render("x/up.sql", text).unwrap(), "state IN (1, 3), '{}', {a, b}");
    }

    #[test]
    fn migration_includes_function() {
        let text = render("x/up.sql", "{function.now}\n").unwrap();
        assert!(text.contains("CREATE OR REPLACE FUNCTION app.now()"), "{text}");
    }

    #[test]
    fn statements_name_states() {
        let sql = "kind = {event_kind.file_deleted} AND action = {audit_action.file_upload} AND x = '{}'";
        assert_eq!(replace_state_names(sql).unwrap(), "kind = 2 AND action = 2 AND x = '{}'");
        for placeholder in ["event_kind.gone", "function.now"] {
            let error = replace_state_names(&format!("{{{placeholder}}}")).unwrap_err().to_string();
            assert_eq!(error, format!("statement: unknown placeholder {{{placeholder}}}"));
        }
    }

    #[test]
    fn unknown_placeholders_are_rejected() {
        for (path, placeholder) in [
            ("x/up.sql", "upload_state.gone"),
            ("x/up.sql", "function.gone"),
            ("functions/x.sql", "function.now"),
        ] {
            let error = render(path, &format!("{{{placeholder}}}")).unwrap_err().to_string();
            assert_eq!(error, format!("migrations/{path}: unknown placeholder {{{placeholder}}}"));
        }
    }
}
