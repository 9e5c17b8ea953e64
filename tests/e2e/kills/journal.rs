//! The counts of a run, what it found wrong, and its report.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Plan, fleet::Victim};

/// The weight of an operation in [`Journal::wait_for_work`], in addition to its bytes.
const OPERATION_BYTES: u64 = 32 << 10;

/// The number of warnings of the processes that an explanation contains.
const WARNINGS_KEPT: usize = 40;

type Counts = Mutex<BTreeMap<String, u64>>;

/// The counts of a run.
pub(super) struct Journal {
    started: Instant,
    kills: Counts,
    /// The acknowledged operations by kind.
    operations: Counts,
    /// The attempts that clients repeated, by the reason.
    repeats: Counts,
    /// The messages of the logs at level ERROR.
    logged_errors: Counts,
    /// The last lines of the logs at level WARN or ERROR.
    warnings: Mutex<VecDeque<String>>,
    totals: Mutex<Totals>,
    /// The violations of invariants that a checkpoint found.
    findings: Mutex<Findings>,
    work_bytes: AtomicU64,
    /// The number of bytes of work at which `triggered` is notified; 0 means never.
    trigger_bytes: AtomicU64,
    triggered: Notify,
}

/// The counts that have no kinds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) abandoned: u64,
    pub(super) failed_starts: u64,
    pub(super) checkpoints: u64,
    /// Versions that were read back and compared, and their bytes. A version counts at each checkpoint.
    pub(super) verified_versions: u64,
    pub(super) verified_bytes: u64,
    pub(super) verified_absences: u64,
    pub(super) events: u64,
    pub(super) crash_recoveries: u64,
}

/// What is wrong.
#[derive(Debug, Clone, Default)]
struct Findings {
    lost: Vec<String>,
    drift: Vec<String>,
    other: Vec<String>,
}

