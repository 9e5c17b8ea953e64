//! The service, as its callers meet it: the real gRPC server in this process, a real PostgreSQL with a database per test,
//! connected as the service's own roles, a clock that tests move, a store that fails when it is told to. One file a noun.
//!
//! Run through `scripts/with-postgres cargo test --test service`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers of tests are small")]

mod archive;
mod auth;
mod batch_delete;
mod batch_get;
mod bounded_responses;
mod categories;
mod contract;
mod contract_descriptor;
mod copy;
mod damaged;
mod delete;
mod direct;
mod direct_versions;
mod download;
mod download_counts;
mod expire;
mod file_expiry;
mod fsck;
#[allow(dead_code, unused_imports, reason = "tests/faults uses it as well")]
mod harness;
mod holds;
mod import;
mod import_buckets;
mod import_find;
mod import_urls;
mod jobs;
mod life;
mod list;
mod list_education;
mod model;
mod ownership;
mod plans;
mod presets;
mod providers;
mod queue_plans;
mod quota;
mod resume;
mod resume_ends;
mod resume_parts;
mod retries;
mod rounds;
mod schedules;
mod service_info;
mod standard_services;
mod storage_class;
mod storage_move;
mod sweep;
mod sweep_places;
mod tenancy;
mod tenancy_catalog;
mod tenancy_rule;
mod tenant_deletion;
mod tenant_export;
mod tenant_life;
mod transactions;
mod update;
mod update_category;
mod upload;
mod upload_faults;
mod upload_retries;
mod upload_streams;
mod versions;
mod watch;
mod watch_own_writes;
mod webhook_guards;
mod webhook_rounds;
mod webhooks;
mod workers;
