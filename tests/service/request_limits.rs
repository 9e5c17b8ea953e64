//! Limits of the requests of a caller by action, and the limits that the record of a tenant sets.

use std::{collections::HashMap, time::Instant};

use prost_types::FieldMask;
use strongroom::{
    config::Config,
    proto::{
        admin::v1::{GetTenantRequest, Tenant, TenantRateLimits, UpdateTenantRequest},
        v1::{GetQuotaRequest, ListFilesRequest},
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    harness::{Caller, Service, file_id, reason, service_test, service_test_with, spec, violated_fields},
    shared_rates::{Redis, rate_header, wait_until_shared},
};

/// The seconds whose tokens a bucket holds.
const BURST: usize = 200;

impl Caller {
    async fn set_rate_limits(
        &self,
        tenant: &str,
        paths: &[&str],
        rate_limits: TenantRateLimits,
    ) -> Result<Tenant, Status> {
        let request = UpdateTenantRequest {
            tenant_id: tenant.to_owned(),
            rate_limits: Some(rate_limits),
            update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
            ..UpdateTenantRequest::default()
        };
        Ok(self.tenants.clone().update_tenant(request).await?.into_inner().tenant.unwrap())
    }

    async fn show_rate_limits(&self, tenant: &str) -> Option<TenantRateLimits> {
        let request = GetTenantRequest { tenant_id: tenant.to_owned() };
        self.tenants.clone().get_tenant(request).await.unwrap().into_inner().tenant.unwrap().rate_limits
    }

    /// Returns the tokens of the full bucket that has the fewest left, after a read.
    async fn read_limit(&self) -> usize {
        let response = self.quotas.clone().get_quota(GetQuotaRequest::default()).await.unwrap();
        rate_header(response.metadata(), "limit").unwrap()
    }
}

/// Repeats a call until it is refused. Returns the refusal.
async fn repeat_until_refused<T>(call: impl AsyncFn() -> Result<T, Status>) -> Status {
    // More calls than any bucket of these tests holds.
    for _ in 0..10_000 {
        if let Err(refused) = call().await {
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::ResourceExhausted, "RATE_LIMITED"),
                "{refused:?}"
            );
            return refused;
        }
    }
    panic!("no call was refused");
}

fn metadata(refused: &Status) -> HashMap<String, String> {
    refused.get_details_error_info().unwrap().metadata
}

fn limit_uploads(config: &mut Config) {
    config.rate_limits.caller_uploads_per_second = 1;
    config.rate_limits.burst_seconds = 2;
}

#[test]
fn limit_of_an_action_leaves_other_actions() {
    service_test_with(limit_uploads, |s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        let id = file_id(&alice.upload(spec("a"), b"x").await.unwrap());
        let refused = repeat_until_refused(async || alice.upload(spec("a"), b"x").await).await;
        let message = "too many uploads of this caller: the limit is 1 per second; retry later";
        assert_eq!(refused.message(), message);
        let expected =
            [("scope", "caller"), ("event", "requests"), ("action", "upload"), ("per_second_max", "1")];
        for (key, value) in expected {
            assert_eq!(metadata(&refused)[key], value, "{key}");
        }
        assert!(refused.get_details_retry_info().is_some());
        assert_eq!(rate_header(refused.metadata(), "limit"), Some(2));

        // More of each than an upload has tokens.
        for number in 0..5 {
            alice.get(&id).await.unwrap();
            alice.list(ListFilesRequest::default()).await.unwrap();
            alice.read(&id).await.unwrap();
            alice.rename(&id, &format!("{number}")).await.unwrap();
        }
        bob.upload(spec("b"), b"x").await.unwrap();
    });
}

#[test]
fn every_action_has_its_own_limit() {
    service_test_with(
        |config| {
            let rates = &mut config.rate_limits;
            for limit in [
                &mut rates.caller_reads_per_second,
                &mut rates.caller_lists_per_second,
                &mut rates.caller_downloads_per_second,
                &mut rates.caller_uploads_per_second,
                &mut rates.caller_changes_per_second,
            ] {
                *limit = 1;
            }
            rates.burst_seconds = 2;
        },
        |s| async move {
            let id = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
            let alice = s.alice();
            let refusals = [
                ("read", repeat_until_refused(async || alice.get(&id).await).await),
                ("list", repeat_until_refused(async || alice.list(ListFilesRequest::default()).await).await),
                ("download", repeat_until_refused(async || alice.read(&id).await).await),
                ("upload", repeat_until_refused(async || alice.create_upload(spec("b")).await).await),
                ("change", repeat_until_refused(async || alice.rename(&id, "c").await).await),
            ];
            for (action, refused) in refusals {
                assert_eq!(metadata(&refused)["action"], action);
            }
        },
    );
}

#[test]
fn two_processes_share_the_limit_of_an_action() {
    let redis = Redis::start();
    let url = redis.url();
    service_test_with(
        move |config| {
            config.rate_limits.caller_reads_per_second = 1;
            config.rate_limits.burst_seconds = BURST as u64;
            config.limits.redis_url = Some(url.into());
            config.limits.redis_timeout_milliseconds = 1_000;
        },
        |s| async move {
            let replica = s.start_replica(|_| {}).await;
            for process in [&s, &replica] {
                wait_until_shared(process, &process.gus()).await;
            }
            let (here, there) = (s.mallory(), replica.mallory());
            let started = Instant::now();
            let mut served = 0;
            for _ in 0..BURST {
                for process in [&here, &there] {
                    served += usize::from(process.quota().await.is_ok());
                }
            }
            // One token is added each second.
            let added = started.elapsed().as_secs() as usize + 1;
            assert!((BURST..=BURST + added).contains(&served), "{served} of {BURST} and {added}");
            for process in [&here, &there] {
                process.list(ListFilesRequest::default()).await.unwrap();
            }
            assert!(
                s.member("colleague", "globex", "member", &[]).quota().await.is_ok(),
                "has its own bucket"
            );
            replica.stop().await;
        },
    );
    drop(redis);
}

