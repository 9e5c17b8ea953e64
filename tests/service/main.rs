//! Tests of the service through its gRPC API. The server runs in this process. Each test has its own database
//! on a real PostgreSQL, to which the service connects with its own roles. Tests control the clock and inject
//! faults into the store.
//!
//! Run through `scripts/with-postgres cargo test --test service`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers in tests are small")]

mod archive;
mod audit_retention;
mod auth;
mod background_isolation;
mod batch_delete;
mod batch_get;
mod block_checksums;
mod bounded_responses;
mod broken_requests;
mod categories;
mod clocks;
mod connections;
mod contract;
mod contract_descriptor;
mod copy;
mod damaged;
mod delete;
mod direct;
mod direct_repeats;
mod direct_versions;
mod doubles;
mod download;
mod download_counts;
mod early_responses;
mod erasures;
mod expire;
mod fairness;
mod file_expiry;
mod first_calls;
mod fsck;
mod growing_parts;
#[allow(dead_code, unused_imports, reason = "tests/faults uses the rest of the harness")]
mod harness;
mod hidden_files;
mod holds;
mod import;
mod import_buckets;
mod import_find;
mod import_urls;
mod issuers;
mod job_waits;
mod jobs;
mod large_headers;
mod list;
mod list_education;
mod lost_parts;
mod media_types;
mod model;
mod ownership;
mod partitions;
mod pending_deletion;
mod pgbouncer;
mod plans;
mod preconditions;
mod presets;
mod providers;
mod queue_plans;
mod quota;
mod rechecks;
mod required_fields;
mod resume;
mod resume_edge_cases;
mod resume_parts;
mod retain_limits;
mod retries;
mod rounds;
mod schedules;
mod schema;
mod schema_file;
mod service_info;
mod shutdown;
#[path = "../stalled_calls/mod.rs"]
mod stalled_calls;
mod standard_services;
mod storage_class;
mod storage_move;
mod store_owner;
mod suspension;
mod sweep;
mod sweep_edge_cases;
mod tenancy;
mod tenancy_catalog;
mod tenancy_rule;
mod tenant_deletion;
mod tenant_export;
mod tenant_shares;
mod tenants;
mod transactions;
mod update;
mod update_category;
mod upload;
mod upload_faults;
mod upload_limits;
mod upload_retries;
mod upload_streams;
mod values;
mod versions;
mod watch;
mod watch_own_writes;
mod webhook_advice;
mod webhook_guards;
mod webhook_rounds;
mod webhooks;
mod workers;
