//! Conversion of update requests for files.

use std::mem;

use super::{file, id, structs, time};
use crate::{
    app::files::{FileChange, UpdateRequest},
    domain::{file_update::FileUpdate, ids::FileId, violations::Violations},
    proto::v1,
};

/// The maximum number of paths in an update mask. A file has fewer fields.
const PATHS_MAX: usize = 64;

pub(in crate::grpc) fn request_from_proto(
    request: v1::UpdateFileRequest,
) -> Result<UpdateRequest, Violations> {
    let mut violations = Violations::new();
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    let mask = request.update_mask.unwrap_or_default().paths;
    if mask.is_empty() {
        violations.add("update_mask", "must name at least one field");
    }
    let mut file = request.file.unwrap_or_default();
    let id = violations.ok_or_add("file.id", file.id.parse::<FileId>().map_err(|_| "must be a UUID"));
    let mut update = FileUpdate::default();
    if mask.len() > PATHS_MAX {
        // Checked before the paths are read, because copying a field moves it.
        return Err(Violations::one("update_mask", format!("must name at most {PATHS_MAX} fields")));
    }
    for (index, path) in mask.iter().enumerate() {
        if mask[..index].contains(path) {
            violations.add(format!("update_mask.paths[{index}]"), "is repeated");
            continue;
        }
        if let Err(problem) = set_field(&mut update, path, &mut file, &mut violations) {
            violations.add(format!("update_mask.paths[{index}]"), problem);
        }
    }
    match id {
        Some(id) if violations.is_empty() => {
            let change = FileChange { file: id, if_etag: request.if_etag, request_id };
            Ok(UpdateRequest { change, update })
        }
        _ => Err(violations),
    }
}

/// Moves the field at `path` to the update.
fn set_field(
    update: &mut FileUpdate,
    path: &str,
    file: &mut v1::File,
    violations: &mut Violations,
) -> Result<(), &'static str> {
    match path {
        "name" => update.name = Some(mem::take(&mut file.name)),
        "title" => update.title = Some(mem::take(&mut file.title)),
        "description" => update.description = Some(mem::take(&mut file.description)),
        "category" => update.category = Some(mem::take(&mut file.category)),
        "tags" => update.tags = Some(mem::take(&mut file.tags)),
        "metadata" => {
            let metadata = file.metadata.take().unwrap_or_default();
            update.metadata = Some(structs::from_proto("file.metadata", metadata, violations));
        }
        "visibility" => {
            update.visibility = file::visibility_from_proto("file.visibility", file.visibility, violations);
            if update.visibility.is_none() && file.visibility == 0 {
                violations.add("file.visibility", "must be set");
            }
        }
        "expire_time" => {
            update.expire_time = Some(time::from_proto("file.expire_time", file.expire_time, violations));
        }
        "retain_until_time" => {
            let until = time::from_proto("file.retain_until_time", file.retain_until_time, violations);
            update.retain_until_time = Some(until);
        }
        "id" | "etag" | "tenant_id" | "owner_id" | "created_by" | "updated_by" | "original_name"
        | "mime_type" | "declared_mime_type" | "size_bytes" | "sha256" | "state" | "scan" | "version"
        | "revision" | "create_time" | "update_time" | "delete_time" | "purge_time"
        | "retention_end_time" | "attachments" | "legal_hold" | "state_reason" | "download_count"
        | "last_access_time" => {
            return Err("cannot be changed by an update");
        }
        _ => return Err("is not a field of a file; name fields whole, such as `metadata`"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;

    fn convert_update(file: v1::File, paths: &[&str]) -> Result<UpdateRequest, Violations> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        request_from_proto(v1::UpdateFileRequest {
            file: Some(file),
            update_mask: Some(FieldMask { paths }),
            if_etag: "1-1".into(),
            request_id: String::new(),
        })
    }

    fn file() -> v1::File {
        v1::File { id: "0193a7a0-0000-7000-8000-000000000000".to_owned(), ..v1::File::default() }
    }

    #[test]
    fn update_takes_only_fields_in_the_mask() {
        let file = v1::File { name: "b".into(), title: "t".into(), ..file() };
        let request = convert_update(file, &["title", "expire_time"]).unwrap();
        assert_eq!((request.update.name, request.update.title.as_deref()), (None, Some("t")));
        assert_eq!((request.update.expire_time, request.change.if_etag.as_str()), (Some(None), "1-1"));
    }

    #[test]
    fn all_violations_of_a_mask_are_reported() {
        let violations =
            convert_update(v1::File::default(), &["size_bytes", "visibility", "metadata.a"]).unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file.id", "update_mask.paths[0]", "file.visibility", "update_mask.paths[2]"]);
        let twice = convert_update(file(), &["name", "name"]).unwrap_err();
        assert_eq!(twice.iter().next().unwrap().field, "update_mask.paths[1]");
        assert_eq!(convert_update(file(), &["name"; PATHS_MAX + 1]).unwrap_err().iter().count(), 1);
        assert_eq!(convert_update(file(), &[]).unwrap_err().iter().next().unwrap().field, "update_mask");
    }
}
