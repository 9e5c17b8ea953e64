//! Measures the time and the CPU usage of all processes involved.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{environment::Environment, process::Cpu};

/// One measurement of one row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// GiB, files or pages per second.
    pub(crate) rate: f64,
    /// CPU seconds per GiB, or per thousand files or pages.
    pub(crate) service: Cpu,
    pub(crate) client: Cpu,
    pub(crate) postgres: Cpu,
    pub(crate) store: Cpu,
    pub(crate) latency: Option<Latency>,
    pub(crate) peak_bytes: Option<u64>,
}

/// The latency of one file or page, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Latency {
    pub(crate) fn from_durations(mut all: Vec<Duration>) -> Option<Self> {
        all.sort_unstable();
        let at = |percent: usize| Some(all.get(all.len() * percent / 100)?.as_secs_f64() * 1000.0);
        Some(Self { p50: at(50)?, p99: at(99)? })
    }
}

/// The unit of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Gibibytes,
    Files,
    Pages,
}

impl Unit {
    /// Returns the name of the unit of the rate.
    pub(crate) fn rate_name(self) -> &'static str {
        match self {
            Self::Gibibytes => "GiB/s",
            Self::Files | Self::Pages => "/s",
        }
    }
}

impl Sample {
    pub(crate) fn summary(&self, unit: Unit) -> String {
        let rate = match unit {
            Unit::Gibibytes => format!("{:.3} GiB/s", self.rate),
            Unit::Files | Unit::Pages => format!("{:.0}/s", self.rate),
        };
        let latency =
            self.latency.map(|latency| format!(", p50 {:.2} ms, p99 {:.2} ms", latency.p50, latency.p99));
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

/// A running measurement.
pub(crate) struct Meter {
    start: Instant,
    service_pid: Option<u32>,
    store_pid: Option<u32>,
    before: [Cpu; 4],
}

impl Meter {
    pub(crate) fn start(environment: &Environment, service_pid: Option<u32>, store_pid: Option<u32>) -> Self {
        let mut meter = Self { start: Instant::now(), service_pid, store_pid, before: [Cpu::default(); 4] };
        meter.before = meter.cpu(environment);
        meter.start = Instant::now();
        meter
    }

    fn cpu(&self, environment: &Environment) -> [Cpu; 4] {
        let process_cpu = |pid: Option<u32>| pid.map(Cpu::measure_process).unwrap_or_default();
        [
            process_cpu(self.service_pid),
            Cpu::measure_with_ended_children(std::process::id()),
            environment.postgres_cpu(),
            process_cpu(self.store_pid),
        ]
    }

    /// Stops the measurement before the amount of work is known.
    pub(crate) fn measure_usage(self, environment: &Environment) -> Usage {
        let seconds = self.start.elapsed().as_secs_f64();
        let after = self.cpu(environment);
        Usage { seconds, cpu: [0, 1, 2, 3].map(|index| after[index] - self.before[index]) }
    }

    /// Stops the measurement. `units` is GiB, or thousands of files or pages; `count` is the number for the rate.
    pub(crate) fn stop(self, environment: &Environment, count: f64, units: f64) -> Sample {
        self.measure_usage(environment).sample(count, units)
    }
}

/// The time and CPU used between start and stop.
pub(crate) struct Usage {
    seconds: f64,
    cpu: [Cpu; 4],
}

impl Usage {
    pub(crate) fn sample(self, count: f64, units: f64) -> Sample {
        let [service, client, postgres, store] = self.cpu.map(|cpu| cpu.divide_by(units));
        let rate = count / self.seconds;
        Sample { rate, service, client, postgres, store, latency: None, peak_bytes: None }
    }
}