#[test]
fn process_limits_actions_by_itself_without_redis() {
    service_test_with(
        |config| {
            limit_uploads(config);
            config.limits.redis_url = Some("redis+unix:///nonexistent/socket".into());
        },
        |s| async move {
            let alice = s.alice();
            let id = file_id(&alice.upload(spec("a"), b"x").await.unwrap());
            let refused = repeat_until_refused(async || alice.upload(spec("a"), b"x").await).await;
            assert_eq!(metadata(&refused)["action"], "upload");
            alice.get(&id).await.unwrap();
            s.bob().upload(spec("b"), b"x").await.unwrap();
            assert!(s.read_metric("strongroom_rate_limit_fallbacks_total") > 0);
        },
    );
}

#[test]
fn record_of_the_tenant_lowers_and_raises_limits() {
    service_test_with(
        |config| {
            config.rate_limits.caller_reads_per_second = 100;
            config.rate_limits.burst_seconds = 2;
        },
        |s| async move {
            let (alice, gus, operator) = (s.alice(), s.gus(), s.operator());
            let acme = alice.tenant_id().await;
            gus.quota().await.unwrap();
            let set = async |per_second_max| {
                let limits =
                    TenantRateLimits { caller_reads_per_second: per_second_max, ..Default::default() };
                let path = "rate_limits.caller_reads_per_second";
                operator.set_rate_limits(&acme, &[path], limits).await.unwrap()
            };
            assert_eq!(alice.read_limit().await, 200);
            assert_eq!(set(1).await.rate_limits.unwrap().caller_reads_per_second, 1);
            let refused = repeat_until_refused(async || alice.quota().await).await;
            assert_eq!(metadata(&refused)["per_second_max"], "1");
            assert_eq!(gus.read_limit().await, 200, "another tenant");
            set(1_000).await;
            assert_eq!(s.bob().read_limit().await, 2_000);
            assert_eq!(set(0).await.rate_limits, None);
            assert_eq!(s.maria().read_limit().await, 200);
        },
    );
}

#[test]
fn limit_of_one_tenant_refuses_all_its_callers() {
    service_test_with(
        |config| config.rate_limits.burst_seconds = 1,
        |s| async move {
            let (alice, gus) = (s.alice(), s.gus());
            let acme = alice.tenant_id().await;
            gus.quota().await.unwrap();
            let limits = TenantRateLimits { tenant_requests_per_second: 1, ..Default::default() };
            s.operator().set_rate_limits(&acme, &["rate_limits"], limits).await.unwrap();
            for caller in [alice, s.bob()] {
                let refused = repeat_until_refused(async || caller.quota().await).await;
                let metadata = metadata(&refused);
                assert_eq!((metadata["scope"].as_str(), metadata.get("action")), ("tenant", None));
                assert_eq!(metadata["per_second_max"], "1");
            }
            gus.quota().await.unwrap();
        },
    );
}

async fn count_audit_entries(s: &Service) -> i64 {
    s.superuser
        .query_number(
            "SELECT count(*) FROM audit_entries
             WHERE action = {audit_action.policy_update} AND details ? 'rate_limits'",
        )
        .await
}

#[test]
fn update_sets_the_limits_that_its_mask_names() {
    service_test(|s| async move {
        let operator = s.operator();
        let acme = s.alice().tenant_id().await;
        let limits = TenantRateLimits {
            tenant_requests_per_second: 500,
            caller_uploads_per_second: 5,
            caller_lists_per_second: 7,
            ..Default::default()
        };
        let paths = ["rate_limits.tenant_requests_per_second", "rate_limits.caller_uploads_per_second"];
        let expected = TenantRateLimits { caller_lists_per_second: 0, ..limits };
        for _ in 0..2 {
            let tenant = operator.set_rate_limits(&acme, &paths, limits).await.unwrap();
            assert_eq!(tenant.rate_limits, Some(expected));
        }
        assert_eq!(count_audit_entries(&s).await, 1, "an update without a change is not recorded");
        assert_eq!(operator.show_rate_limits(&acme).await, Some(expected));
        let all = TenantRateLimits { caller_changes_per_second: 9, ..Default::default() };
        operator.set_rate_limits(&acme, &["rate_limits"], all).await.unwrap();
        assert_eq!(operator.show_rate_limits(&acme).await, Some(all), "replaces all limits");
        assert_eq!(count_audit_entries(&s).await, 2);
    });
}

#[test]
fn update_reports_every_limit_out_of_range() {
    service_test(|s| async move {
        let operator = s.operator();
        let acme = s.alice().tenant_id().await;
        let limits = TenantRateLimits {
            tenant_requests_per_second: -1,
            caller_requests_per_second: 1_000_000,
            caller_uploads_per_second: 1_000_001,
            ..Default::default()
        };
        let error = operator.set_rate_limits(&acme, &["rate_limits"], limits).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let fields = ["rate_limits.tenant_requests_per_second", "rate_limits.caller_uploads_per_second"];
        assert_eq!(violated_fields(&error), fields);
        let violations = error.get_details_bad_request().unwrap().field_violations;
        for (violation, value) in violations.iter().zip(["-1", "1000001"]) {
            assert_eq!(violation.description, format!("must be from 0 to 1000000, is {value}"));
        }
        assert_eq!(operator.show_rate_limits(&acme).await, None);
    });
}
