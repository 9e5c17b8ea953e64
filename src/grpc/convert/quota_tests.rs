//! Tests of the conversions of quotas.

use prost_types::FieldMask;

use super::*;
use crate::domain::{clock::Timestamp, policy::Policy};

fn a_quota() -> Quota {
    let terms = Policy::preset("general").unwrap().quota;
    Quota {
        tenant_id: TenantId::from_uuid(uuid::Uuid::nil()),
        limit_bytes: 1000,
        used_bytes: 900,
        reserved_bytes: 50,
        file_count_max: 10,
        file_count: 3,
        reserved_file_count: 1,
        warning_percent: 80,
        critical_percent: 95,
        file_size_max_bytes: terms.file_size_max_bytes,
        ceiling_bytes: 2000,
        ceiling_file_count: 20,
        pending_deletion_bytes: 400,
        pending_deletion_multiple: 2,
        revision: 7,
        update_time: Timestamp::default(),
        last_warning_sent_time: None,
        alert_emails: vec!["ops@example.org".to_owned()],
    }
}

fn update_request(paths: &[&str], quota: Option<v1::Quota>) -> v1::UpdateQuotaRequest {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    v1::UpdateQuotaRequest { quota, update_mask: Some(FieldMask { paths }), ..Default::default() }
}

#[test]
fn quota_survives_a_round_trip_through_an_update() {
    let wire = to_proto(&a_quota());
    assert_eq!((wire.etag.as_str(), wire.reserved_bytes), ("7", 50));
    let all = [
        "limit_bytes",
        "file_count_max",
        "warning_percent",
        "critical_percent",
        "file_size_max_bytes",
        "ceiling_bytes",
        "ceiling_file_count",
        "alert_emails",
    ];
    let if_etag = wire.etag.clone();
    let request = v1::UpdateQuotaRequest { if_etag, ..update_request(&all, Some(wire)) };
    let UpdateRequest { tenant, update } = update_request_from_proto(request).unwrap();
    assert_eq!((tenant, update.if_etag.as_str()), (None, "7"));
    assert_eq!(update.change.apply(&a_quota()).unwrap(), a_quota());
}

#[test]
fn update_changes_only_fields_in_the_mask() {
    let wire = v1::Quota { limit_bytes: 5, file_count_max: 6, ..Default::default() };
    let update = update_request_from_proto(update_request(&["limit_bytes"], Some(wire))).unwrap().update;
    assert_eq!(update.change, QuotaChange { limit_bytes: Some(5), ..QuotaChange::default() });
}

#[test]
fn all_violations_of_an_update_are_reported() {
    let mut request = update_request(&["used_bytes", "color", "warning_percent"], None);
    request.tenant_id = "7".into();
    request.quota = Some(v1::Quota { warning_percent: 70_000, ..Default::default() });
    let violations = update_request_from_proto(request).unwrap_err();
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    let expected = ["tenant_id", "update_mask.paths[0]", "update_mask.paths[1]", "quota.warning_percent"];
    assert_eq!(fields, expected);

    let violations = update_request_from_proto(update_request(&[], None)).unwrap_err();
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["update_mask", "quota"]);
}

#[test]
fn usage_has_averages_and_omits_empty_entries() {
    let counter = |category: &str, file_count, total_bytes| UsageEntry {
        category: category.into(),
        media_kind: MediaKind::Image,
        file_count,
        total_bytes,
    };
    let counters = vec![counter("avatar", 2, 225), counter("empty", 0, 0), counter("report", 1, 675)];
    let (quota, time) = (a_quota(), Timestamp::default());
    let usage =
        Usage { counters, is_lower_bound: false, measurement: None, level: quota.state().level, quota, time };
    let wire = usage_to_proto(usage);
    assert_eq!(wire.entries.len(), 2);
    assert_eq!((wire.entries[0].average_bytes, wire.entries[0].percent_of_total), (112, 25.0));
    assert_eq!((wire.available_bytes, wire.used_percent), (50, 90.0));
    assert_eq!(wire.level(), v1::QuotaLevel::Warning);
}
