//! Conversions of import items, and of lookups of imported files.

use super::{time, upload};
use crate::{
    app::imports::{FoundImportedFiles, ImportItem, ImportedFile, ImportedFileLookup},
    domain::violations::Violations,
    proto::v1::{self, import_item::Source},
};

/// Returns the source of an item, and the item without its source. Neither is checked.
pub(in crate::grpc) fn item_from_proto(item: v1::ImportItem) -> (Option<Source>, ImportItem) {
    let mut spec = upload::spec_from_proto(item.spec.unwrap_or_default());
    let create_time = time::from_proto("item.create_time", item.create_time, &mut spec.parse_violations);
    (item.source, ImportItem { legacy_id: item.legacy_id, owner_id: item.owner_id, create_time, spec })
}

/// Checks that the item of a prefix sets no field that differs between its objects.
pub(in crate::grpc) fn check_prefix_item(item: &ImportItem) -> Result<(), Violations> {
    let mut violations = Violations::new();
    for (field, is_set) in [
        ("item.legacy_id", !item.legacy_id.is_empty()),
        ("spec.name", !item.spec.name.is_empty()),
        ("spec.size_bytes", item.spec.size_bytes.is_some()),
        ("spec.sha256", item.spec.sha256.is_some()),
    ] {
        if is_set {
            violations.add(field, "differs between objects; omit it, or import the objects one by one");
        }
    }
    violations.into_result()
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
