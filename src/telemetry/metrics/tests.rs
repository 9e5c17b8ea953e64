//! Tests of the metrics: their names and units, and that the alert rules use metrics that exist.

use super::*;

const METHOD: &str = "strongroom.v1.FileService/GetFile";

#[test]
fn counts_requests_by_method_and_code() {
    let metrics = Metrics::for_tests().unwrap();
    let mut request = metrics.start_request(METHOD);
    assert!(metrics.render().unwrap().contains("\nstrongroom_requests_in_flight 1\n"));
    request.set_code("OK");
    drop(request);
    drop(metrics.start_request(METHOD));
    let text = metrics.render().unwrap();
    assert!(
        text.contains(&format!("strongroom_requests_total{{code=\"OK\",method=\"{METHOD}\"}} 1")),
        "{text}"
    );
    let cancelled = format!("strongroom_requests_total{{code=\"CANCELLED\",method=\"{METHOD}\"}} 1");
    assert!(text.contains(&cancelled), "{text}");
    let measured = format!("strongroom_request_duration_seconds_count{{method=\"{METHOD}\"}} 2");
    assert!(text.contains(&measured), "{text}");
    assert!(text.contains("\nstrongroom_requests_in_flight 0\n"), "{text}");
}

/// Records every metric once, and renders all of them.
fn render_all() -> String {
    let metrics = Metrics::for_tests().unwrap();
    metrics.add_uploaded_bytes(5);
    metrics.add_downloaded_bytes(6);
    metrics.count_upload(UploadOutcome::Committed);
    metrics.record_commit(16, Duration::from_millis(4));
    metrics.count_quota_refusal(QuotaLimit::FileSize);
    metrics.record_storage_operation("put", "ok", Duration::from_millis(2));
    metrics.set_storage_up("local", true);
    metrics.set_storage_owned("local", false);
    metrics.set_clock_offset(-6.5);
    metrics.set_queued_jobs(&[("parked", 3)], Duration::from_secs(90));
    metrics.record_job_attempt("delete_expired_files", AttemptOutcome::Done, Some(Duration::from_millis(5)));
    metrics.observe_byte_budget(|| 7);
    metrics.observe_pool("service", || PoolState { in_use: 1, idle: 2, waiting: 3 });
    metrics.observe_pool("system", || PoolState { in_use: 4, idle: 5, waiting: 6 });
    let shares =
        SharesState { capacity: 9, in_use: 8, waiting: 2, refused_tenant: 3, ..SharesState::default() };
    metrics.observe_shares("downloads", move || shares);
    metrics.observe_peers("grpc", || PeersState { open: 5, closed_for_room: 6, refused: 7, beyond_share: 8 });
    metrics.observe_breakers(|| vec![BreakerLevel { provider: "local".to_owned(), level: 2 }]);
    let tick = TickLabels { tick: "delete_blobs", provider: "local".to_owned() };
    metrics.record_tick(&tick, TickOutcome::TimedOut, Duration::from_secs(300));
    metrics.set_tick_age(tick, Duration::from_secs(90));
    metrics.count_scrubbed("local", ScrubOutcome::Damaged);
    metrics.set_damaged_blobs("local", 8);
    metrics.count_replaced_checksums("local");
    metrics.add_scrubbed_bytes("local", 4);
    let oldest = Duration::from_secs(60);
    metrics.set_scrub_level("local", ScrubLevel { left_bytes: 5, oldest });
    metrics.count_replicated("copies");
    metrics.count_repaired("local");
    let pending = ReplicationLevel { pending_blobs: 2, pending_bytes: 9, oldest };
    metrics.set_replication_level("copies", pending);
    metrics.render().unwrap()
}

#[test]
fn damage_is_counted_from_zero() {
    let metrics = Metrics::for_tests().unwrap();
    metrics.start_scrub_counts("local");
    let text = metrics.render().unwrap();
    for line in [
        "strongroom_scrub_objects_total{outcome=\"damaged\",provider=\"local\"} 0",
        "strongroom_scrub_replaced_checksums_total{provider=\"local\"} 0",
        "strongroom_replica_repairs_total{provider=\"local\"} 0",
    ] {
        assert!(text.contains(line), "{line}: an alert on the increase would miss the first one: {text}");
    }
}

