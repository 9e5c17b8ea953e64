//! Metrics of the job queue and of the jobs of this process.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use super::{Metrics, counter, duration_histogram};

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
    /// this process. Kinds and outcomes come from fixed sets.
    pub fn record_job_attempt(&self, kind: &str, outcome: &'static str, duration: Option<Duration>) {
        let jobs = &self.inner.jobs;
        let kind = KeyValue::new("kind", kind.to_owned());
        if let Some(duration) = duration {
            jobs.duration.record(duration.as_secs_f64(), std::slice::from_ref(&kind));
        }
        jobs.attempts.add(1, &[kind, KeyValue::new("outcome", outcome)]);
    }
}
