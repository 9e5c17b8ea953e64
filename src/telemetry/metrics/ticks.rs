//! Metrics of ticks, and of the circuit breakers that their work obeys.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};

use super::{Metrics, counter, duration_histogram};

/// The outcome of a run of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickOutcome {
    /// It ended; single items may have failed.
    Done,
    /// It failed as a whole.
    Failed,
    /// It exceeded its deadline and was cancelled.
    TimedOut,
    /// It ended with a panic.
    Panicked,
}

impl TickOutcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
        }
    }
}

/// A tick in metrics. The provider is empty for a tick that concerns no store. Both come from fixed sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TickLabels {
    pub tick: &'static str,
    pub provider: String,
}

impl TickLabels {
    fn to_key_values(&self) -> Vec<KeyValue> {
        vec![KeyValue::new("tick", self.tick), KeyValue::new("provider", self.provider.clone())]
    }
}

/// An age that was measured at a moment. It grows until it is measured again.
#[derive(Debug, Clone, Copy)]
struct MeasuredAge {
    age: Duration,
    measured: Instant,
}

type Ages = Arc<Mutex<BTreeMap<TickLabels, MeasuredAge>>>;

pub(super) struct TickInstruments {
    runs: Counter<u64>,
    duration: Histogram<f64>,
    ages: Ages,
}

impl TickInstruments {
    pub(super) fn new(meter: &Meter) -> Self {
        let ages = Ages::default();
        let observed = Arc::clone(&ages);
        meter
            .f64_observable_gauge("strongroom.tick.age")
            .with_unit("s")
            .with_description("Time since a tick last ended without an error, in any process")
            .with_callback(move |observer| {
                for (labels, age) in observed.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    let age = age.age + age.measured.elapsed();
                    observer.observe(age.as_secs_f64(), &labels.to_key_values());
                }
            })
            .build();
        Self {
            runs: counter(meter, "strongroom.ticks", "", "Runs of ticks, by tick, provider and outcome"),
            duration: duration_histogram(meter, "strongroom.tick.duration", "Duration of runs of ticks"),
            ages,
        }
    }
}

impl Metrics {
    /// Counts a run of a tick and records its duration.
    pub fn record_tick(&self, labels: &TickLabels, outcome: TickOutcome, duration: Duration) {
        let ticks = &self.inner.ticks;
        let mut labels = labels.to_key_values();
        ticks.duration.record(duration.as_secs_f64(), &labels);
        labels.push(KeyValue::new("outcome", outcome.name()));
        ticks.runs.add(1, &labels);
    }

    /// Sets the time since a tick last ended without an error. It grows until it is set again, so that it shows
    /// a process that does not measure it any more.
    pub fn set_tick_age(&self, labels: TickLabels, age: Duration) {
        let mut ages = self.inner.ticks.ages.lock().unwrap_or_else(PoisonError::into_inner);
        ages.insert(labels, MeasuredAge { age, measured: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_outcomes_are_pinned() {
        use TickOutcome as O;
        let names = [O::Done, O::Failed, O::TimedOut, O::Panicked].map(TickOutcome::name);
        assert_eq!(names, ["done", "failed", "timed_out", "panicked"]);
    }

    #[test]
    fn age_grows_until_it_is_measured_again() {
        let metrics = Metrics::for_tests().unwrap();
        let labels = TickLabels { tick: "retention", provider: String::new() };
        let read_age = || {
            let text = metrics.render().unwrap();
            let line = text.lines().find(|line| line.starts_with("strongroom_tick_age_seconds{"));
            line.and_then(|line| line.rsplit_once(' ')).unwrap().1.parse::<f64>().unwrap()
        };
        metrics.set_tick_age(labels.clone(), Duration::from_secs(90));
        let first = read_age();
        assert!(first > 90.0 && read_age() > first, "{first}");
        metrics.set_tick_age(labels, Duration::ZERO);
        assert!(read_age() < first);
    }
}