#[test]
fn scrape_contains_all_metrics_with_their_units() {
    let text = render_all();
    for line in [
        "strongroom_shares_capacity{resource=\"downloads\"} 9",
        "strongroom_shares_in_use{resource=\"downloads\"} 8",
        "strongroom_shares_waiting{resource=\"downloads\"} 2",
        "strongroom_shares_refusals_total{of=\"tenant\",resource=\"downloads\"} 3",
        "strongroom_connections{port=\"grpc\"} 5",
        "strongroom_connections_closed_total{port=\"grpc\",reason=\"room\"} 6",
        "strongroom_connections_closed_total{port=\"grpc\",reason=\"address\"} 7",
        "strongroom_connections_closed_total{port=\"grpc\",reason=\"share\"} 8",
        "strongroom_uploaded_bytes_total 5",
        "strongroom_downloaded_bytes_total 6",
        "strongroom_uploads_total{outcome=\"committed\"} 1",
        "strongroom_commit_batch_size_bucket{le=\"16\"} 1",
        "strongroom_commit_duration_seconds_bucket{le=\"0.0025\"} 0",
        "strongroom_quota_refusals_total{limit=\"file_size\"} 1",
        "strongroom_storage_operations_total{operation=\"put\",outcome=\"ok\"} 1",
        "strongroom_storage_operation_duration_seconds_count{operation=\"put\"} 1",
        "strongroom_storage_up{provider=\"local\"} 1",
        "strongroom_storage_owned{provider=\"local\"} 0",
        "strongroom_clock_offset_seconds -6.5",
        "strongroom_storage_breaker_state{provider=\"local\"} 2",
        "strongroom_ticks_total{outcome=\"timed_out\",provider=\"local\",tick=\"delete_blobs\"} 1",
        "strongroom_tick_duration_seconds_count{provider=\"local\",tick=\"delete_blobs\"} 1",
        "strongroom_scrub_objects_total{outcome=\"damaged\",provider=\"local\"} 1",
        "strongroom_damaged_blobs{provider=\"local\"} 8",
        "strongroom_scrub_replaced_checksums_total{provider=\"local\"} 1",
        "strongroom_scrub_read_bytes_total{provider=\"local\"} 4",
        "strongroom_scrub_left_bytes{provider=\"local\"} 5",
        "strongroom_scrub_oldest_seconds{provider=\"local\"} 60",
        "strongroom_replica_copies_total{provider=\"copies\"} 1",
        "strongroom_replica_repairs_total{provider=\"local\"} 1",
        "strongroom_replica_pending_blobs{provider=\"copies\"} 2",
        "strongroom_replica_pending_bytes{provider=\"copies\"} 9",
        "strongroom_replica_oldest_pending_seconds{provider=\"copies\"} 60",
        "strongroom_jobs_queued{state=\"parked\"} 3",
        "strongroom_jobs_oldest_due_seconds 90",
        "strongroom_job_attempts_total{kind=\"delete_expired_files\",outcome=\"done\"} 1",
        "strongroom_job_duration_seconds_count{kind=\"delete_expired_files\"} 1",
        "strongroom_byte_budget_used_bytes 7",
        "strongroom_db_pool_connections{pool=\"service\",state=\"in_use\"} 1",
        "strongroom_db_pool_connections{pool=\"system\",state=\"idle\"} 5",
        "strongroom_db_pool_waiting{pool=\"system\"} 6",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

/// The alert rules for Prometheus, and the documentation of the metrics.
const ALERTS: &str = include_str!("../../../deploy/alerts.yaml");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Returns the names of metrics in a text, without the suffixes of histograms.
fn metric_names(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("strongroom_"));
    let without_suffix = |name: &str| {
        let stem = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        stem.unwrap_or(name).to_owned()
    };
    names.map(without_suffix).collect()
}

#[test]
fn alert_rules_use_metrics_that_exist() {
    let expressions: String =
        ALERTS.lines().filter(|line| line.contains("expr: ")).collect::<Vec<_>>().join("\n");
    let (used, exported, documented) =
        (metric_names(&expressions), metric_names(&render_all()), metric_names(OPERATIONS));
    assert!(used.len() >= 5, "{used:?}");
    for name in &used {
        assert!(exported.contains(name), "{name} is not exported");
        assert!(documented.contains(name), "{name} is not documented");
    }
    assert!(used.contains("strongroom_tick_age_seconds"));
}

#[test]
fn every_alert_has_a_severity_and_a_summary() {
    let count = |text: &str| ALERTS.matches(text).count();
    let alerts = count("- alert: ");
    assert!(alerts >= 5, "{alerts} alerts");
    for part in ["expr: ", "for: ", "severity: ", "summary: "] {
        assert_eq!(count(part), alerts, "{part}");
    }
}
