//! The templates of migrations and functions.
//!
//! States are numbers in the database, and have names in the files: `{upload_state.open}` is replaced with the
//! number that the enum [`UploadState`] defines. `{function.now}` is replaced with the file of the function.
//! Placeholders are replaced before the SQL is executed, so CHECK constraints, predicates of indexes and
//! functions contain literals. The tests name states in their SQL in the same way.

use crate::{
    db::{
        audit_entries::AuditAction,
        events::EventKind,
        jobs::{JobOutcome, JobState},
    },
    domain::{
        access_log::AccessAction,
        breaker::BreakerState,
        caller::{ActorKind, TenantKind, TenantState},
        file::{ContentState, ScanStatus, StateReason, Visibility},
        media_type::MediaKind,
        permission::Permission,
        quota_alert::AlertLevel,
        share::ShareType,
        storage_class::StorageClass,
        upload::UploadState,
        usage_recalculation::RecalculationState,
        visitor_attempts::AttemptScope,
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

/// Replaces the placeholders of a file. `path` is relative to `migrations/`. `find_function` returns the text
/// for `{function.name}`.
pub(super) fn render(
    path: &str,
    text: &str,
    find_function: impl Fn(&str) -> Option<String>,
) -> Result<String, TemplateError> {
    render_at(&format!("migrations/{path}"), text, find_function)
}

/// Replaces the names of states in a statement, such as `{upload_state.open}`, with their numbers. Other
/// braces remain.
pub fn replace_state_names(sql: &str) -> Result<String, TemplateError> {
    render_at("statement", sql, |_| None)
}

fn render_at(
    location: &str,
    text: &str,
    find_function: impl Fn(&str) -> Option<String>,
) -> Result<String, TemplateError> {
    let mut rendered = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        rendered.push_str(before);
        let Some((kind, name, tail)) = split_placeholder(after) else {
            rendered.push('{');
            rest = after;
            continue;
        };
        let value = match kind {
            "function" => find_function(name),
            _ => find_number(kind, name).map(|number| number.to_string()),
        };
        let unknown =
            || TemplateError { location: location.to_owned(), placeholder: format!("{kind}.{name}") };
        rendered.push_str(&value.ok_or_else(unknown)?);
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

fn find_number(kind: &str, name: &str) -> Option<i16> {
    macro_rules! number_in {
        ($enum:ty) => {
            <$enum>::ALL.iter().find(|value| value.as_str() == name).map(|value| value.number())
        };
    }
    match kind {
        "access_action" => number_in!(AccessAction),
        "actor_kind" => number_in!(ActorKind),
        "alert_level" => number_in!(AlertLevel),
        "attempt_scope" => number_in!(AttemptScope),
        "audit_action" => number_in!(AuditAction),
        "breaker_state" => number_in!(BreakerState),
        "content_state" => number_in!(ContentState),
        "delivery_state" => number_in!(DeliveryState),
        "event_kind" => number_in!(EventKind),
        "job_outcome" => number_in!(JobOutcome),
        "job_state" => number_in!(JobState),
        "media_kind" => number_in!(MediaKind),
        "recalculation_state" => number_in!(RecalculationState),
        "permission" => number_in!(Permission),
        "scan_status" => number_in!(ScanStatus),
        "share_type" => number_in!(ShareType),
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

    #[test]
    fn placeholders_become_numbers() {
        let text = "state IN ({upload_state.open}, {upload_state.abandoned}), '{}', {a, b}";
        assert_eq!(render("x/up.sql", text, |_| None).unwrap(), "state IN (1, 3), '{}', {a, b}");
    }

    #[test]
    fn functions_are_included() {
        let find = |name: &str| (name == "now").then(|| "CREATE".to_owned());
        assert_eq!(render("x/up.sql", "a {function.now}", find).unwrap(), "a CREATE");
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
            let error = render(path, &format!("{{{placeholder}}}"), |_| None).unwrap_err().to_string();
            assert_eq!(error, format!("migrations/{path}: unknown placeholder {{{placeholder}}}"));
        }
    }
}
