//! One sequence: three tenants that nobody had before, and operations on them until it is full.

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
    books::{Tenant, Who},
    calls::{Answer, Call},
    check,
    dice::Dice,
    draw::{PEOPLE, draw},
    instance::Instance,
    story::Story,
};
use crate::harness::{Service, reason};

const OPERATIONS: usize = 25;

const STEPS: &[(usize, &str)] = &[
    (58, "call"),
    (8, "read"),
    (5, "retry"),
    (3, "reuse"),
    (6, "foreign"),
    (3, "round"),
    (4, "clock"),
    (8, "fault"),
    (5, "crash"),
];

/// How often each kind of operation was done, and how often it was refused.
#[derive(Default)]
pub(super) struct Tally(pub(super) BTreeMap<&'static str, (usize, usize)>);

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        for (kind, (done, refused)) in other.0 {
            let sum = self.0.entry(kind).or_default();
            *sum = (sum.0 + done, sum.1 + refused);
        }
    }

    pub(super) fn count(&mut self, kind: &'static str, is_refused: bool) {
        let (done, refused) = self.0.entry(kind).or_default();
        *(if is_refused { refused } else { done }) += 1;
    }
}

/// The last mutation that was done, to be asked for once more.
struct Last {
    tenant: usize,
    who: Who,
    call: Call,
    request_id: String,
    text: String,
    time: i64,
}

pub(super) struct Run<'a> {
    pub(super) s: &'a Service,
    pub(super) working: Instance,
    pub(super) dice: Dice,
    pub(super) tenants: Vec<Tenant>,
    busy: usize,
    pub(super) story: &'a Story,
    pub(super) tally: &'a mut Tally,
    last: Option<Last>,
}

impl<'a> Run<'a> {
    pub(super) async fn begin(
        s: &'a Service,
        working: Instance,
        seed: u64,
        (tally, story): (&'a mut Tally, &'a Story),
    ) -> Self {
        story.begin(format!("sequence {seed}"), seed.to_string());
        let mut dice = Dice::new(seed);
        let mut tenants = Vec::new();
        // The third is a school, whose trash does not count.
        for (place, trash_counts) in [true, true, false].into_iter().enumerate() {
            let limit = 100_000 + dice.below(900_000) as i64;
            let tenant = Tenant::new(super::organization(seed, place), trash_counts, limit);
            story.step(format!("tenant {place} is born with {limit} bytes"));
            check::caller(&working.service, &tenant, &PEOPLE[2]).limit_bytes(limit).await;
            tenants.push(tenant);
        }
        let busy = dice.below(tenants.len());
        Self { s, working, dice, tenants, busy, story, tally, last: None }
    }

    /// Runs it and checks what came of it; answers the server that is running then.
    pub(super) async fn run(mut self) -> Instance {
        for _ in 0..OPERATIONS {
            self.step().await;
        }
        self.note("the check of everything".to_owned());
        for tenant in &self.tenants {
            check::all(self.s, &self.working.service, tenant, self.now()).await;
        }
        self.working
    }

    pub(super) fn now(&self) -> i64 {
        self.s.clock.now().timestamp()
    }

    pub(super) fn note(&self, step: String) {
        self.story.step(step);
    }

    /// Any mutation, and who asks for it.
    pub(super) fn draw(&mut self, t: usize) -> (Who, Call) {
        let now = self.now();
        draw(&mut self.dice, &self.tenants[t], now)
    }

    async fn step(&mut self) {
        // One of them is busier than the others, so that something comes of what it has.
        let t = if self.dice.is(50) { self.busy } else { self.dice.below(self.tenants.len()) };
        match self.dice.weighted(STEPS) {
            "call" => self.call(t).await,
            "read" => self.read(t).await,
            "retry" => self.retry().await,
            "reuse" => self.reuse().await,
            "foreign" => self.foreign(t).await,
            "round" => self.round().await,
            "clock" => self.clock().await,
            "fault" => self.fault(t).await,
            _ => self.crash(t).await,
        }
    }

    pub(super) async fn perform(
        &self,
        t: usize,
        who: &Who,
        call: &Call,
        request_id: &str,
    ) -> Result<Answer, Status> {
        let caller = check::caller(&self.working.service, &self.tenants[t], who);
        call.clone().perform(&caller, request_id.to_owned()).await
    }

    async fn call(&mut self, t: usize) {
        let (who, call) = self.draw(t);
        let request_id = if self.dice.is(60) { self.dice.uuid() } else { String::new() };
        self.note(format!("tenant {t}, {}: {call:?} {request_id}", who.user));
        let outcome = self.perform(t, &who, &call, &request_id).await;
        self.judge(t, &who, &call, outcome, &request_id).await;
    }

