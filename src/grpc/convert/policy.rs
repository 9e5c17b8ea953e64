//! Policies on their way out, and edits of categories.

use super::{file, id};
use crate::{
    app::policies::{Edit, StoredPolicy},
    domain::{
        policy::{Category, Policy, ReaderRule, ScanRule, WriteRule, categories::CategoryChange},
        violations::Violations,
    },
    proto::v1,
};

/// A policy on the wire.
pub(in crate::grpc) fn policy(stored: StoredPolicy) -> v1::Policy {
    let etag = stored.etag();
    let Policy { name, category_default, categories, .. } = stored.policy;
    let category = |(name, category): (String, Category)| v1::Category {
        is_default: name == category_default,
        name,
        visibility: file::visibility(category.visibility).into(),
        read_by_attached_classes: category.readers == ReaderRule::AttachedClasses,
        types: category.types,
    };
    v1::Policy {
        preset: name,
        categories: categories.into_iter().map(category).collect(),
        types: stored.policy.types,
        blocked_extensions: stored.policy.blocked_extensions,
        scan: scan(stored.policy.scan).into(),
        write: write(stored.policy.write).into(),
        trash_days: i32::try_from(stored.policy.trash.days).unwrap_or(i32::MAX),
        trash_counts_against_quota: stored.policy.trash.counts_against_quota,
        unattached_are_orphans: stored.policy.unattached_are_orphans,
        etag,
    }
}

const fn scan(rule: ScanRule) -> v1::ScanRule {
    match rule {
        ScanRule::NotRequired => v1::ScanRule::NotRequired,
        ScanRule::WhereConfigured => v1::ScanRule::WhereConfigured,
        ScanRule::Required => v1::ScanRule::Required,
    }
}

const fn write(rule: WriteRule) -> v1::WriteRule {
    match rule {
        WriteRule::OwnerAndAdmins => v1::WriteRule::OwnerAndAdmins,
        WriteRule::Members => v1::WriteRule::Members,
    }
}

/// A category to add.
pub(in crate::grpc) fn creation(
    request: v1::CreateCategoryRequest,
) -> Result<Edit<CategoryChange>, Violations> {
    let mut wrong = Violations::new();
    let category = request.category.unwrap_or_default();
    let change = CategoryChange {
        visibility: file::visibility_from_wire("category.visibility", category.visibility, &mut wrong),
        is_read_by_classes: Some(category.read_by_attached_classes),
        types: Some(category.types),
        // A category that is none yet takes nothing away from any.
        is_default: category.is_default.then_some(true),
    };
    let request_id = id::request_id(&request.request_id, &mut wrong);
    wrong.into_result()?;
    Ok(Edit { name: category.name, change, if_etag: request.if_etag, request_id })
}

/// A category to change.
pub(in crate::grpc) fn update(
    request: v1::UpdateCategoryRequest,
) -> Result<Edit<CategoryChange>, Violations> {
    let mut wrong = Violations::new();
    let category = request.category.unwrap_or_default();
    check_named("category.name", &category.name, &mut wrong);
    let mut change = CategoryChange::default();
    let paths = request.update_mask.unwrap_or_default().paths;
    if paths.is_empty() {
        wrong.add("update_mask", "must name at least one field");
    }
    for (index, path) in paths.iter().enumerate() {
        match path.as_str() {
            "visibility" => {
                let field = "category.visibility";
                change.visibility = file::visibility_from_wire(field, category.visibility, &mut wrong);
                if category.visibility == 0 {
                    wrong.add(field, "must be set");
                }
            }
            "read_by_attached_classes" => change.is_read_by_classes = Some(category.read_by_attached_classes),
            "types" => change.types = Some(category.types.clone()),
            "is_default" => change.is_default = Some(category.is_default),
            _ => wrong
                .add(format!("update_mask.paths[{index}]"), "is not a field of a category that can change"),
        }
    }
    let request_id = id::request_id(&request.request_id, &mut wrong);
    wrong.into_result()?;
    Ok(Edit { name: category.name, change, if_etag: request.if_etag, request_id })
}

/// An edit must name its category.
fn check_named(field: &str, name: &str, wrong: &mut Violations) {
    if name.is_empty() {
        wrong.add(field, "is required");
    }
}

/// A category to remove.
pub(in crate::grpc) fn deletion(request: v1::DeleteCategoryRequest) -> Result<Edit<()>, Violations> {
    let mut wrong = Violations::new();
    check_named("name", &request.name, &mut wrong);
    let request_id = id::request_id(&request.request_id, &mut wrong);
    wrong.into_result()?;
    Ok(Edit { name: request.name, change: (), if_etag: request.if_etag, request_id })
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;

    #[test]
    fn everything_wrong_with_an_edit_is_reported_together() {
        let wrong = update(v1::UpdateCategoryRequest {
            category: None,
            update_mask: Some(FieldMask { paths: vec!["visibility".into(), "name".into()] }),
            request_id: "7".into(),
            ..v1::UpdateCategoryRequest::default()
        })
        .unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
        let expected = ["category.name", "category.visibility", "update_mask.paths[1]", "request_id"];
        assert_eq!(fields, expected);
    }

    #[test]
    fn only_what_the_mask_names_is_taken() {
        let category = v1::Category {
            name: "a".into(),
            types: vec!["image/png".into()],
            is_default: true,
            ..v1::Category::default()
        };
        let edit = update(v1::UpdateCategoryRequest {
            category: Some(category),
            update_mask: Some(FieldMask { paths: vec!["types".into()] }),
            ..v1::UpdateCategoryRequest::default()
        })
        .unwrap();
        let types = Some(vec!["image/png".to_owned()]);
        assert_eq!(edit.change, CategoryChange { types, ..CategoryChange::default() });
    }

    #[test]
    fn every_preset_goes_out_with_its_categories_and_one_default() {
        for preset in crate::domain::policy::PRESETS {
            let told = policy(StoredPolicy { policy: Policy::preset(preset).unwrap(), revision: 3 });
            assert_eq!((told.preset.as_str(), told.etag.as_str()), (preset, "3"));
            assert_eq!(told.categories.iter().filter(|category| category.is_default).count(), 1);
        }
    }
}
