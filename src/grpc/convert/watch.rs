//! Conversions of watch requests and of events.

use super::{file, quota_alert, time};
use crate::{
    app::files::watch::{
        EventFilter, EventKind, EventSubject, FileEvent, MessageBody, WatchMessage, WatchRequest,
    },
    domain::{
        event_position::EventPosition,
        ids::FileId,
        principal::canonical_id,
        text::{self, EXTERNAL_ID_CHARACTERS_MAX},
        violations::Violations,
    },
    proto::v1::{self, watch_files_response},
};

/// The maximum number of kinds in a filter.
const KINDS_MAX: usize = 50;

pub(in crate::grpc) fn request_from_proto(
    request: v1::WatchFilesRequest,
) -> Result<WatchRequest, Violations> {
    let mut violations = Violations::new();
    let filter = request.filter.unwrap_or_default();
    let selection = EventFilter {
        kinds: event_kinds_from_proto("filter.kinds", &filter.kinds, &mut violations)
            .into_iter()
            .map(EventKind::number)
            .collect(),
        file: parse_file_id("filter.file_id", &filter.file_id, &mut violations),
    };
    let category = parse_text("filter.category", &filter.category, &mut violations);
    let owner_id = parse_text("filter.owner_id", &filter.owner_id, &mut violations);
    let owner_id = owner_id.map(|id| canonical_id(&id));
    violations.into_result()?;
    Ok(WatchRequest { cursor: request.cursor, selection, category, owner_id })
}

fn parse_file_id(field: &str, id: &str, violations: &mut Violations) -> Option<FileId> {
    let parsed = (!id.is_empty()).then(|| id.parse::<FileId>().map_err(|_| "must be a UUID, or empty"))?;
    violations.ok_or_add(field, parsed)
}

fn parse_text(field: &str, text: &str, violations: &mut Violations) -> Option<String> {
    (!text.is_empty())
        .then(|| violations.ok_or_add(field, text::check_line(text, EXTERNAL_ID_CHARACTERS_MAX)))?
}

pub(super) fn event_kinds_from_proto(
    field: &str,
    numbers: &[i32],
    violations: &mut Violations,
) -> Vec<EventKind> {
    if numbers.len() > KINDS_MAX {
        violations.add(field, format!("must have at most {KINDS_MAX} values, has {}", numbers.len()));
        return Vec::new();
    }
    let find_kind = |number: i32| {
        EventKind::ALL.iter().copied().find(|known| i32::from(event_kind_to_proto(*known)) == number)
    };
    let read = numbers.iter().enumerate().filter_map(|(index, number)| {
        violations.ok_or_add(&format!("{field}[{index}]"), find_kind(*number).ok_or("is not a kind of event"))
    });
    read.collect()
}

pub(in crate::grpc) fn message_to_proto(message: WatchMessage) -> v1::WatchFilesResponse {
    let body = match message.body {
        MessageBody::Event(event) => watch_files_response::Message::Event(event_to_proto(*event)),
        MessageBody::Heartbeat { position, time } => {
            watch_files_response::Message::Heartbeat(v1::WatchHeartbeat {
                position: position.to_string(),
                time: Some(time::to_proto(time)),
            })
        }
    };
    v1::WatchFilesResponse { message: Some(body), cursor: message.cursor }
}

fn event_to_proto(event: FileEvent) -> v1::FileEvent {
    let SubjectFields { file_id, version, webhook_id, quota_alert_id, quota_level } = event.subject.into();
    v1::FileEvent {
        position: event.position.to_string(),
        kind: event_kind_to_proto(event.kind).into(),
        file_id,
        version,
        revision: event.revision,
        webhook_id,
        quota_alert_id,
        quota_level: quota_level.into(),
        actor_id: event.actor_id,
        event_time: Some(time::to_proto(event.time)),
        file: event.file.map(file::to_basic_proto),
    }
}