    /// Compares an outcome with what the model expects, and writes down what was done.
    pub(super) async fn judge(
        &mut self,
        t: usize,
        who: &Who,
        call: &Call,
        outcome: Result<Answer, Status>,
        request_id: &str,
    ) {
        let now = self.now();
        let expected = self.tenants[t].expect(who, call, now);
        let got = outcome.as_ref().map(|_| ()).map_err(reason);
        assert_eq!(got, expected.map_err(str::to_owned), "{:?}", outcome.as_ref().err());
        self.tally.count(call.kind(), outcome.is_err());
        match outcome {
            Ok(answer) => {
                self.tenants[t].apply(who, call, &answer, now);
                let is_finish = matches!(call, Call::Send { .. });
                if !request_id.is_empty() || is_finish {
                    let (who, call) = (who.clone(), call.clone());
                    // A stream that goes on has the id of its upload, and no other.
                    let request_id = if is_finish { String::new() } else { request_id.to_owned() };
                    self.last = Some(Last { tenant: t, who, call, request_id, text: answer.text, time: now });
                }
            }
            Err(status) if reason(&status) != "NOT_FOUND" => {
                self.tenants[t].paused(call, now);
                self.paused(t, who, call).await;
            }
            Err(_) => {}
        }
        check::books(self.s, &self.working.service, &self.tenants[t]).await;
    }

    /// Parts that were on their way when a stream was refused arrive all the same.
    async fn paused(&self, t: usize, who: &Who, call: &Call) {
        let Call::Send { upload, .. } = call else { return };
        let Some(expected) = self.tenants[t].open(upload, self.now()) else { return };
        let caller = check::caller(&self.working.service, &self.tenants[t], who);
        let arrived = || async {
            caller.upload_at(upload).await.unwrap().persisted_size_bytes == expected.persisted as i64
        };
        self.s.until(&format!("{} bytes persisted", expected.persisted), arrived).await;
    }

    async fn read(&mut self, t: usize) {
        self.note(format!("tenant {t}: names, and all there is"));
        self.tally.count("read", false);
        check::all(self.s, &self.working.service, &self.tenants[t], self.now()).await;
    }

    /// An answer is kept for a day.
    fn last(&self) -> Option<&Last> {
        self.last.as_ref().filter(|last| self.now() - last.time < 20 * 3600)
    }

    async fn retry(&mut self) {
        let Some(Last { tenant, who, call, request_id, text, .. }) = self.last() else { return };
        let (t, text) = (*tenant, text.clone());
        self.note(format!("tenant {t}, {}: once more {call:?} {request_id}", who.user));
        let again = self.perform(t, who, call, request_id).await;
        assert_eq!(again.map(|answer| answer.text).map_err(|status| format!("{status:?}")), Ok(text));
        self.tally.count("retry", false);
        check::books(self.s, &self.working.service, &self.tenants[t]).await;
    }

    async fn reuse(&mut self) {
        let Some(last) = self.last().filter(|last| !last.request_id.is_empty()) else { return };
        let (t, who, request_id) = (last.tenant, last.who.clone(), last.request_id.clone());
        let call = Call::Delete { file: self.dice.uuid() };
        self.note(format!("tenant {t}, {}: {call:?} with the id of another {request_id}", who.user));
        let outcome = self.perform(t, &who, &call, &request_id).await;
        assert_eq!(reason(&outcome.unwrap_err()), "REQUEST_ID_REUSED");
        self.tally.count("reuse", true);
        check::books(self.s, &self.working.service, &self.tenants[t]).await;
    }

    /// Somebody of another tenant asks for what is here.
    async fn foreign(&mut self, t: usize) {
        let (who, call) = self.draw(t);
        let other = (t + 1) % self.tenants.len();
        if matches!(call, Call::Upload { .. } | Call::Create { .. } | Call::Limit { .. }) {
            return;
        }
        // The room of their own tenant is looked at first.
        let call = match call {
            Call::Version { file, content, .. } => Call::Version { file, content, is_size_known: false },
            call => call,
        };
        self.note(format!("tenant {other}, {}: {call:?} of tenant {t}", who.user));
        let outcome = self.perform(other, &who, &call, "").await;
        assert_eq!(outcome.map_err(|status| reason(&status)).unwrap_err(), "NOT_FOUND");
        let ids: Vec<String> = self.tenants[t].files.keys().cloned().collect();
        if let Some(id) = self.dice.pick(&ids) {
            let caller = check::caller(&self.working.service, &self.tenants[other], &who);
            assert_eq!(reason(&caller.get(&id).await.unwrap_err()), "NOT_FOUND");
            assert_eq!(reason(&caller.read(&id).await.unwrap_err()), "NOT_FOUND");
        }
        self.tally.count("foreign", true);
        for t in [t, other] {
            check::books(self.s, &self.working.service, &self.tenants[t]).await;
        }
    }

