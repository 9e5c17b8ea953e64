//! What one measurement finds, and how: time, and the CPU of everyone involved, before and after.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{process::Cpu, site::Site};

/// One measurement of one row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// GiB or files per second.
    pub(crate) rate: f64,
    /// CPU seconds per GiB, or per thousand files.
    pub(crate) service: Cpu,
    pub(crate) client: Cpu,
    pub(crate) postgres: Cpu,
    pub(crate) store: Cpu,
    pub(crate) latency: Option<Latency>,
    pub(crate) peak_bytes: Option<u64>,
}

/// How long one file took, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Latency {
    pub(crate) fn of(mut all: Vec<Duration>) -> Option<Self> {
        all.sort_unstable();
        let at = |percent: usize| Some(all.get(all.len() * percent / 100)?.as_secs_f64() * 1000.0);
        Some(Self { p50: at(50)?, p99: at(99)? })
    }
}

/// What a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Gibibytes,
    Files,
}

impl Sample {
    pub(crate) fn in_short(&self, unit: Unit) -> String {
        let rate = match unit {
            Unit::Gibibytes => format!("{:.3} GiB/s", self.rate),
            Unit::Files => format!("{:.0}/s", self.rate),
        };
        let latency = self.latency.map(|of| format!(", p50 {:.1} ms, p99 {:.1} ms", of.p50, of.p99));
        let peak = self.peak_bytes.map(|bytes| format!(", peak {} MiB", bytes >> 20));
        let cpu = |name: &str, cpu: Cpu| match cpu.total() > 0.0 {
            true => format!(", {name} {:.2}+{:.2} s", cpu.user, cpu.system),
            false => String::new(),
        };
        [
            rate,
            cpu("service", self.service),
            cpu("client", self.client),
            cpu("postgres", self.postgres),
            cpu("store", self.store),
            latency.unwrap_or_default(),
            peak.unwrap_or_default(),
        ]
        .concat()
    }
}

/// Who is looked at.
pub(crate) struct Meter {
    began: Instant,
    service_pid: Option<u32>,
    store_pid: Option<u32>,
    before: [Cpu; 4],
}

impl Meter {
    pub(crate) fn start(site: &Site, service_pid: Option<u32>, store_pid: Option<u32>) -> Self {
        let mut meter = Self { began: Instant::now(), service_pid, store_pid, before: [Cpu::default(); 4] };
        meter.before = meter.cpu(site);
        meter.began = Instant::now();
        meter
    }

    fn cpu(&self, site: &Site) -> [Cpu; 4] {
        let of = |pid: Option<u32>| pid.map(Cpu::of).unwrap_or_default();
        [of(self.service_pid), Cpu::of_ended_too(std::process::id()), site.postgres_cpu(), of(self.store_pid)]
    }

    /// Stops the clock before it is known how much was done.
    pub(crate) fn pause(self, site: &Site) -> Used {
        let seconds = self.began.elapsed().as_secs_f64();
        let after = self.cpu(site);
        Used { seconds, cpu: [0, 1, 2, 3].map(|who| after[who] - self.before[who]) }
    }

    /// `units` is GiB or thousands of files, `count` what is counted per second.
    pub(crate) fn stop(self, site: &Site, count: f64, units: f64) -> Sample {
        self.pause(site).sample(count, units)
    }
}

/// What was used between start and stop.
pub(crate) struct Used {
    seconds: f64,
    cpu: [Cpu; 4],
}

impl Used {
    pub(crate) fn sample(self, count: f64, units: f64) -> Sample {
        let [service, client, postgres, store] = self.cpu.map(|cpu| cpu.per(units));
        let rate = count / self.seconds;
        Sample { rate, service, client, postgres, store, latency: None, peak_bytes: None }
    }
}
