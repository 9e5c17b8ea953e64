//! Tests of the presets as data. Their effects are tested through the service.

use super::*;

#[test]
fn all_presets_parse() {
    for name in PRESETS {
        let policy = Policy::preset(name).unwrap();
        assert_eq!(policy.name, name);
        assert!(policy.categories.contains_key(&policy.category_default));
    }
    let unknown = Policy::preset("nonsense").unwrap_err().to_string();
    assert!(unknown.ends_with("the presets are general, workspace, crm, education, images"), "{unknown}");
}

#[test]
fn policy_round_trips_through_json() {
    for name in PRESETS {
        let policy = Policy::preset(name).unwrap();
        let row = serde_json::to_value(&policy).unwrap();
        assert_eq!(serde_json::from_value::<Policy>(row).unwrap(), policy);
    }
}

#[test]
fn education_content_is_readable_by_attached_classes() {
    let policy = Policy::preset("education").unwrap();
    let class = EntityRef { entity_type: "class".into(), entity_id: "7a".into(), field: String::new() };
    let course = EntityRef { entity_type: "course".into(), ..class.clone() };
    assert_eq!(policy.readers("educational_content", &[course, class.clone()]), ["group:7a"]);
    assert!(policy.readers("assessment", &[class]).is_empty());
}

#[test]
fn presets_block_programs_and_archives_as_documented() {
    let blocks = |preset: &str, name: &str| Policy::preset(preset).unwrap().blocked_extension(name).is_some();
    let blocked_by = |name: &str| PRESETS.map(|preset| blocks(preset, name));
    assert_eq!(blocked_by("a.ZIP"), [false, false, true, true, false]);
    assert_eq!(blocked_by("a.exe"), [true, false, true, true, true]);
}

#[test]
fn presets_define_orphans_variants_and_retention() {
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
            RetentionRule::Compliance,
            RetentionRule::ExpireTime
        ]
    );
}

#[test]
fn category_types_override_those_of_the_policy() {
    let (crm, images) = (Policy::preset("crm").unwrap(), Policy::preset("images").unwrap());
    assert!(crm.allowed_types("report").check("application/pdf").is_ok());
    assert!(crm.allowed_types("report").check("text/plain").is_err());
    assert!(images.allowed_types("videos").check("video/webm").is_ok());
    assert!(images.allowed_types("videos").check("image/png").is_err());
    assert!(crm.allowed_types("report").check("audio/mp3").is_ok(), "an alias of audio/mpeg");
    assert!(Policy::preset("general").unwrap().allowed_types("report").is_any());
}