    async fn round(&mut self) {
        self.note("a round of background work".to_owned());
        self.tally.count("round", false);
        worker::run_round(&self.working.service.app).await;
        let now = self.now();
        for tenant in &mut self.tenants {
            tenant.round(now);
        }
        for tenant in &self.tenants {
            check::books(self.s, &self.working.service, tenant).await;
        }
    }

    async fn clock(&mut self) {
        let hours = self.dice.pick(&[1, 9, 25, 31 * 24]).unwrap();
        self.note(format!("{hours} hours pass"));
        self.tally.count("clock", false);
        self.s.clock.advance(Duration::hours(hours) + Duration::seconds(1));
        if self.dice.is(50) {
            self.round().await;
        }
    }

    /// A call, or a round, whose store fails once.
    async fn fault(&mut self, t: usize) {
        let operation = self.dice.pick(&[
            Operation::Put,
            Operation::StartMultipart,
            Operation::PutPart,
            Operation::CompleteMultipart,
            Operation::AbortMultipart,
            Operation::Delete,
        ]);
        let kind = self.dice.pick(&[StorageErrorKind::Transient, StorageErrorKind::Unavailable]).unwrap();
        let fault = if self.dice.is(50) { Fault::Before(kind) } else { Fault::After(kind) };
        let nth = 1 + self.dice.below(2) as u64;
        let plan = Plan::new().with_fault(operation.unwrap(), nth, fault);
        self.note(format!("the store fails: {fault:?} at call {nth} of {:?}", operation.unwrap()));
        let faults = Arc::clone(&self.working.service.faults);
        faults.set_plan(plan);
        self.tally.count("fault", false);
        if self.dice.is(15) {
            self.round().await;
        } else {
            self.faulty_call(t).await;
        }
        faults.set_plan(Plan::new());
    }

    async fn faulty_call(&mut self, t: usize) {
        let (who, call) = loop {
            let (who, call) = self.draw(t);
            if matches!(
                call,
                Call::Upload { .. }
                    | Call::Version { .. }
                    | Call::Create { .. }
                    | Call::Send { .. }
                    | Call::Cancel { .. }
            ) {
                break (who, call);
            }
        };
        let request_id = self.dice.uuid();
        self.note(format!("tenant {t}, {}: {call:?} {request_id}", who.user));
        let outcome = self.perform(t, &who, &call, &request_id).await;
        let is_of_store = outcome.as_ref().is_err_and(|status| reason(status) == "STORAGE_UNAVAILABLE");
        if !is_of_store {
            return self.judge(t, &who, &call, outcome, &request_id).await;
        }
        self.tally.count("fault that was met", true);
        self.working.service.faults.set_plan(Plan::new());
        // Nothing became of it; only an upload that is gone on with keeps what arrived.
        self.adopt(t, &who, &call).await;
        check::books(self.s, &self.working.service, &self.tenants[t]).await;
        check::names(&self.working.service, &self.tenants[t]).await;
    }

    /// What a call whose outcome is not known left of an upload: whole parts, not fewer than there were, and no more than
    /// were sent. A cancelled one is open as before, or given up.
    pub(super) async fn adopt(&mut self, t: usize, who: &Who, call: &Call) {
        let (id, upto) = match call {
            Call::Send { upload, upto, .. } => (upload, *upto),
            Call::Cancel { upload } => (upload, 0),
            _ => return,
        };
        let now = self.now();
        let Some(before) = self.tenants[t].open(id, now).cloned() else { return };
        let caller = check::caller(&self.working.service, &self.tenants[t], who);
        let rows = "SELECT reserved_bytes FROM uploads WHERE id = $1::text::uuid AND state = 1";
        let rows = self.s.owner.rows(rows, &[&id.as_str()]).await;
        let Some(row) = rows.first() else {
            assert!(matches!(call, Call::Cancel { .. }), "upload {id} is not open any more");
            self.tenants[t].uploads.remove(id);
            return;
        };
        // A part that was on its way may still arrive.
        let app = &self.working.service.app;
        self.s.until("the parts have arrived", || std::future::ready(app.is_idle())).await;
        let told = caller.upload_at(id).await.unwrap();
        let (persisted, reserved) = (told.persisted_size_bytes as usize, row.get::<_, i64>(0));
        let is_whole = persisted % crate::harness::PART == 0 || persisted == before.content.len;
        assert!(is_whole && persisted >= before.persisted, "{persisted} bytes of {id} are persisted");
        assert!(persisted <= upto.max(before.persisted), "more than was sent of {id}");
        assert!(reserved >= before.reserved.max(persisted as i64), "{reserved} reserved for {id}");
        let until = told.expire_time.unwrap().seconds;
        let after = super::books::Upload { persisted, reserved, until, ..before };
        self.tenants[t].uploads.insert(id.clone(), after);
    }
}
