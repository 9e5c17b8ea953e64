//! What is measured of the queue and of the jobs that this process works on.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use super::{Metrics, counter, seconds};

/// The instruments.
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
                .with_description("Live jobs, by state; counted up to 100,000 each")
                .build(),
            oldest_due: meter
                .f64_gauge("strongroom.jobs.oldest_due")
                .with_unit("s")
                .with_description("For how long the first job that is due has waited for a worker")
                .build(),
            attempts: counter(
                meter,
                "strongroom.job.attempts",
                "",
                "Attempts at jobs that ended, by kind and outcome",
            ),
            duration: seconds(meter, "strongroom.job.duration", "Attempts at jobs, by kind"),
        }
    }
}

impl Metrics {
    /// Says how many jobs there are in each state, and for how long the first one that is due has been due.
    pub fn jobs_queued(&self, counts: &[(&'static str, u64)], oldest_due: Duration) {
        let jobs = &self.inner.jobs;
        for (state, count) in counts {
            jobs.queued.record(*count, &[KeyValue::new("state", *state)]);
        }
        jobs.oldest_due.record(oldest_due.as_secs_f64(), &[]);
    }

    /// Counts an attempt at a job that ended, and measures it where this process made it. Kinds and outcomes come from closed
    /// sets.
    pub fn job_attempted(&self, kind: &str, outcome: &'static str, took: Option<Duration>) {
        let jobs = &self.inner.jobs;
        let kind = KeyValue::new("kind", kind.to_owned());
        if let Some(took) = took {
            jobs.duration.record(took.as_secs_f64(), std::slice::from_ref(&kind));
        }
        jobs.attempts.add(1, &[kind, KeyValue::new("outcome", outcome)]);
    }
}
