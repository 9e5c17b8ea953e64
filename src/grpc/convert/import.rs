//! Conversions of the messages and reports of an import, and of lookups of imported files.

use super::{time, upload};
use crate::{
    app::{
        Error,
        imports::{
            FoundImportedFiles, ImportItem, ImportMessage, ImportOptions, ImportReport, ImportSummary,
            ImportedFile, ImportedFileLookup, ItemSource, ObjectLocation, ObjectOutcome, ObjectProperties,
            ObjectReport, PrefixEnd,
        },
    },
    domain::principal::canonical_id,
    grpc::status,
    proto::v1::{
        self, import_files_request::Message, import_files_response::Message as Report, import_item::Source,
    },
};

/// Converts a message without checking it.
pub(in crate::grpc) fn message_from_proto(request: v1::ImportFilesRequest) -> ImportMessage {
    match request.message {
        Some(Message::Options(options)) => {
            ImportMessage::Options(ImportOptions { source: options.source, is_dry_run: options.dry_run })
        }
        Some(Message::Item(item)) => ImportMessage::Item(Box::new(item_from_proto(item))),
        None => ImportMessage::Empty,
    }
}

fn item_from_proto(item: v1::ImportItem) -> ImportItem {
    let mut spec = upload::spec_from_proto(item.spec.unwrap_or_default());
    let create_time = time::from_proto("item.create_time", item.create_time, &mut spec.parse_violations);
    let source = item.source.map(|source| match source {
        Source::ObjectKey(key) => ItemSource::Object(ObjectLocation::Key(key)),
        Source::Url(url) => ItemSource::Object(ObjectLocation::Url(url)),
        Source::ObjectPrefix(prefix) => ItemSource::Prefix(prefix),
    });
    let owner_id = canonical_id(&item.owner_id);
    let properties = ObjectProperties { legacy_id: item.legacy_id, owner_id, create_time, spec };
    ImportItem { source, properties }
}

/// Converts a report. `call_id` is that of the import.
pub(in crate::grpc) fn report_to_proto(report: ImportReport, call_id: &str) -> v1::ImportFilesResponse {
    let message = match report {
        ImportReport::Object(report) => Report::Result(object_report_to_proto(report, call_id)),
        ImportReport::PrefixEnd(end) => Report::PrefixEnd(prefix_end_to_proto(end, call_id)),
        ImportReport::Summary(summary) => Report::Summary(summary_to_proto(summary)),
    };
    v1::ImportFilesResponse { message: Some(message) }
}

fn object_report_to_proto(report: ObjectReport, call_id: &str) -> v1::ImportResult {
    let mut result = v1::ImportResult { legacy_id: report.legacy_id, ..v1::ImportResult::default() };
    match report.location {
        Some(ObjectLocation::Key(key)) => result.object_key = key,
        Some(ObjectLocation::Url(url)) => result.url = url,
        None => {}
    }
    let outcome = match report.outcome {
        Ok(ObjectOutcome::Imported { file, event }) => {
            result.file_id = file.to_string();
            result.event_position = event.to_string();
            v1::ImportOutcome::Imported
        }
        Ok(ObjectOutcome::AlreadyImported(file)) => {
            result.file_id = file.to_string();
            v1::ImportOutcome::AlreadyImported
        }
        Ok(ObjectOutcome::WouldImport) => v1::ImportOutcome::WouldImport,
        Err(error) => {
            let failure = Failure::new(&error, call_id);
            result.reason = failure.reason.into();
            result.message = failure.message;
            v1::ImportOutcome::Failed
        }
    };
    result.outcome = outcome.into();
    result
}

fn prefix_end_to_proto(end: PrefixEnd, call_id: &str) -> v1::ImportPrefixEnd {
    let PrefixEnd { prefix: object_prefix, object_count, error } = end;
    match error.map(|error| Failure::new(&error, call_id)) {
        Some(Failure { reason, message }) => {
            v1::ImportPrefixEnd { object_prefix, object_count, reason: reason.into(), message }
        }
        None => v1::ImportPrefixEnd { object_prefix, object_count, ..v1::ImportPrefixEnd::default() },
    }
}

const fn summary_to_proto(summary: ImportSummary) -> v1::ImportSummary {
    v1::ImportSummary {
        imported_count: summary.imported_count,
        already_imported_count: summary.already_imported_count,
        would_import_count: summary.would_import_count,
        failed_count: summary.failed_count,
    }
}

/// The reason and the message that the status for an error would have. The import continues after it.
struct Failure {
    reason: v1::ErrorReason,
    message: String,
}

impl Failure {
    /// Describes an error, and logs it like that of a failed request.
    fn new(error: &Error, call_id: &str) -> Self {
        let message = status::status(error, call_id).message().to_owned();
        Self { reason: status::reason(error), message }
    }
}

pub(in crate::grpc) fn lookup_request_from_proto(
    request: v1::FindImportedFilesRequest,
) -> ImportedFileLookup {
    ImportedFileLookup {
        source: request.source,
        object_keys: request.object_keys,
        urls: request.urls,
        legacy_ids: request.legacy_ids,
        is_deleted_shown: request.show_deleted,
    }
}

pub(in crate::grpc) fn found_files_to_proto(found: FoundImportedFiles) -> v1::FindImportedFilesResponse {
    let file_to_proto = |file: ImportedFile| v1::ImportedFile {
        file_id: file.file_id.to_string(),
        source: file.source,
        key: file.key,
        legacy_id: file.legacy_id,
        import_time: Some(time::to_proto(file.import_time)),
    };
    let files = found.files.into_iter().map(file_to_proto).collect();
    v1::FindImportedFilesResponse { files, has_more: found.has_more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response_of(report: ImportReport) -> Report {
        report_to_proto(report, "c-1").message.unwrap()
    }

    #[test]
    fn message_without_content_is_empty() {
        assert!(matches!(message_from_proto(v1::ImportFilesRequest::default()), ImportMessage::Empty));
    }

    #[test]
    fn item_keeps_its_source_and_unreadable_fields() {
        let item = item_from_proto(v1::ImportItem {
            source: Some(Source::ObjectPrefix("users/".into())),
            create_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
            ..v1::ImportItem::default()
        });
        assert!(matches!(item.source, Some(ItemSource::Prefix(prefix)) if prefix == "users/"));
        let violations = item.properties.spec.parse_violations;
        assert_eq!(violations.iter().next().unwrap().field, "item.create_time");
    }

    #[test]
    fn failed_object_has_reason_and_message() {
        let Report::Result(result) = response_of(ImportReport::Object(ObjectReport {
            location: Some(ObjectLocation::Url("https://a.test/b".into())),
            legacy_id: "7".into(),
            outcome: Err(Error::NotFound(crate::app::Resource::SourceObject)),
        })) else {
            panic!("not a result")
        };
        assert_eq!((result.url.as_str(), result.legacy_id.as_str()), ("https://a.test/b", "7"));
        assert_eq!(result.outcome(), v1::ImportOutcome::Failed);
        assert_ne!(result.reason(), v1::ErrorReason::Unspecified);
        assert_eq!(result.message, Error::NotFound(crate::app::Resource::SourceObject).to_string());
    }

    #[test]
    fn complete_prefix_has_no_reason() {
        let end = PrefixEnd { prefix: "users/".into(), object_count: 2, error: None };
        let Report::PrefixEnd(end) = response_of(ImportReport::PrefixEnd(end)) else {
            panic!("not the end of a prefix")
        };
        assert_eq!((end.object_prefix.as_str(), end.object_count), ("users/", 2));
        assert_eq!(end.reason(), v1::ErrorReason::Unspecified);
    }
}
