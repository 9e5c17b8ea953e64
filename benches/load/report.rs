//! Prints the report as a table or as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    machine::Facts,
    meter::Sample,
    options::{Options, Scale},
    process::Cpu,
    results::{Results, mebibytes, spread},
    row::Row,
    targets::targets,
};

/// Writes the machine and the settings of the run.
pub(crate) fn write_conditions(text: &mut String, machine: &Facts, options: &Options) {
    // Writing to a String cannot fail.
    let _ = match options.scale {
        Scale::Full => Ok(()),
        Scale::Quick => writeln!(text, "Quick run with smaller files: shows trends only.\n"),
        Scale::Smoke => writeln!(text, "Smoke run: shows only that the rows work.\n"),
    };
    for (name, value) in machine {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let set: Vec<String> = options.set.iter().map(|(key, value)| format!("`{key} = {value}`")).collect();
    if !set.is_empty() {
        let _ = writeln!(text, "- **non-default settings**: {}", set.join(", "));
    }
    let _ = writeln!(
        text,
        "- rounds: {}, interleaved; large files of {} MiB; small files of 10 KiB, and pages of {} of {} files, for \
         {} s per round over at most {} connections\n",
        options.rounds(),
        options.large_file_size_bytes() >> 20,
        crate::lists::PAGE_SIZE,
        options.listed_file_count(),
        options.window().as_secs(),
        crate::closed_loop::CONNECTIONS_MAX,
    );
}

/// Renders the report as Markdown.
pub(crate) fn markdown(machine: &Facts, results: &Results, options: &Options) -> String {
    let mut text = String::new();
    write_conditions(&mut text, machine, options);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "| target | measured | required | goal | |\n|---|---|---|---|---|");
    for target in targets(results) {
        let (sign, unit) = (target.sign(), target.unit);
        let figure = |value: f64| figure(value, unit);
        let _ = writeln!(
            text,
            "| {} | {} | {sign} {} | {sign} {} | {} |",
            target.name,
            figure(target.measured),
            figure(target.required),
            figure(target.goal),
            target.verdict()
        );
    }
    let _ = writeln!(
        text,
        "\nCPU seconds (user + system) are per GiB, per 1,000 files or per 1,000 pages. All values are medians; \
         min–max is the range of the rate.\n\n\
         | row | rate | min–max | service CPU | client CPU | PostgreSQL CPU | store CPU | p50 | p99 | peak |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
    for (row, samples) in results.0.iter().filter(|(_, samples)| !samples.is_empty()) {
        let _ = writeln!(text, "{}", line(*row, samples));
    }
    text
}

fn line(row: Row, samples: &[Sample]) -> String {
    let unit = row.unit().rate_name();
    let median =
        |field: &dyn Fn(&Sample) -> f64| spread(samples, field).map_or(f64::NAN, |spread| spread.median);
    let cpu = |field: fn(&Sample) -> Cpu| {
        let (user, system) = (median(&|sample| field(sample).user), median(&|sample| field(sample).system));
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
        optional(median(&|sample| sample.latency.map_or(f64::NAN, |latency| latency.p50)), "ms"),
        optional(median(&|sample| sample.latency.map_or(f64::NAN, |latency| latency.p99)), "ms"),
        optional(median(&|sample| sample.peak_bytes.map_or(f64::NAN, mebibytes)), "MiB"),
    )
}

/// Formats a value with three significant figures, which is more than the accuracy of the measurement.
pub(crate) fn figure(value: f64, unit: &str) -> String {
    let separator = if unit.is_empty() || unit.starts_with('/') { "" } else { " " };
    match value {
        value if value >= 100.0 => format!("{value:.0}{separator}{unit}"),
        value if value >= 10.0 => format!("{value:.1}{separator}{unit}"),
        value => format!("{value:.2}{separator}{unit}"),
    }
}

/// Returns all results as JSON.
pub(crate) fn json(machine: &Facts, results: &Results) -> Value {
    let targets = targets(results).into_iter().map(|target| {
        json!({
            "target": target.name, "measured": target.measured, "required": target.required, "goal": target.goal,
            "unit": target.unit, "verdict": target.verdict(),
        })
    });
    json!({
        "machine": machine_json(machine), "targets": targets.collect::<Vec<_>>(), "rows": rows_json(results),
    })
}

/// Returns the facts about the machine as JSON.
pub(crate) fn machine_json(machine: &Facts) -> Value {
    machine.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect()
}

/// Returns all samples of all rows as JSON.
pub(crate) fn rows_json(results: &Results) -> Value {
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
    rows.collect()
}
