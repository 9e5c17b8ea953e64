//! A sequence: a fixed number of operations on three new tenants.

use std::{collections::BTreeMap, sync::Arc};

use chrono::Duration;
use strongroom::{
    domain::clock::Clock as _,
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};
use tonic::Status;

use super::{
    calls::{Call, Response},
    check,
    draw::{PEOPLE, draw_call},
    expected::{Person, Tenant},
    history::History,
    instance::Instance,
    rng::Rng,
};
use crate::harness::{Service, reason};

const OPERATIONS: usize = 25;

const STEPS: &[(usize, &str)] = &[
    (58, "call"),
    (8, "read"),
    (8, "visit"),
    (5, "retry"),
    (3, "reuse"),
    (6, "foreign"),
    (3, "round"),
    (4, "clock"),
    (8, "fault"),
    (5, "crash"),
];

/// The number of successes and errors of each kind of operation.
#[derive(Default)]
pub(super) struct Tally(pub(super) BTreeMap<&'static str, (usize, usize)>);

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        for (kind, (successes, errors)) in other.0 {
            let sum = self.0.entry(kind).or_default();
            *sum = (sum.0 + successes, sum.1 + errors);
        }
    }

    pub(super) fn count(&mut self, kind: &'static str, is_error: bool) {
        let (successes, errors) = self.0.entry(kind).or_default();
        *(if is_error { errors } else { successes }) += 1;
    }
}

/// The last successful mutation, for retries.
struct LastMutation {
    tenant: usize,
    person: Person,
    call: Call,
    request_id: String,
    response_text: String,
    time: i64,
}

pub(super) struct Sequence<'a> {
    pub(super) s: &'a Service,
    pub(super) server: Instance,
    pub(super) rng: Rng,
    pub(super) tenants: Vec<Tenant>,
    /// The index of the tenant that gets most of the operations, so that its state becomes complex.
    busy: usize,
    pub(super) history: &'a History,
    pub(super) tally: &'a mut Tally,
    last: Option<LastMutation>,
}

impl<'a> Sequence<'a> {
    pub(super) async fn start(
        s: &'a Service,
        server: Instance,
        seed: u64,
        tally: &'a mut Tally,
        history: &'a History,
    ) -> Self {
        history.restart(format!("sequence {seed}"), seed.to_string());
        let mut rng = Rng::new(seed);
        let mut tenants = Vec::new();
        // The third tenant has the preset `education`, in which the trash does not count.
        for (index, trash_counts) in [true, true, false].into_iter().enumerate() {
            let limit_bytes = 100_000 + rng.below(900_000) as i64;
            let tenant = Tenant::new(super::organization(seed, index), trash_counts, limit_bytes);
            history.add_step(format!("create tenant {index} with a limit of {limit_bytes} bytes"));
            check::caller_for(&server.service, &tenant, &PEOPLE[2]).set_limit_bytes(limit_bytes).await;
            tenants.push(tenant);
        }
        let busy = rng.below(tenants.len());
        Self { s, server, rng, tenants, busy, history, tally, last: None }
    }

    /// Runs the operations and compares the final state. Returns the server that runs at the end.
    pub(super) async fn run(mut self) -> Instance {
        for _ in 0..OPERATIONS {
            self.run_operation().await;
        }
        self.log_step("compare everything".to_owned());
        for tenant in &self.tenants {
            check::assert_tenant(self.s, &self.server.service, tenant, self.now()).await;
        }
        self.server
    }

    pub(super) fn now(&self) -> i64 {
        self.s.clock.now().timestamp()
    }

    pub(super) fn log_step(&self, step: String) {
        self.history.add_step(step);
    }

    /// Draws a mutation and its caller.
    pub(super) fn draw_call(&mut self, t: usize) -> (Person, Call) {
        let now = self.now();
        draw_call(&mut self.rng, &self.tenants[t], now)
    }

    async fn run_operation(&mut self) {
        let t = if self.rng.chance(50) { self.busy } else { self.rng.below(self.tenants.len()) };
        match self.rng.pick_weighted(STEPS) {
            "call" => self.run_call(t).await,
            "read" => self.compare_tenant(t).await,
            "visit" => self.visit_link(t).await,
            "retry" => self.retry_last().await,
            "reuse" => self.reuse_request_id().await,
            "foreign" => self.call_from_other_tenant(t).await,
            "round" => self.run_worker_round().await,
            "clock" => self.advance_clock().await,
            "fault" => self.inject_fault(t).await,
            _ => self.crash_server(t).await,
        }
    }

