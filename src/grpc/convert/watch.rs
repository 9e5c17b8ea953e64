//! Watches and their events.

use super::{file, time};
use crate::{
    app::files::watch::{EventFilter, EventKind, FileEvent, MessageBody, WatchMessage, WatchRequest},
    domain::{
        event_position::EventPosition,
        ids::FileId,
        text::{self, EXTERNAL_ID_CHARACTERS_MAX},
        violations::Violations,
    },
    proto::v1::{self, watch_files_response},
};

/// The most kinds in one filter.
const KINDS_MAX: usize = 50;

/// What a watch asks for.
pub(in crate::grpc) fn request(request: v1::WatchFilesRequest) -> Result<WatchRequest, Violations> {
    let mut wrong = Violations::new();
    let filter = request.filter.unwrap_or_default();
    let selection = EventFilter {
        kinds: kinds("filter.kinds", &filter.kinds, &mut wrong).into_iter().map(EventKind::number).collect(),
        file: named("filter.file_id", &filter.file_id, &mut wrong),
    };
    let category = word("filter.category", &filter.category, &mut wrong);
    let owner_id = word("filter.owner_id", &filter.owner_id, &mut wrong);
    wrong.into_result()?;
    Ok(WatchRequest { cursor: request.cursor, selection, category, owner_id })
}

fn named(field: &str, id: &str, wrong: &mut Violations) -> Option<FileId> {
    let parsed = (!id.is_empty()).then(|| id.parse::<FileId>().map_err(|_| "must be a UUID, or empty"))?;
    wrong.ok_or_add(field, parsed)
}

fn word(field: &str, text: &str, wrong: &mut Violations) -> Option<String> {
    (!text.is_empty()).then(|| wrong.ok_or_add(field, text::check_line(text, EXTERNAL_ID_CHARACTERS_MAX)))?
}

/// Kinds from the wire.
pub(super) fn kinds(field: &str, numbers: &[i32], wrong: &mut Violations) -> Vec<EventKind> {
    if numbers.len() > KINDS_MAX {
        wrong.add(field, format!("must have at most {KINDS_MAX} values, has {}", numbers.len()));
        return Vec::new();
    }
    let of = |number: i32| EventKind::ALL.iter().copied().find(|known| i32::from(kind(*known)) == number);
    let read = numbers.iter().enumerate().filter_map(|(place, number)| {
        wrong.ok_or_add(&format!("{field}[{place}]"), of(*number).ok_or("is not a kind of event"))
    });
    read.collect()
}

/// A message of a watch.
pub(in crate::grpc) fn message(message: WatchMessage) -> v1::WatchFilesResponse {
    let sent = match message.body {
        MessageBody::Event(event) => watch_files_response::Message::Event(self::event(*event)),
        MessageBody::Heartbeat(position, at) => {
            watch_files_response::Message::Heartbeat(v1::WatchHeartbeat {
                position: position.to_string(),
                time: Some(time::to_wire(at)),
            })
        }
    };
    v1::WatchFilesResponse { message: Some(sent), cursor: message.cursor }
}

/// An event as callers read it.
fn event(event: FileEvent) -> v1::FileEvent {
    v1::FileEvent {
        position: event.position.to_string(),
        kind: kind(event.kind).into(),
        file_id: event.file_id.to_string(),
        version: event.version,
        actor_id: event.actor_id,
        event_time: Some(time::to_wire(event.time)),
        file: event.file.map(file::basic),
    }
}

/// A kind on the wire.
pub(super) const fn kind(kind: EventKind) -> v1::FileEventKind {
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
    }
}

/// Kinds by their numbers in the database.
pub(super) fn kinds_to_wire(numbers: &[i16]) -> Vec<i32> {
    numbers
        .iter()
        .filter_map(|number| EventKind::from_number(*number))
        .map(|known| kind(known).into())
        .collect()
}

/// The position that the answer to a change tells; empty where nothing had to change.
pub(in crate::grpc) fn position(event: Option<EventPosition>) -> String {
    event.map(|position| position.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_wrong_with_a_filter_is_named() {
        let filter = v1::WatchFilter {
            kinds: vec![1, 0, 999],
            file_id: "7".into(),
            category: "x".repeat(256),
            owner_id: "\u{0}".into(),
        };
        let wrong =
            request(v1::WatchFilesRequest { filter: Some(filter), cursor: String::new() }).unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        let expected =
            ["filter.kinds[1]", "filter.kinds[2]", "filter.file_id", "filter.category", "filter.owner_id"];
        assert_eq!(fields, expected);
    }

    #[test]
    fn every_kind_of_event_has_a_value_of_its_own() {
        let all: std::collections::BTreeSet<i32> =
            EventKind::ALL.iter().map(|known| i32::from(kind(*known))).collect();
        assert_eq!(all.len(), EventKind::ALL.len());
        assert!(!all.contains(&0));
    }
}
