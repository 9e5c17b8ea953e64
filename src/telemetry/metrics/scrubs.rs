//! Metrics of scrubbing, of the copies of blobs, and of repairs from them.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Meter},
};

use super::{Metrics, counter};

/// The outcome of reading one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubOutcome {
    /// It is intact.
    Verified,
    /// It is missing or damaged, as two reads have shown.
    Damaged,
    /// Its blob has another object by now, or none.
    Superseded,
    /// Only the first of two reads showed damage. It is read again.
    Unconfirmed,
    /// It could not be read. It is read again.
    Failed,
}

impl ScrubOutcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Damaged => "damaged",
            Self::Superseded => "superseded",
            Self::Unconfirmed => "unconfirmed",
            Self::Failed => "failed",
        }
    }
}

/// The progress of scrubbing one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubLevel {
    /// The bytes that the pass must still read.
    pub left_bytes: u64,
    /// The time since the verification that is longest ago.
    pub oldest: Duration,
}

/// The blobs without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicationLevel {
    pub pending_blobs: u64,
    pub pending_bytes: u64,
    /// The age of the oldest one.
    pub oldest: Duration,
}

pub(super) struct ScrubInstruments {
    objects: Counter<u64>,
    read: Counter<u64>,
    left: Gauge<u64>,
    oldest: Gauge<f64>,
    damaged_blobs: Gauge<u64>,
    replaced_checksums: Counter<u64>,
    replicated: Counter<u64>,
    repaired: Counter<u64>,
    pending_blobs: Gauge<u64>,
    pending: Gauge<u64>,
    oldest_pending: Gauge<f64>,
}

impl ScrubInstruments {
    pub(super) fn new(meter: &Meter) -> Self {
        let gauge = |name: &'static str, unit: &'static str, description: &'static str| {
            meter.u64_gauge(name).with_unit(unit).with_description(description).build()
        };
        let seconds = |name: &'static str, description: &'static str| {
            meter.f64_gauge(name).with_unit("s").with_description(description).build()
        };
        Self {
            objects: counter(
                meter,
                "strongroom.scrub.objects",
                "",
                "Objects that scrubbing has read, and damaged ones however they were found, by provider and outcome",
            ),
            read: counter(meter, "strongroom.scrub.read", "By", "Bytes that scrubbing has read, by provider"),
            left: gauge("strongroom.scrub.left", "By", "Bytes that the pass of a provider must still read"),
            oldest: seconds(
                "strongroom.scrub.oldest",
                "Time since the verification of an object of a provider that is longest ago",
            ),
            damaged_blobs: gauge(
                "strongroom.damaged_blobs",
                "",
                "Blobs that are marked missing or damaged, by provider, at most 10,000",
            ),
            replaced_checksums: counter(
                meter,
                "strongroom.scrub.replaced_checksums",
                "",
                "Intact objects whose recorded block checksums were wrong and were replaced, by provider",
            ),
            replicated: counter(
                meter,
                "strongroom.replica.copies",
                "",
                "Blobs that were copied to the replica provider and verified",
            ),
            repaired: counter(
                meter,
                "strongroom.replica.repairs",
                "",
                "Blobs that were repaired from their copy, by provider",
            ),
            pending_blobs: gauge("strongroom.replica.pending_blobs", "", "Blobs without a verified copy"),
            pending: gauge("strongroom.replica.pending", "By", "Bytes of blobs without a verified copy"),
            oldest_pending: seconds(
                "strongroom.replica.oldest_pending",
                "Age of the oldest blob without a verified copy",
            ),
        }
    }
}

fn of_provider(provider: &str) -> KeyValue {
    KeyValue::new("provider", provider.to_owned())
}

impl Metrics {
    /// Starts the counts of damaged objects, wrong checksums and repairs of a provider at zero. An alert on the increase of a counter
    /// does not notice the first value of one that begins later.
    pub fn start_scrub_counts(&self, provider: &str) {
        let labels = [of_provider(provider), KeyValue::new("outcome", ScrubOutcome::Damaged.name())];
        self.inner.scrubs.objects.add(0, &labels);
        self.inner.scrubs.replaced_checksums.add(0, &[of_provider(provider)]);
        self.inner.scrubs.repaired.add(0, &[of_provider(provider)]);
    }

    /// Counts an object that scrubbing has read, or that was found damaged in another way.
    pub fn count_scrubbed(&self, provider: &str, outcome: ScrubOutcome) {
        let labels = [of_provider(provider), KeyValue::new("outcome", outcome.name())];
        self.inner.scrubs.objects.add(1, &labels);
    }

    /// Sets the number of blobs of a provider that are marked missing or damaged.
    pub fn set_damaged_blobs(&self, provider: &str, count: u64) {
        self.inner.scrubs.damaged_blobs.record(count, &[of_provider(provider)]);
    }

    /// Counts an intact object whose wrong block checksums were replaced.
    pub fn count_replaced_checksums(&self, provider: &str) {
        self.inner.scrubs.replaced_checksums.add(1, &[of_provider(provider)]);
    }

    /// Counts bytes that scrubbing has read.
    pub fn add_scrubbed_bytes(&self, provider: &str, bytes: u64) {
        self.inner.scrubs.read.add(bytes, &[of_provider(provider)]);
    }

    /// Sets the progress of scrubbing a provider.
    pub fn set_scrub_level(&self, provider: &str, level: ScrubLevel) {
        let labels = [of_provider(provider)];
        self.inner.scrubs.left.record(level.left_bytes, &labels);
        self.inner.scrubs.oldest.record(level.oldest.as_secs_f64(), &labels);
    }

    /// Counts a blob that was copied to the replica provider.
    pub fn count_replicated(&self, provider: &str) {
        self.inner.scrubs.replicated.add(1, &[of_provider(provider)]);
    }

    /// Counts a blob that was repaired from its copy.
    pub fn count_repaired(&self, provider: &str) {
        self.inner.scrubs.repaired.add(1, &[of_provider(provider)]);
    }

    /// Sets the blobs without a copy at a replica provider.
    pub fn set_replication_level(&self, provider: &str, level: ReplicationLevel) {
        let labels = [of_provider(provider)];
        self.inner.scrubs.pending_blobs.record(level.pending_blobs, &labels);
        self.inner.scrubs.pending.record(level.pending_bytes, &labels);
        self.inner.scrubs.oldest_pending.record(level.oldest.as_secs_f64(), &labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_outcomes_are_pinned() {
        use ScrubOutcome as O;
        let names = [O::Verified, O::Damaged, O::Superseded, O::Unconfirmed, O::Failed].map(O::name);
        assert_eq!(names, ["verified", "damaged", "superseded", "unconfirmed", "failed"]);
    }
}
