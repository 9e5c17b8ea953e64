//! Rate limits that several processes share through a real Redis.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use futures::{StreamExt as _, stream};
use strongroom::{
    admission::subject_rates::TENANT_SUBJECTS_MAX,
    config::Config,
    proto::v1::{CheckRateLimitRequest, CheckRateLimitResponse, GetQuotaRequest},
};
use tonic::{Code, Status, metadata::MetadataMap};

use crate::harness::{Caller, Service, reason, service_test_with};

impl Caller {
    /// Counts an event of a subject, of which `limit` are allowed in a day.
    pub(crate) async fn check_rate_limit(
        &self,
        subject: &str,
        limit: i64,
    ) -> Result<CheckRateLimitResponse, Status> {
        let request = CheckRateLimitRequest {
            subject: subject.to_owned(),
            action: "send_mail".to_owned(),
            limit,
            window: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
            ..CheckRateLimitRequest::default()
        };
        Ok(self.quotas.clone().check_rate_limit(request).await?.into_inner())
    }
}

/// The tokens of a full bucket.
const BURST: usize = 200;
/// The calls at a time: below the share of a caller.
const CONCURRENCY: usize = 16;

/// A directory in which a Redis can be started, stopped and started again with the same address.
pub(crate) struct Redis {
    directory: tempfile::TempDir,
    program: Option<Child>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("strongroom-redis-").tempdir_in("/tmp").unwrap();
        let mut redis = Self { directory, program: None };
        redis.start_again();
        redis
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn start_again(&mut self) {
        let mut program = Command::new(find_program())
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(self.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(program.stdout.take().unwrap()).lines();
        // Listens on the socket before this line.
        let is_ready = |line: String| line.contains("now ready to accept connections at");
        assert!(log.by_ref().map_while(Result::ok).any(is_ready), "Redis did not start");
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        self.program = Some(program);
    }

    /// Kills the server, which loses its data.
    fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill().unwrap();
            program.wait().unwrap();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn find_program() -> PathBuf {
    if let Some(program) = std::env::var_os("STRONGROOM_REDIS_BIN") {
        return program.into();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup/redis");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Limits each caller to a burst, which is then filled by one token each second.
fn limit_callers(config: &mut Config, redis_url: Option<String>) {
    config.rate_limits.caller_requests_per_second = 1;
    config.rate_limits.burst_seconds = BURST as u64;
    config.limits.redis_url = redis_url.map(Into::into);
    config.limits.redis_timeout_milliseconds = 1_000;
}

/// Calls as one caller until the process shares its limits.
pub(crate) async fn wait_until_shared(s: &Service, caller: &Caller) {
    s.wait_until("limits are shared", || async {
        let _outcome = caller.quota().await;
        s.read_metric("strongroom_rate_limit_shared") == 1
    })
    .await;
}

/// Returns how many of these calls of each caller are served.
async fn count_served(callers: &[&Caller], calls: usize) -> usize {
    let all = (0..calls).flat_map(|_| callers.iter()).map(|caller| caller.quota());
    let outcomes: Vec<_> = stream::iter(all).buffer_unordered(CONCURRENCY).collect().await;
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(reason(refused), "RATE_LIMITED", "{refused:?}");
    }
    outcomes.iter().filter(|outcome| outcome.is_ok()).count()
}

/// Returns one of the headers about rate limits.
pub(crate) fn rate_header(metadata: &MetadataMap, name: &str) -> Option<usize> {
    metadata.get(format!("ratelimit-{name}")).map(|value| value.to_str().unwrap().parse().unwrap())
}

#[test]
fn two_processes_share_one_limit() {
    let redis = Redis::start();
    let url = redis.url();
    service_test_with(
        move |config| limit_callers(config, Some(url)),
        |s| async move {
            let replica = s.start_replica(|_| {}).await;
            for process in [&s, &replica] {
                wait_until_shared(process, &process.gus()).await;
            }
            let (here, there) = (s.mallory(), replica.mallory());
            let started = Instant::now();
            let served = count_served(&[&here, &there], BURST).await;
            // One token is added each second.
            let added = started.elapsed().as_secs() as usize + 1;
            assert!((BURST..=BURST + added).contains(&served), "{served} of {BURST} and {added}");
            assert!(
                s.member("colleague", "globex", "member", &[]).quota().await.is_ok(),
                "has its own bucket"
            );
            assert!(s.alice().quota().await.is_ok(), "another tenant");
            replica.stop().await;
        },
    );
    drop(redis);
}

#[test]
fn process_limits_by_itself_without_redis() {
    let mut redis = Redis::start();
    let url = redis.url();
    service_test_with(
        move |config| limit_callers(config, Some(url)),
        |s| async move {
            wait_until_shared(&s, &s.gus()).await;
            let before = s.read_metric("strongroom_rate_limit_fallbacks_total");
            redis.kill();
            let mallory = s.mallory();
            let started = Instant::now();
            let served = count_served(&[&mallory], 2 * BURST).await;
            let added = started.elapsed().as_secs() as usize + 1;
            assert!((BURST..=BURST + added).contains(&served), "{served} of {BURST} and {added}");
            assert!(s.read_metric("strongroom_rate_limit_fallbacks_total") >= before + 2 * BURST as u64);
            assert_eq!(s.read_metric("strongroom_rate_limit_shared"), 0);

            // The new server has no data, so its buckets are full.
            redis.start_again();
            wait_until_shared(&s, &s.gus()).await;
            let fallbacks = s.read_metric("strongroom_rate_limit_fallbacks_total");
            assert!(mallory.quota().await.is_ok());
            assert_eq!(s.read_metric("strongroom_rate_limit_fallbacks_total"), fallbacks);
        },
    );
}

#[test]
fn process_starts_without_redis() {
    service_test_with(
        |config| limit_callers(config, Some("redis+unix:///nonexistent/socket".to_owned())),
        |s| async move {
            // The first call creates the tenant, which is not counted.
            s.alice().quota().await.unwrap();
            s.alice().quota().await.unwrap();
            assert!(s.read_metric("strongroom_rate_limit_fallbacks_total") > 0);
        },
    );
}

#[test]
fn responses_state_the_level_of_the_limit() {
    service_test_with(
        |config| limit_callers(config, None),
        |s| async move {
            let mallory = s.mallory();
            // The first call creates the tenant, and is not one of the caller's.
            mallory.quota().await.unwrap();
            let response = mallory.quotas.clone().get_quota(GetQuotaRequest::default()).await.unwrap();
            let metadata = response.metadata();
            assert_eq!(rate_header(metadata, "limit"), Some(BURST));
            assert_eq!(rate_header(metadata, "remaining"), Some(BURST - 1));
            assert_eq!(rate_header(metadata, "reset"), Some(1));
            count_served(&[&mallory], 2 * BURST).await;
            let refused = call_until_refused(&mallory).await;
            assert_eq!(rate_header(refused.metadata(), "limit"), Some(BURST));
            assert_eq!(rate_header(refused.metadata(), "remaining"), Some(0));
            assert!(rate_header(refused.metadata(), "reset").is_some_and(|seconds| seconds >= BURST));
        },
    );
}

async fn call_until_refused(caller: &Caller) -> tonic::Status {
    loop {
        if let Err(refused) = caller.quota().await {
            return refused;
        }
    }
}

#[test]
fn subjects_have_one_exact_limit_in_two_processes() {
    let redis = Redis::start();
    let url = redis.url();
    service_test_with(
        move |config| {
            config.limits.redis_url = Some(url.into());
            config.limits.redis_timeout_milliseconds = 1_000;
        },
        |s| async move {
            let replica = s.start_replica(|_| {}).await;
            for process in [&s, &replica] {
                wait_until_shared(process, &process.gus()).await;
            }
            let (here, there) = (s.ada(), replica.ada());
            let checks = (0..100).flat_map(|_| [&here, &there]).map(|ada| ada.check_rate_limit("alice", 50));
            let decisions: Vec<_> = stream::iter(checks).buffer_unordered(CONCURRENCY).collect().await;
            assert_eq!(
                decisions.into_iter().filter(|decision| decision.as_ref().unwrap().allowed).count(),
                50
            );
            let refused = here.check_rate_limit("alice", 50).await.unwrap();
            assert_eq!((refused.allowed, refused.limit, refused.remaining), (false, 50, 0));
            assert!(refused.retry_delay.is_some() && refused.reset_delay.is_some());
            assert!(here.check_rate_limit("bob", 50).await.unwrap().allowed, "another subject");
            assert!(s.gus().check_rate_limit("alice", 50).await.unwrap().allowed, "another tenant");
            let error = s.alice().check_rate_limit("alice", 50).await.unwrap_err();
            assert_eq!(error.code(), Code::PermissionDenied);
            replica.stop().await;
        },
    );
    drop(redis);
}

#[test]
fn subjects_of_a_tenant_are_limited() {
    let redis = Redis::start();
    let url = redis.url();
    service_test_with(
        move |config| {
            config.limits.redis_url = Some(url.into());
            config.limits.redis_timeout_milliseconds = 1_000;
        },
        |s| async move {
            wait_until_shared(&s, &s.gus()).await;
            let ada = s.ada();
            let checks = (0..TENANT_SUBJECTS_MAX).map(|n| {
                let ada = ada.clone();
                async move { ada.check_rate_limit(&n.to_string(), 5).await.unwrap().allowed }
            });
            let allowed: Vec<bool> = stream::iter(checks).buffer_unordered(CONCURRENCY).collect().await;
            assert!(allowed.into_iter().all(|is_allowed| is_allowed));
            let error = ada.check_rate_limit("one more", 5).await.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
            assert!(ada.check_rate_limit("7", 5).await.unwrap().allowed, "a known subject");
            assert!(s.gus().check_rate_limit("one more", 5).await.unwrap().allowed, "another tenant");
        },
    );
    drop(redis);
}