impl Findings {
    fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.drift.is_empty() && self.other.is_empty()
    }
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            kills: Counts::default(),
            operations: Counts::default(),
            repeats: Counts::default(),
            logged_errors: Counts::default(),
            warnings: Mutex::default(),
            totals: Mutex::default(),
            findings: Mutex::default(),
            work_bytes: AtomicU64::new(0),
            trigger_bytes: AtomicU64::new(0),
            triggered: Notify::new(),
        }
    }

    pub(super) fn count_kill(&self, kind: &str) {
        count(&self.kills, kind);
    }

    pub(super) fn count_operation(&self, kind: &str) {
        count(&self.operations, kind);
    }

    pub(super) fn count_repeat(&self, reason: &str) {
        count(&self.repeats, reason);
    }

    pub(super) fn count_abandoned(&self) {
        self.add(|totals| totals.abandoned += 1);
    }

    pub(super) fn count_failed_start(&self) {
        self.add(|totals| totals.failed_starts += 1);
    }

    pub(super) fn add(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.totals.lock().unwrap());
    }

    /// Records a line of a log. A panic is a finding.
    pub(super) fn note_log_line(&self, victim: Victim, line: &str) {
        if line.contains("panicked") || line.contains("overflowed its stack") {
            self.report_other(format!("{victim:?} panicked: {line}"));
        }
        let Ok(entry) = serde_json::from_str::<Value>(line) else { return };
        if entry["level"] == "ERROR" || entry["level"] == "WARN" {
            let mut warnings = self.warnings.lock().unwrap();
            warnings.truncate(WARNINGS_KEPT - 1);
            warnings.push_front(format!("{victim:?}: {line}"));
        }
        if entry["level"] == "ERROR" {
            count(&self.logged_errors, entry["message"].as_str().unwrap_or_default());
        }
    }

    /// Reports acknowledged work that is lost, or changed.
    pub(super) fn report_lost(&self, finding: String) {
        print_finding("lost", &finding);
        self.findings.lock().unwrap().lost.push(finding);
    }

    /// Reports a count that differs from what it counts.
    pub(super) fn report_drift(&self, finding: String) {
        print_finding("drift", &finding);
        self.findings.lock().unwrap().drift.push(finding);
    }

    pub(super) fn report_other(&self, finding: String) {
        print_finding("other", &finding);
        self.findings.lock().unwrap().other.push(finding);
    }

    /// Returns what may explain why a run is stuck: the findings so far, and the last warnings of the processes, the
    /// newest first.
    pub(super) fn explain(&self) -> String {
        let (findings, warnings) = (self.findings.lock().unwrap(), self.warnings.lock().unwrap());
        format!("{findings:#?}\n{warnings:#?}")
    }

    /// Waits until this number of additional bytes of work was done.
    pub(super) async fn wait_for_work(&self, bytes: u64) {
        let at = self.work_bytes.load(Ordering::SeqCst) + bytes + 1;
        self.trigger_bytes.store(at, Ordering::SeqCst);
        self.triggered.notified().await;
    }

    /// Counts an attempt at an operation as work, whether or not it succeeded.
    pub(super) fn count_attempt(&self) {
        self.count_work(OPERATION_BYTES);
    }

    /// Counts bytes that were sent as work.
    pub(super) fn count_work(&self, bytes: u64) {
        let done = self.work_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let at = self.trigger_bytes.load(Ordering::SeqCst);
        // Only the task that resets the trigger notifies, so that it is notified once.
        if at > 0
            && done >= at
            && self.trigger_bytes.compare_exchange(at, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            self.triggered.notify_one();
        }
    }

    /// Prints one line about the run so far.
    pub(super) fn print_progress(&self) {
        let (kills, operations, totals) = (read(&self.kills), read(&self.operations), self.totals());
        let by_kind: Vec<String> = kills.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        eprintln!(
            "{:>6.0} s: {} kills ({}), {} operations acknowledged, {} versions verified at {} checkpoints",
            self.started.elapsed().as_secs_f64(),
            sum(&kills),
            by_kind.join(", "),
            sum(&operations),
            totals.verified_versions,
            totals.checkpoints,
        );
    }

    /// Prints the report, and writes it to the file that the plan names. Panics if something is wrong.
    pub(super) fn finish(&self, plan: &Plan) {
        let report = self.report(plan);
        eprintln!("{}", table(&report));
        if let Some(path) = &plan.report {
            std::fs::write(path, serde_json::to_string_pretty(&report).unwrap()).unwrap();
        }
        let findings = self.findings.lock().unwrap().clone();
        assert!(findings.is_empty(), "seed {}: {findings:#?}", plan.seed);
    }

    /// Panics with the report if a checkpoint found something wrong: later findings would only follow from it.
    pub(super) fn stop_at_findings(&self, plan: &Plan) {
        let is_clean = self.findings.lock().unwrap().is_empty();
        if !is_clean {
            self.finish(plan);
        }
    }

    fn report(&self, plan: &Plan) -> Value {
        let (kills, operations, totals) = (read(&self.kills), read(&self.operations), self.totals());
        let findings = self.findings.lock().unwrap().clone();
        let all_findings = [findings.lost.clone(), findings.drift.clone(), findings.other.clone()].concat();
        let seconds = self.started.elapsed().as_secs_f64();
        json!({
            "seed": plan.seed,
            "duration_seconds": seconds.round(),
            "kills": sum(&kills),
            "kills_by_kind": kills,
            "crash_recoveries": totals.crash_recoveries,
            "failed_starts": totals.failed_starts,
            "operations": sum(&operations),
            "operations_by_kind": operations,
            "operations_abandoned": totals.abandoned,
            "attempts_repeated_by_reason": read(&self.repeats),
            "checkpoints": totals.checkpoints,
            "versions_verified": totals.verified_versions,
            "bytes_verified": totals.verified_bytes,
            "absences_verified": totals.verified_absences,
            "events_verified": totals.events,
            "lost": findings.lost.len(),
            "drift": findings.drift.len(),
            "other_findings": findings.other.len(),
            "findings": all_findings,
            "errors_logged": read(&self.logged_errors),
        })
    }

    fn totals(&self) -> Totals {
        *self.totals.lock().unwrap()
    }
}

fn count(counts: &Counts, kind: &str) {
    *counts.lock().unwrap().entry(kind.to_owned()).or_default() += 1;
}

fn read(counts: &Counts) -> BTreeMap<String, u64> {
    counts.lock().unwrap().clone()
}

fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().sum()
}

/// Formats the report as a table of names and values. The values of an object follow its name, indented.
fn table(report: &Value) -> String {
    let mut table = String::new();
    for (name, value) in report.as_object().unwrap() {
        let name = name.replace('_', " ");
        match value {
            Value::Object(rows) => {
                writeln!(table, "{name}").unwrap();
                for (kind, count) in rows {
                    let count = count.to_string();
                    writeln!(table, "    {kind:<36} {count:>12}").unwrap();
                }
            }
            Value::Array(_) => {}
            value => {
                let value = value.to_string();
                writeln!(table, "{name:<40} {value:>12}").unwrap();
            }
        }
    }
    table
}

/// Prints a finding when it is found, because a run that ends early prints no report.
fn print_finding(kind: &str, finding: &str) {
    eprintln!("{kind}: {finding}");
}
