//! Conversion of list requests and their filters.

use super::{file, time};
use crate::{
    app::files::ListRequest,
    domain::{
        digest::Digest,
        file::FileState,
        file_list::{FileFilter, FileOrder},
        media_names::names_of_type,
        media_type::DECLARED_CHARACTERS_MAX,
        principal::canonical_id,
        text::{self, EXTERNAL_ID_CHARACTERS_MAX, NAME_CHARACTERS_MAX, TAG_CHARACTERS_MAX, TAGS_MAX},
        upload_spec,
        violations::Violations,
    },
    proto::v1,
};

/// The maximum number of values in each list of a filter.
const VALUES_MAX: usize = TAGS_MAX;

pub(in crate::grpc) fn list_request_from_proto(
    request: v1::ListFilesRequest,
) -> Result<ListRequest, Violations> {
    let mut violations = Violations::new();
    if request.page_size < 0 {
        violations.add("page_size", "must not be negative; 0 means the default");
    }
    let order = violations
        .ok_or_add("order_by", FileOrder::parse(&request.order_by))
        .unwrap_or(FileOrder::NEWEST_FIRST);
    let is_full = file::is_full_view(request.view, &mut violations);
    let mut filter =
        request.filter.map(|filter| filter_from_proto(filter, &mut violations)).unwrap_or_default();
    // A filter on state DELETED implies `show_deleted`.
    filter.is_deleted_shown = request.show_deleted || filter.states.contains(&FileState::Deleted);
    violations.into_result()?;
    Ok(ListRequest {
        page_size: request.page_size,
        page_token: request.page_token,
        filter,
        order,
        include_total: request.include_total,
        is_full,
    })
}

fn filter_from_proto(filter: v1::FileFilter, violations: &mut Violations) -> FileFilter {
    let entity = filter.entity.map(file::entity_from_proto);
    if let Some(entity) = &entity {
        upload_spec::check_entity("filter.entity", entity, violations);
    }
    let sha256 = (!filter.sha256.is_empty()).then_some(filter.sha256);
    FileFilter {
        category: parse_text("filter.category", filter.category, EXTERNAL_ID_CHARACTERS_MAX, violations),
        states: file::states_from_proto("filter.states", &filter.states, violations),
        entity,
        tags_all: parse_tags("filter.tags_all", &filter.tags_all, violations),
        tags_any: parse_tags("filter.tags_any", &filter.tags_any, violations),
        mime_types: parse_mime_types("filter.mime_types", &filter.mime_types, violations),
        owner_id: parse_text("filter.owner_id", filter.owner_id, EXTERNAL_ID_CHARACTERS_MAX, violations)
            .map(|id| canonical_id(&id)),
        create_time_start: time::from_proto("filter.create_time_start", filter.create_time_start, violations),
        create_time_end: time::from_proto("filter.create_time_end", filter.create_time_end, violations),
        name_prefix: parse_text(
            "filter.name_prefix",
            text::to_nfc(&filter.name_prefix),
            NAME_CHARACTERS_MAX,
            violations,
        ),
        size_bytes_min: filter.size_bytes_min,
        size_bytes_max: filter.size_bytes_max,
        sha256: sha256.and_then(|raw| violations.ok_or_add("filter.sha256", Digest::from_slice(&raw))),
        scan_statuses: file::scan_statuses_from_proto(
            "filter.scan_statuses",
            &filter.scan_statuses,
            violations,
        ),
        is_deleted_shown: false,
    }
}

/// Parses an optional string. Returns `None` if it is empty.
fn parse_text(
    field: &str,
    value: String,
    characters_max: usize,
    violations: &mut Violations,
) -> Option<String> {
    (!value.is_empty()).then(|| violations.ok_or_add(field, text::check_line(&value, characters_max)))?
}

/// Parses tags. They are compared in NFC.
fn parse_tags(field: &str, tags: &[String], violations: &mut Violations) -> Vec<String> {
    let tags: Vec<String> = tags.iter().map(|tag| text::to_nfc(tag)).collect();
    parse_texts(field, &tags, TAG_CHARACTERS_MAX, violations)
}

/// Parses media types, and adds their aliases, so that a list finds a file by any name of its type.
fn parse_mime_types(field: &str, mime_types: &[String], violations: &mut Violations) -> Vec<String> {
    let checked = parse_texts(field, mime_types, DECLARED_CHARACTERS_MAX, violations);
    let mut names: Vec<String> =
        checked.iter().flat_map(|name| names_of_type(name)).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// Parses texts. They are sorted and deduplicated, so that equal filters have equal page tokens.
fn parse_texts(
    field: &str,
    values: &[String],
    characters_max: usize,
    violations: &mut Violations,
) -> Vec<String> {
    if values.len() > VALUES_MAX {
        violations.add(field, format!("must have at most {VALUES_MAX} values, has {}", values.len()));
        return Vec::new();
    }
    let mut checked: Vec<String> = values
        .iter()
        .enumerate()
        .filter_map(|(index, value)| {
            violations.ok_or_add(&format!("{field}[{index}]"), text::check_line(value, characters_max))
        })
        .collect();
    checked.sort();
    checked.dedup();
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_request_lists_all_files_newest_first() {
        let request = list_request_from_proto(v1::ListFilesRequest::default()).unwrap();
        assert_eq!(request.filter, FileFilter::default());
        assert_eq!(request.order, FileOrder::NEWEST_FIRST);
        assert!(!request.is_full && !request.include_total);
    }

    #[test]
    fn filter_values_are_sorted_and_deduplicated() {
        let filter = v1::FileFilter {
            states: vec![v1::FileState::Deleted.into()],
            tags_any: vec!["b".into(), "a".into(), "b".into()],
            sha256: Digest::compute(b"x").as_bytes().to_vec().into(),
            create_time_start: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            ..v1::FileFilter::default()
        };
        let request = v1::ListFilesRequest {
            filter: Some(filter),
            show_deleted: true,
            view: v1::FileView::Full.into(),
            ..v1::ListFilesRequest::default()
        };
        let read = list_request_from_proto(request).unwrap();
        assert_eq!(read.filter.states, [FileState::Deleted]);
        assert_eq!(read.filter.tags_any, ["a", "b"]);
        assert_eq!(read.filter.sha256, Some(Digest::compute(b"x")));
        assert!(read.is_full && read.filter.is_deleted_shown && read.filter.create_time_start.is_some());
    }

    #[test]
    fn all_violations_of_a_list_are_reported() {
        let filter = v1::FileFilter {
            tags_all: vec!["ok".into(), "a\0b".into()],
            sha256: bytes::Bytes::from_static(b"short"),
            entity: Some(v1::EntityRef::default()),
            ..v1::FileFilter::default()
        };
        let request = v1::ListFilesRequest {
            page_size: -1,
            order_by: "color".into(),
            view: 9,
            filter: Some(filter),
            ..v1::ListFilesRequest::default()
        };
        let Err(violations) = list_request_from_proto(request) else { panic!("accepted") };
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        let expected = [
            "page_size",
            "order_by",
            "view",
            "filter.entity.type",
            "filter.entity.id",
            "filter.tags_all[1]",
            "filter.sha256",
        ];
        assert_eq!(fields, expected);
    }
}
