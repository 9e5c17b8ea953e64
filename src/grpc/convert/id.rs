//! Ids, as text on the wire.

use crate::domain::{
    ids::{FileId, RequestId, TenantId},
    upload_spec,
    violations::Violations,
};

/// A file's id and nothing else.
pub(in crate::grpc) fn file_id(text: &str) -> Result<FileId, Violations> {
    text.parse().map_err(|_| Violations::one("file_id", "must be a UUID"))
}

/// A file's id and a request id, as most changes carry them.
pub(in crate::grpc) fn change(
    file_id: &str,
    request_id: &str,
) -> Result<(FileId, Option<RequestId>), Violations> {
    let mut wrong = Violations::new();
    let file = wrong.take("file_id", file_id.parse::<FileId>().map_err(|_| "must be a UUID"));
    let request = self::request_id(request_id, &mut wrong);
    match file {
        Some(file) => wrong.into_result().map(|()| (file, request)),
        None => Err(wrong),
    }
}

/// A request id; empty is none.
pub(in crate::grpc) fn request_id(text: &str, wrong: &mut Violations) -> Option<RequestId> {
    upload_spec::request_id("request_id", text, wrong)
}

/// The tenant that an operator names; empty is none.
pub(in crate::grpc) fn tenant_id(text: &str, wrong: &mut Violations) -> Option<TenantId> {
    let named =
        (!text.is_empty()).then(|| text.parse::<TenantId>().map_err(|_| "must be a UUID, or empty"))?;
    wrong.take("tenant_id", named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ids_of_a_change_are_reported_together() {
        let wrong = change("7", "8").unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["file_id", "request_id"]);
        let id = "0193a7a0-0000-7000-8000-000000000000";
        assert!(change(id, "").unwrap().1.is_none());
        assert!(change(id, id).unwrap().1.is_some());
    }
}