    pub(super) async fn perform_call(
        &self,
        t: usize,
        person: &Person,
        call: &Call,
        request_id: &str,
    ) -> Result<Response, Status> {
        let caller = check::caller_for(&self.server.service, &self.tenants[t], person);
        call.clone().perform(&caller, request_id.to_owned()).await
    }

    async fn run_call(&mut self, t: usize) {
        let (person, call) = self.draw_call(t);
        let request_id = if self.rng.chance(60) { self.rng.uuid() } else { String::new() };
        self.log_step(format!("tenant {t}, {}: {call:?} {request_id}", person.user));
        let outcome = self.perform_call(t, &person, &call, &request_id).await;
        self.check_outcome(t, &person, &call, outcome, &request_id).await;
    }

    /// Compares an outcome with the expected one and applies it to the model.
    pub(super) async fn check_outcome(
        &mut self,
        t: usize,
        person: &Person,
        call: &Call,
        outcome: Result<Response, Status>,
        request_id: &str,
    ) {
        let now = self.now();
        let expected = self.tenants[t].expected_outcome(person, call, now);
        let actual = outcome.as_ref().map(|_| ()).map_err(reason);
        assert_eq!(actual, expected.map_err(str::to_owned), "{:?}", outcome.as_ref().err());
        self.tally.count(call.kind(), outcome.is_err());
        match outcome {
            Ok(response) => {
                self.tenants[t].apply(person, call, &response, now);
                let is_finish = matches!(call, Call::SendBytes { .. });
                if !request_id.is_empty() || is_finish {
                    let (person, call) = (person.clone(), call.clone());
                    // A stream that resumes an upload has no request id of its own.
                    let request_id = if is_finish { String::new() } else { request_id.to_owned() };
                    let response_text = response.text;
                    self.last =
                        Some(LastMutation { tenant: t, person, call, request_id, response_text, time: now });
                }
            }
            Err(status) if reason(&status) != "NOT_FOUND" => {
                self.tenants[t].pause_upload(call, now);
                self.wait_for_sent_parts(t, person, call).await;
            }
            Err(_) => {}
        }
        check::assert_quota(self.s, &self.server.service, &self.tenants[t]).await;
    }

    /// Waits for the parts that were in flight when the stream was refused; they are persisted all the
    /// same.
    async fn wait_for_sent_parts(&self, t: usize, person: &Person, call: &Call) {
        let Call::SendBytes { upload, .. } = call else { return };
        let Some(expected) = self.tenants[t].open_upload(upload, self.now()) else { return };
        let caller = check::caller_for(&self.server.service, &self.tenants[t], person);
        let is_persisted = || async {
            caller.get_upload(upload).await.unwrap().persisted_size_bytes == expected.persisted_bytes as i64
        };
        self.s.wait_until(&format!("{} bytes persisted", expected.persisted_bytes), is_persisted).await;
    }

    async fn compare_tenant(&mut self, t: usize) {
        self.log_step(format!("compare tenant {t}"));
        self.tally.count("read", false);
        check::assert_tenant(self.s, &self.server.service, &self.tenants[t], self.now()).await;
    }

    /// Returns the last mutation, if its response is still stored; the service keeps responses for a day.
    fn last(&self) -> Option<&LastMutation> {
        self.last.as_ref().filter(|last| self.now() - last.time < 20 * 3600)
    }

    async fn retry_last(&mut self) {
        let Some(LastMutation { tenant, person, call, request_id, response_text, .. }) = self.last() else {
            return;
        };
        let (t, response_text) = (*tenant, response_text.clone());
        self.log_step(format!("tenant {t}, {}: retry {call:?} {request_id}", person.user));
        let outcome = self.perform_call(t, person, call, request_id).await;
        let text = outcome.map(|response| response.text).map_err(|status| format!("{status:?}"));
        assert_eq!(text, Ok(response_text));
        self.tally.count("retry", false);
        check::assert_quota(self.s, &self.server.service, &self.tenants[t]).await;
    }

