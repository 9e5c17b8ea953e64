//! What a list asks for.

use super::{file, time};
use crate::{
    app::files::list::ListRequest,
    domain::{
        digest::Digest,
        file::FileState,
        file_list::{FileFilter, FileOrder},
        media_type::DECLARED_CHARACTERS_MAX,
        text::{self, EXTERNAL_ID_CHARACTERS_MAX, NAME_CHARACTERS_MAX, TAG_CHARACTERS_MAX, TAGS_MAX},
        upload_spec,
        violations::Violations,
    },
    proto::v1,
};

/// The most values in one list of a filter.
const VALUES_MAX: usize = TAGS_MAX;

/// Everything that a list asks for.
pub(in crate::grpc) fn list(request: v1::ListFilesRequest) -> Result<ListRequest, Violations> {
    let mut wrong = Violations::new();
    if request.page_size < 0 {
        wrong.add("page_size", "must not be negative; 0 means the default");
    }
    let order =
        wrong.ok_or_add("order_by", FileOrder::parse(&request.order_by)).unwrap_or(FileOrder::NEWEST_FIRST);
    let is_full = file::is_full(request.view, &mut wrong);
    let mut filter = request.filter.map(|filter| self::filter(filter, &mut wrong)).unwrap_or_default();
    // A filter on DELETED means it.
    filter.is_deleted_shown = request.show_deleted || filter.states.contains(&FileState::Deleted);
    wrong.into_result()?;
    Ok(ListRequest {
        page_size: request.page_size,
        page_token: request.page_token,
        filter,
        order,
        include_total: request.include_total,
        is_full,
    })
}

fn filter(filter: v1::FileFilter, wrong: &mut Violations) -> FileFilter {
    let entity = filter.entity.map(file::entity_from_wire);
    if let Some(entity) = &entity {
        upload_spec::check_entity("filter.entity", entity, wrong);
    }
    let sha256 = (!filter.sha256.is_empty()).then_some(filter.sha256);
    FileFilter {
        category: word("filter.category", filter.category, EXTERNAL_ID_CHARACTERS_MAX, wrong),
        states: file::states("filter.states", &filter.states, wrong),
        entity,
        tags_all: words("filter.tags_all", filter.tags_all, TAG_CHARACTERS_MAX, wrong),
        tags_any: words("filter.tags_any", filter.tags_any, TAG_CHARACTERS_MAX, wrong),
        mime_types: words("filter.mime_types", filter.mime_types, DECLARED_CHARACTERS_MAX, wrong),
        owner_id: word("filter.owner_id", filter.owner_id, EXTERNAL_ID_CHARACTERS_MAX, wrong),
        create_time_start: time::from_wire("filter.create_time_start", filter.create_time_start, wrong),
        create_time_end: time::from_wire("filter.create_time_end", filter.create_time_end, wrong),
        name_prefix: word("filter.name_prefix", filter.name_prefix, NAME_CHARACTERS_MAX, wrong),
        size_bytes_min: filter.size_bytes_min,
        size_bytes_max: filter.size_bytes_max,
        sha256: sha256.and_then(|raw| wrong.ok_or_add("filter.sha256", Digest::from_slice(&raw))),
        scan_statuses: file::scan_statuses("filter.scan_statuses", &filter.scan_statuses, wrong),
        is_deleted_shown: false,
    }
}

/// A text that narrows the list where it is set.
fn word(field: &str, value: String, characters_max: usize, wrong: &mut Violations) -> Option<String> {
    (!value.is_empty()).then(|| wrong.ok_or_add(field, text::check_line(&value, characters_max)))?
}

/// Texts in order and without duplicates, so that the same filter has the same page tokens.
fn words(field: &str, values: Vec<String>, characters_max: usize, wrong: &mut Violations) -> Vec<String> {
    if values.len() > VALUES_MAX {
        wrong.add(field, format!("must be at most {VALUES_MAX}, are {}", values.len()));
        return Vec::new();
    }
    let mut checked: Vec<String> = values
        .iter()
        .enumerate()
        .filter_map(|(index, value)| {
            wrong.ok_or_add(&format!("{field}[{index}]"), text::check_line(value, characters_max))
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
    fn an_empty_request_lists_everything_newest_first() {
        let request = list(v1::ListFilesRequest::default()).unwrap();
        assert_eq!(request.filter, FileFilter::default());
        assert_eq!(request.order, FileOrder::NEWEST_FIRST);
        assert!(!request.is_full && !request.include_total);
    }

    #[test]
    fn a_filter_is_read_with_its_values_in_one_order() {
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
        let read = list(request).unwrap();
        assert_eq!(read.filter.states, [FileState::Deleted]);
        assert_eq!(read.filter.tags_any, ["a", "b"]);
        assert_eq!(read.filter.sha256, Some(Digest::compute(b"x")));
        assert!(read.is_full && read.filter.is_deleted_shown && read.filter.create_time_start.is_some());
    }

    #[test]
    fn everything_wrong_with_a_list_is_reported_at_once() {
        let filter = v1::FileFilter {
            tags_all: vec!["ok".into(), "a\0b".into()],
            sha256: bytes::Bytes::from_static(b"short"),
            entity: Some(v1::EntityRef::default()),
            ..v1::FileFilter::default()
        };
        let request = v1::ListFilesRequest {
            page_size: -1,
            order_by: "colour".into(),
            view: 9,
            filter: Some(filter),
            ..v1::ListFilesRequest::default()
        };
        let Err(wrong) = list(request) else { panic!("accepted") };
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
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
