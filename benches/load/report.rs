//! The tables.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    machine::Facts,
    meter::{Sample, Unit},
    options::Options,
    process::Cpu,
    results::{Results, mebibytes, spread},
    row::Row,
    targets::targets,
};

/// The tables, as Markdown.
pub(crate) fn markdown(machine: &Facts, results: &Results, options: &Options) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match options.is_quick {
        true => writeln!(text, "A quick run with smaller files: a trend, not a measurement to quote.\n"),
        false => Ok(()),
    };
    for (name, value) in machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let set: Vec<String> = options.set.iter().map(|(key, value)| format!("`{key} = {value}`")).collect();
    if !set.is_empty() {
        let _ = writeln!(text, "- **not the defaults**: {}", set.join(", "));
    }
    let _ = writeln!(
        text,
        "- rounds: {}, interleaved; large files {} MiB, small ones 10 KiB for {} s a round, over at most {} connections\n",
        options.rounds,
        options.large_bytes() >> 20,
        options.window().as_secs(),
        crate::small::CONNECTIONS_MAX,
    );
    let _ = writeln!(text, "| target | measured | must | aim | |\n|---|---|---|---|---|");
    for target in targets(results) {
        let (sign, unit) = (target.sign(), target.unit);
        let figure = |value: f64| figure(value, unit);
        let _ = writeln!(
            text,
            "| {} | {} | {sign} {} | {sign} {} | {} |",
            target.what,
            figure(target.measured),
            figure(target.must),
            figure(target.aim),
            target.verdict()
        );
    }
    let _ = writeln!(
        text,
        "\nCPU seconds are user + system, per GiB or per 1,000 files; medians, and min–max of the rate.\n\n\
         | row | rate | min–max | service CPU | client CPU | PostgreSQL CPU | store CPU | p50 | p99 | peak |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
    for (row, samples) in results.0.iter().filter(|(_, samples)| !samples.is_empty()) {
        let _ = writeln!(text, "{}", line(*row, samples));
    }
    text
}

fn line(row: Row, samples: &[Sample]) -> String {
    let unit = if row.unit() == Unit::Gibibytes { "GiB/s" } else { "/s" };
    let median = |of: &dyn Fn(&Sample) -> f64| spread(samples, of).map_or(f64::NAN, |spread| spread.median);
    let cpu = |of: fn(&Sample) -> Cpu| {
        let (user, system) = (median(&|sample| of(sample).user), median(&|sample| of(sample).system));
        if user + system > 0.0 { format!("{user:.2} + {system:.2}") } else { String::new() }
    };
    let optional = |value: f64, unit: &str| if value.is_nan() { String::new() } else { figure(value, unit) };
    let rate = spread(samples, |sample| sample.rate);
    let (rate, range) = rate.map_or_else(Default::default, |rate| {
        (figure(rate.median, unit), format!("{}–{}", figure(rate.min, ""), figure(rate.max, "")))
    });
    format!(
        "| {} | {rate} | {range} | {} | {} | {} | {} | {} | {} | {} |",
        row.name(),
        cpu(|sample| sample.service),
        cpu(|sample| sample.client),
        cpu(|sample| sample.postgres),
        cpu(|sample| sample.store),
        optional(median(&|sample| sample.latency.map_or(f64::NAN, |of| of.p50)), "ms"),
        optional(median(&|sample| sample.latency.map_or(f64::NAN, |of| of.p99)), "ms"),
        optional(median(&|sample| sample.peak_bytes.map_or(f64::NAN, mebibytes)), "MiB"),
    )
}

/// Three significant figures are more than such a measurement has.
fn figure(value: f64, unit: &str) -> String {
    let separator = if unit.is_empty() || unit.starts_with('/') { "" } else { " " };
    match value {
        value if value >= 100.0 => format!("{value:.0}{separator}{unit}"),
        value if value >= 10.0 => format!("{value:.1}{separator}{unit}"),
        value => format!("{value:.2}{separator}{unit}"),
    }
}

/// Everything, for machines.
pub(crate) fn json(machine: &Facts, results: &Results) -> Value {
    let cpu = |cpu: Cpu| json!({ "user": cpu.user, "system": cpu.system });
    let sample = |sample: &Sample| {
        json!({
            "rate": sample.rate, "service_cpu": cpu(sample.service), "client_cpu": cpu(sample.client),
            "postgres_cpu": cpu(sample.postgres), "store_cpu": cpu(sample.store), "latency_ms": sample.latency,
            "peak_bytes": sample.peak_bytes,
        })
    };
    let rows = results.0.iter().map(|(row, samples)| {
        json!({ "row": row.name(), "samples": samples.iter().map(sample).collect::<Vec<_>>() })
    });
    let targets = targets(results).into_iter().map(|target| {
        json!({
            "target": target.what, "measured": target.measured, "must": target.must, "aim": target.aim,
            "unit": target.unit, "verdict": target.verdict(),
        })
    });
    json!({
        "machine": machine.iter().map(|(name, value)| (*name, value.as_str())).collect::<std::collections::BTreeMap<_, _>>(),
        "targets": targets.collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
    })
}