/// The fields of a message that state what an event is about.
#[derive(Default)]
pub(super) struct SubjectFields {
    pub(super) file_id: String,
    pub(super) version: i32,
    pub(super) webhook_id: String,
    pub(super) quota_alert_id: String,
    pub(super) quota_level: v1::QuotaLevel,
}

impl From<EventSubject> for SubjectFields {
    fn from(subject: EventSubject) -> Self {
        match subject {
            EventSubject::File { id, version } => {
                Self { file_id: id.to_string(), version, ..Self::default() }
            }
            EventSubject::Webhook(id) => Self { webhook_id: id.to_string(), ..Self::default() },
            EventSubject::QuotaAlert { id, level } => Self {
                quota_alert_id: id.to_string(),
                quota_level: quota_alert::level_to_proto(level),
                ..Self::default()
            },
        }
    }
}

pub(super) const fn event_kind_to_proto(kind: EventKind) -> v1::FileEventKind {
    match kind {
        EventKind::FileCreated => v1::FileEventKind::Created,
        EventKind::FileDeleted => v1::FileEventKind::Deleted,
        EventKind::FileUndeleted => v1::FileEventKind::Undeleted,
        EventKind::FilePurged => v1::FileEventKind::Purged,
        EventKind::FileArchived => v1::FileEventKind::Archived,
        EventKind::FileUnarchived => v1::FileEventKind::Unarchived,
        EventKind::FileUpdated => v1::FileEventKind::Updated,
        EventKind::FileVersionCreated => v1::FileEventKind::VersionCreated,
        EventKind::FileVersionDeleted => v1::FileEventKind::VersionDeleted,
        EventKind::FileHoldSet => v1::FileEventKind::HoldSet,
        EventKind::FileHoldReleased => v1::FileEventKind::HoldReleased,
        EventKind::FileOwnerChanged => v1::FileEventKind::OwnerChanged,
        EventKind::FileDamaged => v1::FileEventKind::Damaged,
        EventKind::FileRepaired => v1::FileEventKind::Repaired,
        EventKind::FileVerified => v1::FileEventKind::Verified,
        EventKind::FileRefused => v1::FileEventKind::Refused,
        EventKind::FileGrantAdded => v1::FileEventKind::GrantAdded,
        EventKind::FileGrantRemoved => v1::FileEventKind::GrantRemoved,
        EventKind::FileShareCreated => v1::FileEventKind::ShareCreated,
        EventKind::FileShareUpdated => v1::FileEventKind::ShareUpdated,
        EventKind::FileShareRevoked => v1::FileEventKind::ShareRevoked,
        EventKind::WebhookDisabled => v1::FileEventKind::WebhookDisabled,
        EventKind::QuotaAlert => v1::FileEventKind::QuotaAlert,
    }
}

/// Converts kinds from their numbers in the database.
pub(super) fn event_kinds_to_proto(numbers: &[i16]) -> Vec<i32> {
    numbers
        .iter()
        .filter_map(|number| EventKind::from_number(*number))
        .map(|known| event_kind_to_proto(known).into())
        .collect()
}

/// Converts the event position of a response to a change. It is empty if nothing had to change.
pub(in crate::grpc) fn position_to_proto(event: Option<EventPosition>) -> String {
    event.map(|position| position.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_of_a_filter_are_reported() {
        let filter = v1::WatchFilter {
            kinds: vec![1, 0, 999],
            file_id: "7".into(),
            category: "x".repeat(256),
            owner_id: "\u{0}".into(),
        };
        let violations =
            request_from_proto(v1::WatchFilesRequest { filter: Some(filter), cursor: String::new() })
                .unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        let expected =
            ["filter.kinds[1]", "filter.kinds[2]", "filter.file_id", "filter.category", "filter.owner_id"];
        assert_eq!(fields, expected);
    }

    #[test]
    fn event_kinds_have_distinct_values() {
        let all: std::collections::BTreeSet<i32> =
            EventKind::ALL.iter().map(|known| i32::from(event_kind_to_proto(*known))).collect();
        assert_eq!(all.len(), EventKind::ALL.len());
        assert!(!all.contains(&0));
    }
}
