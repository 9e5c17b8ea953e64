//! Metrics of the job queue and of the jobs of this process.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use super::{Metrics, counter, duration_histogram};

/// The outcome of an attempt at a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The job is finished.
    Done,
    /// The attempt failed, and the job will be retried.
    Failed,
    /// A dependency failed, and the job will be retried. The attempt does not count.
    Waiting,
    /// The last attempt failed, and the job is parked.
    Parked,
    /// The worker lost its lease, so the attempt changed nothing in the queue.
    Fenced,
    /// The worker is shutting down and released the job for another one.
    Released,
    /// The worker sent no heartbeat, and another one recovered the job.
    Lost,
    /// The outcome could not be recorded. The job runs again when its lease has expired.
    Unknown,
}

impl AttemptOutcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::Fenced => "fenced",
            Self::Released => "released",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

pub(super) struct JobInstruments {
    queued: Gauge<u64>,
    oldest_due: Gauge<f64>,
    attempts: Counter<u64>,
    duration: Histogram<f64>,
}

impl JobInstruments {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            queued: meter
                .u64_gauge("strongroom.jobs.queued")
                .with_description("Unfinished jobs, by state; at most 100,000 per state are counted")
                .build(),
            oldest_due: meter
                .f64_gauge("strongroom.jobs.oldest_due")
                .with_unit("s")
                .with_description("Time that the oldest due job has waited for a worker")
                .build(),
            attempts: counter(
                meter,
                "strongroom.job.attempts",
                "",
                "Completed job attempts, by kind and outcome",
            ),
            duration: duration_histogram(
                meter,
                "strongroom.job.duration",
                "Duration of job attempts, by kind",
            ),
        }
    }
}

impl Metrics {
    /// Sets the number of jobs in each state, and how long the oldest due job has been due.
    pub fn set_queued_jobs(&self, counts: &[(&'static str, u64)], oldest_due: Duration) {
        let jobs = &self.inner.jobs;
        for (state, count) in counts {
            jobs.queued.record(*count, &[KeyValue::new("state", *state)]);
        }
        jobs.oldest_due.record(oldest_due.as_secs_f64(), &[]);
    }

    /// Counts a completed attempt at a job, and records its duration, which is known only for attempts of
    /// this process. Kinds come from a fixed set.
    pub fn record_job_attempt(&self, kind: &str, outcome: AttemptOutcome, duration: Option<Duration>) {
        let jobs = &self.inner.jobs;
        let kind = KeyValue::new("kind", kind.to_owned());
        if let Some(duration) = duration {
            jobs.duration.record(duration.as_secs_f64(), std::slice::from_ref(&kind));
        }
        jobs.attempts.add(1, &[kind, KeyValue::new("outcome", outcome.name())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_outcomes_are_pinned() {
        use AttemptOutcome as O;
        let outcomes =
            [O::Done, O::Failed, O::Waiting, O::Parked, O::Fenced, O::Released, O::Lost, O::Unknown];
        let names = ["done", "failed", "waiting", "parked", "fenced", "released", "lost", "unknown"];
        assert_eq!(outcomes.map(AttemptOutcome::name), names);
    }
}
