//! Items of an import and lookups of what became of them, on their way in and out.

use super::{time, upload};
use crate::{
    app::imports::{FoundImportedFiles, ImportItem, ImportedFile, ImportedFileLookup},
    domain::violations::Violations,
    proto::v1::{self, import_item::Source},
};

/// An item, unchecked, and where it is.
pub(in crate::grpc) fn item(item: v1::ImportItem) -> (Option<Source>, ImportItem) {
    let mut spec = upload::spec(item.spec.unwrap_or_default());
    let create_time = time::from_wire("item.create_time", item.create_time, &mut spec.parse_violations);
    (item.source, ImportItem { legacy_id: item.legacy_id, owner_id: item.owner_id, create_time, spec })
}

/// Whether what an item says can be true of many objects.
pub(in crate::grpc) fn of_many(item: &ImportItem) -> Result<(), Violations> {
    let mut wrong = Violations::new();
    for (field, is_set) in [
        ("item.legacy_id", !item.legacy_id.is_empty()),
        ("spec.name", !item.spec.name.is_empty()),
        ("spec.size_bytes", item.spec.size_bytes.is_some()),
        ("spec.sha256", item.spec.sha256.is_some()),
    ] {
        if is_set {
            wrong.add(field, "differs from object to object; leave it out, or name the objects one by one");
        }
    }
    wrong.into_result()
}

/// What to look for.
pub(in crate::grpc) fn lookup(request: v1::FindImportedFilesRequest) -> ImportedFileLookup {
    ImportedFileLookup {
        source: request.source,
        object_keys: request.object_keys,
        urls: request.urls,
        legacy_ids: request.legacy_ids,
        is_deleted_shown: request.show_deleted,
    }
}

/// What was found.
pub(in crate::grpc) fn found(found: FoundImportedFiles) -> v1::FindImportedFilesResponse {
    let shown = |file: ImportedFile| v1::ImportedFile {
        file_id: file.file_id.to_string(),
        source: file.source,
        key: file.key,
        legacy_id: file.legacy_id,
        import_time: Some(time::to_wire(file.import_time)),
    };
    let files = found.files.into_iter().map(shown).collect();
    v1::FindImportedFilesResponse { files, has_more: found.has_more }
}
