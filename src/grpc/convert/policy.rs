//! Conversions of policies and of changes to categories.

use std::collections::BTreeMap;

use super::{file, id};
use crate::{
    app::policies::{CategoryEdit, StoredPolicy},
    domain::{
        policy::{Category, LinkRules, Policy, ReaderRule, ScanRule, WriteRule, categories::CategoryChange},
        violations::Violations,
    },
    proto::v1,
};

pub(in crate::grpc) fn to_proto(stored: StoredPolicy) -> v1::Policy {
    let etag = stored.etag();
    let links: BTreeMap<String, LinkRules> =
        stored.policy.categories.keys().map(|name| (name.clone(), stored.policy.link_rules(name))).collect();
    let Policy { name, category_default, categories, .. } = stored.policy;
    let category = |(name, category): (String, Category)| v1::Category {
        is_default: name == category_default,
        links: links.get(&name).copied().and_then(links_to_proto),
        name,
        visibility: file::visibility_to_proto(category.visibility).into(),
        read_by_attached_classes: category.readers == ReaderRule::AttachedClasses,
        types: category.types,
    };
    v1::Policy {
        preset: name,
        categories: categories.into_iter().map(category).collect(),
        types: stored.policy.types,
        blocked_extensions: stored.policy.blocked_extensions,
        scan: scan_rule_to_proto(stored.policy.scan).into(),
        write: write_rule_to_proto(stored.policy.write).into(),
        trash_days: i32::try_from(stored.policy.trash.days).unwrap_or(i32::MAX),
        trash_counts_against_quota: stored.policy.trash.counts_against_quota,
        unattached_are_orphans: stored.policy.unattached_are_orphans,
        etag,
        retain_admin_days_max: i32::try_from(stored.policy.retain.admin_days_max).unwrap_or(i32::MAX),
        retain_member_days_max: i32::try_from(stored.policy.retain.member_days_max).unwrap_or(i32::MAX),
        read_only: stored.is_read_only,
    }
}

fn links_to_proto(rules: LinkRules) -> Option<v1::CategoryLinks> {
    let links = v1::CategoryLinks {
        forbidden: rules.are_forbidden,
        password_required: rules.need_password,
        expiry_required: rules.need_expiry,
    };
    (rules != LinkRules::default()).then_some(links)
}

const fn links_from_proto(links: v1::CategoryLinks) -> LinkRules {
    LinkRules {
        are_forbidden: links.forbidden,
        need_password: links.password_required,
        need_expiry: links.expiry_required,
    }
}

const fn scan_rule_to_proto(rule: ScanRule) -> v1::ScanRule {
    match rule {
        ScanRule::NotRequired => v1::ScanRule::NotRequired,
        ScanRule::WhereConfigured => v1::ScanRule::WhereConfigured,
        ScanRule::Required => v1::ScanRule::Required,
    }
}

const fn write_rule_to_proto(rule: WriteRule) -> v1::WriteRule {
    match rule {
        WriteRule::OwnerAndAdmins => v1::WriteRule::OwnerAndAdmins,
        WriteRule::Members => v1::WriteRule::Members,
    }
}

pub(in crate::grpc) fn create_request_from_proto(
    request: v1::CreateCategoryRequest,
) -> Result<CategoryEdit<CategoryChange>, Violations> {
    let mut violations = Violations::new();
    let category = request.category.unwrap_or_default();
    let change = CategoryChange {
        visibility: file::visibility_from_proto("category.visibility", category.visibility, &mut violations),
        is_read_by_classes: Some(category.read_by_attached_classes),
        types: Some(category.types),
        // A new category can only become the default; it cannot stop being it.
        is_default: category.is_default.then_some(true),
        links: category.links.map(links_from_proto),
    };
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    violations.into_result()?;
    Ok(CategoryEdit { name: category.name, change, if_etag: request.if_etag, request_id })
}

pub(in crate::grpc) fn update_request_from_proto(
    request: v1::UpdateCategoryRequest,
) -> Result<CategoryEdit<CategoryChange>, Violations> {
    let mut violations = Violations::new();
    let category = request.category.unwrap_or_default();
    check_has_name("category.name", &category.name, &mut violations);
    let mut change = CategoryChange::default();
    let paths = request.update_mask.unwrap_or_default().paths;
    if paths.is_empty() {
        violations.add("update_mask", "must name at least one field");
    }
    for (index, path) in paths.iter().enumerate() {
        match path.as_str() {
            "visibility" => {
                let field = "category.visibility";
                change.visibility = file::visibility_from_proto(field, category.visibility, &mut violations);
                if category.visibility == 0 {
                    violations.add(field, "must be set");
                }
            }
            "read_by_attached_classes" => change.is_read_by_classes = Some(category.read_by_attached_classes),
            "types" => change.types = Some(category.types.clone()),
            "is_default" => change.is_default = Some(category.is_default),
            "links" => change.links = Some(links_from_proto(category.links.unwrap_or_default())),
            _ => violations.add(
                format!("update_mask.paths[{index}]"),
                "is not a field of a category that can be updated",
            ),
        }
    }
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    violations.into_result()?;
    Ok(CategoryEdit { name: category.name, change, if_etag: request.if_etag, request_id })
}

fn check_has_name(field: &str, name: &str, violations: &mut Violations) {
    if name.is_empty() {
        violations.add(field, "is required");
    }
}

pub(in crate::grpc) fn delete_request_from_proto(
    request: v1::DeleteCategoryRequest,
) -> Result<CategoryEdit<()>, Violations> {
    let mut violations = Violations::new();
    check_has_name("name", &request.name, &mut violations);
    let request_id = id::parse_request_id(&request.request_id, &mut violations);
    violations.into_result()?;
    Ok(CategoryEdit { name: request.name, change: (), if_etag: request.if_etag, request_id })
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;

    #[test]
    fn all_violations_of_an_edit_are_reported() {
        let violations = update_request_from_proto(v1::UpdateCategoryRequest {
            category: None,
            update_mask: Some(FieldMask { paths: vec!["visibility".into(), "name".into()] }),
            request_id: "7".into(),
            ..v1::UpdateCategoryRequest::default()
        })
        .unwrap_err();
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        let expected = ["category.name", "category.visibility", "update_mask.paths[1]", "request_id"];
        assert_eq!(fields, expected);
    }

    #[test]
    fn update_takes_only_fields_in_the_mask() {
        let category = v1::Category {
            name: "a".into(),
            types: vec!["image/png".into()],
            is_default: true,
            ..v1::Category::default()
        };
        let edit = update_request_from_proto(v1::UpdateCategoryRequest {
            category: Some(category),
            update_mask: Some(FieldMask { paths: vec!["types".into()] }),
            ..v1::UpdateCategoryRequest::default()
        })
        .unwrap();
        let types = Some(vec!["image/png".to_owned()]);
        assert_eq!(edit.change, CategoryChange { types, ..CategoryChange::default() });
    }

    #[test]
    fn presets_have_one_default_category() {
        for preset in crate::domain::policy::PRESETS {
            let policy = to_proto(StoredPolicy {
                policy: Policy::preset(preset).unwrap(),
                revision: 3,
                is_read_only: false,
            });
            assert_eq!((policy.preset.as_str(), policy.etag.as_str()), (preset, "3"));
            assert_eq!(policy.categories.iter().filter(|category| category.is_default).count(), 1);
        }
    }
}
