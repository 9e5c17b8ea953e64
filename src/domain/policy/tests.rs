//! The shipped presets, as data. What they do is tested through the service.

use super::*;

#[test]
fn every_shipped_preset_reads() {
    for name in PRESETS {
        let policy = Policy::preset(name).unwrap();
        assert_eq!(policy.name, name);
        assert!(policy.categories.contains_key(&policy.category_default));
    }
    let unknown = Policy::preset("nonsense").unwrap_err().to_string();
    assert!(unknown.ends_with("the presets are general, workspace, crm, education, images"), "{unknown}");
}

#[test]
fn a_policy_survives_its_way_through_the_tenant_row() {
    for name in PRESETS {
        let policy = Policy::preset(name).unwrap();
        let row = serde_json::to_value(&policy).unwrap();
        assert_eq!(serde_json::from_value::<Policy>(row).unwrap(), policy);
    }
}

#[test]
fn education_shows_a_lesson_to_the_class_it_is_attached_to() {
    let policy = Policy::preset("education").unwrap();
    let class = EntityRef { entity_type: "class".into(), entity_id: "7a".into(), field: String::new() };
    let course = EntityRef { entity_type: "course".into(), ..class.clone() };
    assert_eq!(policy.readers("educational_content", &[course, class.clone()]), ["group:7a"]);
    assert!(policy.readers("assessment", &[class]).is_empty());
}

#[test]
fn archives_are_blocked_in_education_and_crm_and_programs_everywhere_but_where_any_type_may_come() {
    let blocks = |preset: &str, name: &str| Policy::preset(preset).unwrap().blocked_extension(name).is_some();
    let of = |name: &str| PRESETS.map(|preset| blocks(preset, name));
    assert_eq!(of("a.ZIP"), [false, false, true, true, false]);
    assert_eq!(of("a.exe"), [true, false, true, true, true]);
}

#[test]
fn what_later_work_reads_of_a_preset_stands_in_it() {
    let policies = PRESETS.map(|preset| Policy::preset(preset).unwrap());
    let thumbnails = VariantRule::Always(vec!["thumb_150x150".to_owned(), "optimized".to_owned()]);
    assert_eq!(
        policies.each_ref().map(|policy| policy.unattached_are_orphans),
        [false, false, false, false, true]
    );
    assert_eq!(
        policies.each_ref().map(|policy| policy.variants.clone()),
        [
            VariantRule::None,
            VariantRule::None,
            thumbnails,
            VariantRule::ByRequest,
            VariantRule::DimensionsOnly
        ]
    );
    assert_eq!(
        policies.each_ref().map(|policy| policy.retention),
        [
            RetentionRule::None,
            RetentionRule::None,
            RetentionRule::None,
            RetentionRule::AsComplianceSays,
            RetentionRule::ExpireTime
        ]
    );
}

#[test]
fn a_category_takes_its_own_types_or_those_of_the_policy() {
    let (crm, images) = (Policy::preset("crm").unwrap(), Policy::preset("images").unwrap());
    assert!(crm.taken_types("report").check("application/pdf").is_ok());
    assert!(crm.taken_types("report").check("text/plain").is_err());
    assert!(images.taken_types("videos").check("video/webm").is_ok());
    assert!(images.taken_types("videos").check("image/png").is_err());
    assert!(Policy::preset("general").unwrap().taken_types("report").is_any());
}
