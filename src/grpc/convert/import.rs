//! Items of an import, on their way in.

use super::{time, upload};
use crate::{
    app::imports::ImportItem,
    domain::violations::Violations,
    proto::v1::{self, import_item::Source},
};

/// An item, unchecked, and where it is.
pub(in crate::grpc) fn item(item: v1::ImportItem) -> (Option<Source>, ImportItem) {
    let mut spec = upload::spec(item.spec.unwrap_or_default());
    let create_time = time::from_wire("item.create_time", item.create_time, &mut spec.unreadable);
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