    async fn reuse_request_id(&mut self) {
        let Some(last) = self.last().filter(|last| !last.request_id.is_empty()) else { return };
        let (t, person, request_id) = (last.tenant, last.person.clone(), last.request_id.clone());
        let call = Call::Delete { file: self.rng.uuid() };
        self.log_step(format!("tenant {t}, {}: {call:?} with the used request id {request_id}", person.user));
        let outcome = self.perform_call(t, &person, &call, &request_id).await;
        assert_eq!(reason(&outcome.unwrap_err()), "REQUEST_ID_REUSED");
        self.tally.count("reuse", true);
        check::assert_quota(self.s, &self.server.service, &self.tenants[t]).await;
    }

    /// Makes a call from another tenant, which must not find the file or upload.
    async fn call_from_other_tenant(&mut self, t: usize) {
        let (person, call) = self.draw_call(t);
        let other = (t + 1) % self.tenants.len();
        let has_no_target = matches!(
            call,
            Call::Upload { .. }
                | Call::CreateUpload { .. }
                | Call::SetLimit { .. }
                | Call::ChangeCredits { .. }
        );
        if has_no_target {
            return;
        }
        // With a known size, the quota of the caller's own tenant is checked first.
        let call = match call {
            Call::UploadVersion { file, content, .. } => {
                Call::UploadVersion { file, content, is_size_known: false }
            }
            call => call,
        };
        self.log_step(format!("tenant {other}, {}: {call:?} of tenant {t}", person.user));
        let outcome = self.perform_call(other, &person, &call, "").await;
        assert_eq!(outcome.map_err(|status| reason(&status)).unwrap_err(), "NOT_FOUND");
        let ids: Vec<String> = self.tenants[t].files.keys().cloned().collect();
        if let Some(id) = self.rng.pick(&ids) {
            let caller = check::caller_for(&self.server.service, &self.tenants[other], &person);
            assert_eq!(reason(&caller.get(&id).await.unwrap_err()), "NOT_FOUND");
            assert_eq!(reason(&caller.read(&id).await.unwrap_err()), "NOT_FOUND");
        }
        self.tally.count("foreign", true);
        for t in [t, other] {
            check::assert_quota(self.s, &self.server.service, &self.tenants[t]).await;
        }
    }

    async fn run_worker_round(&mut self) {
        self.log_step("run a worker round".to_owned());
        self.tally.count("round", false);
        worker::run_round(&self.server.service.app).await;
        let now = self.now();
        for tenant in &mut self.tenants {
            tenant.apply_worker_round(now);
        }
        for tenant in &self.tenants {
            check::assert_quota(self.s, &self.server.service, tenant).await;
        }
    }

    async fn advance_clock(&mut self) {
        let hours = self.rng.pick(&[1, 9, 25, 31 * 24]).unwrap();
        self.log_step(format!("advance the clock by {hours} hours"));
        self.tally.count("clock", false);
        self.s.clock.advance(Duration::hours(hours) + Duration::seconds(1));
        if self.rng.chance(50) {
            self.run_worker_round().await;
        }
    }

    /// Makes a call, or runs a worker round, with a store that fails once.
    async fn inject_fault(&mut self, t: usize) {
        let operation = self.rng.pick(&[
            Operation::Put,
            Operation::StartMultipart,
            Operation::PutPart,
            Operation::CompleteMultipart,
            Operation::AbortMultipart,
            Operation::Delete,
        ]);
        let kind = self.rng.pick(&[StorageErrorKind::Transient, StorageErrorKind::Unavailable]).unwrap();
        let fault = if self.rng.chance(50) { Fault::Before(kind) } else { Fault::After(kind) };
        let nth = 1 + self.rng.below(2) as u64;
        let plan = Plan::new().with_fault(operation.unwrap(), nth, fault);
        self.log_step(format!("the store fails: {fault:?} at call {nth} of {:?}", operation.unwrap()));
        let faults = Arc::clone(&self.server.service.faults);
        faults.set_plan(plan);
        self.tally.count("fault", false);
        if self.rng.chance(15) {
            self.run_worker_round().await;
        } else {
            self.run_call_with_fault(t).await;
        }
        faults.set_plan(Plan::new());
    }

