//! What an update of a file asks for.

use std::mem;

use super::{file, id, structs, time};
use crate::{
    app::files::{FileChange, update::UpdateRequest},
    domain::{file_update::FileUpdate, ids::FileId, violations::Violations},
    proto::v1,
};

/// More fields than a file has.
const PATHS_MAX: usize = 64;

/// Everything that an update asks for.
pub(in crate::grpc) fn request(request: v1::UpdateFileRequest) -> Result<UpdateRequest, Violations> {
    let mut wrong = Violations::new();
    let request_id = id::request_id(&request.request_id, &mut wrong);
    let mask = request.update_mask.unwrap_or_default().paths;
    if mask.is_empty() {
        wrong.add("update_mask", "must name at least one field");
    }
    let mut file = request.file.unwrap_or_default();
    let named = wrong.take("file.id", file.id.parse::<FileId>().map_err(|_| "must be a UUID"));
    let mut update = FileUpdate::default();
    if mask.len() > PATHS_MAX {
        // Before anything is read: each path takes its field.
        return Err(Violations::one("update_mask", format!("must name at most {PATHS_MAX} fields")));
    }
    for (index, path) in mask.iter().enumerate() {
        if mask[..index].contains(path) {
            wrong.add(format!("update_mask.paths[{index}]"), "stands twice");
            continue;
        }
        if let Err(why) = set(&mut update, path, &mut file, &mut wrong) {
            wrong.add(format!("update_mask.paths[{index}]"), why);
        }
    }
    match named {
        Some(file) if wrong.is_empty() => {
            Ok(UpdateRequest { change: FileChange { file, if_etag: request.if_etag, request_id }, update })
        }
        _ => Err(wrong),
    }
}

/// Takes the field at `path` over into the update.
fn set(
    update: &mut FileUpdate,
    path: &str,
    file: &mut v1::File,
    wrong: &mut Violations,
) -> Result<(), &'static str> {
    match path {
        "name" => update.name = Some(mem::take(&mut file.name)),
        "title" => update.title = Some(mem::take(&mut file.title)),
        "description" => update.description = Some(mem::take(&mut file.description)),
        "category" => update.category = Some(mem::take(&mut file.category)),
        "tags" => update.tags = Some(mem::take(&mut file.tags)),
        "metadata" => {
            let metadata = file.metadata.take().unwrap_or_default();
            update.metadata = Some(structs::from_wire("file.metadata", metadata, wrong));
        }
        "visibility" => {
            update.visibility = file::visibility_from_wire("file.visibility", file.visibility, wrong);
            if update.visibility.is_none() && file.visibility == 0 {
                wrong.add("file.visibility", "must be set");
            }
        }
        "expire_time" => {
            update.expire_time = Some(time::from_wire("file.expire_time", file.expire_time, wrong));
        }
        "retain_until_time" => {
            let until = time::from_wire("file.retain_until_time", file.retain_until_time, wrong);
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

    fn asked(file: v1::File, paths: &[&str]) -> Result<UpdateRequest, Violations> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        request(v1::UpdateFileRequest {
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
    fn only_what_the_mask_names_is_taken() {
        let file = v1::File { name: "b".into(), title: "t".into(), ..file() };
        let asked = asked(file, &["title", "expire_time"]).unwrap();
        assert_eq!((asked.update.name, asked.update.title.as_deref()), (None, Some("t")));
        assert_eq!((asked.update.expire_time, asked.change.if_etag.as_str()), (Some(None), "1-1"));
    }

    #[test]
    fn everything_wrong_with_a_mask_is_reported_together() {
        let wrong = asked(v1::File::default(), &["size_bytes", "visibility", "metadata.a"]).unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file.id", "update_mask.paths[0]", "file.visibility", "update_mask.paths[2]"]);
        let twice = asked(file(), &["name", "name"]).unwrap_err();
        assert_eq!(twice.iter().next().unwrap().field, "update_mask.paths[1]");
        assert_eq!(asked(file(), &["name"; PATHS_MAX + 1]).unwrap_err().iter().count(), 1);
        assert_eq!(asked(file(), &[]).unwrap_err().iter().next().unwrap().field, "update_mask");
    }
}