    async fn run_call_with_fault(&mut self, t: usize) {
        let (person, call) = loop {
            let (person, call) = self.draw_call(t);
            if matches!(
                call,
                Call::Upload { .. }
                    | Call::UploadVersion { .. }
                    | Call::CreateUpload { .. }
                    | Call::SendBytes { .. }
                    | Call::CancelUpload { .. }
            ) {
                break (person, call);
            }
        };
        let request_id = self.rng.uuid();
        self.log_step(format!("tenant {t}, {}: {call:?} {request_id}", person.user));
        let outcome = self.perform_call(t, &person, &call, &request_id).await;
        let is_storage_error = outcome.as_ref().is_err_and(|status| reason(status) == "STORAGE_UNAVAILABLE");
        let is_refused = outcome.as_ref().is_err_and(|status| reason(status) != "NOT_FOUND");
        if !(is_storage_error || is_refused && matches!(call, Call::SendBytes { .. })) {
            return self.check_outcome(t, &person, &call, outcome, &request_id).await;
        }
        if !is_storage_error {
            // The store may have failed for a part in flight, so the persisted parts are not predicted.
            let expected = self.tenants[t].expected_outcome(&person, &call, self.now());
            let actual = outcome.as_ref().map(|_| ()).map_err(reason);
            assert_eq!(actual, expected.map_err(str::to_owned));
        }
        self.tally.count("fault hit", true);
        self.server.service.faults.set_plan(Plan::new());
        // The call had no effect, except that a resumed upload keeps the parts that were persisted.
        self.record_upload_state(t, &person, &call).await;
        check::assert_quota(self.s, &self.server.service, &self.tenants[t]).await;
        check::assert_names(&self.server.service, &self.tenants[t]).await;
    }

    /// Copies the state of an upload into the model after a call with an unknown outcome. Asserts that it has
    /// whole parts, not fewer than before, and no more than were sent. A cancelled upload is open as before,
    /// or abandoned.
    pub(super) async fn record_upload_state(&mut self, t: usize, person: &Person, call: &Call) {
        let (id, to) = match call {
            Call::SendBytes { upload, to, .. } => (upload, *to),
            Call::CancelUpload { upload } => (upload, 0),
            _ => return,
        };
        let now = self.now();
        let Some(before) = self.tenants[t].open_upload(id, now).cloned() else { return };
        // A part in flight may still be persisted, which changes the row too.
        let app = &self.server.service.app;
        self.s.wait_until("parts in flight are persisted", || std::future::ready(app.is_idle())).await;
        let caller = check::caller_for(&self.server.service, &self.tenants[t], person);
        let rows = "SELECT reserved_bytes, renewed_part_count FROM uploads WHERE id = $1::text::uuid AND state = {upload_state.open}";
        let rows = self.s.superuser.query_rows(rows, &[&id.as_str()]).await;
        let Some(row) = rows.first() else {
            assert!(matches!(call, Call::CancelUpload { .. }), "upload {id} is no longer open");
            self.tenants[t].uploads.remove(id);
            return;
        };
        let upload_status = caller.get_upload(id).await.unwrap();
        let (persisted_bytes, reserved_bytes) =
            (upload_status.persisted_size_bytes as usize, row.get::<_, i64>(0));
        let is_whole = persisted_bytes % crate::harness::PART == 0 || persisted_bytes == before.content.len;
        assert!(
            is_whole && persisted_bytes >= before.persisted_bytes,
            "upload {id} has {persisted_bytes} bytes"
        );
        assert!(
            persisted_bytes <= to.max(before.persisted_bytes),
            "upload {id} has more bytes than were sent"
        );
        assert!(
            reserved_bytes >= before.reserved_bytes.max(persisted_bytes as i64),
            "upload {id} reserves {reserved_bytes} bytes"
        );
        let after = super::expected::Upload {
            persisted_bytes,
            reserved_bytes,
            renewed_part_count: usize::try_from(row.get::<_, i32>(1)).unwrap(),
            lease_expire_time: upload_status.expire_time.unwrap().seconds,
            ..before
        };
        self.tenants[t].uploads.insert(id.clone(), after);
    }
}
