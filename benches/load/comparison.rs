//! The comparison of this build with another program.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    machine::Facts,
    meter::Sample,
    options::Options,
    report::{figure, machine_json, rows_json, write_conditions},
    results::{Results, spread},
    row::Row,
};

/// The fraction of its rate that a row may lose.
const LOSS_MAX: f64 = 0.03;

/// The mean ratio of pairs of rounds, with the interval that contains the true ratio with a confidence of 95 %.
#[derive(Debug, Clone, Copy)]
struct PairedRatio {
    mean: f64,
    low: f64,
    high: f64,
}

impl PairedRatio {
    /// Returns the geometric mean of the ratios, so that a row twice as fast and one half as fast cancel out.
    /// A single round has no interval.
    fn new(ratios: &[f64]) -> Option<Self> {
        let logs: Vec<f64> = ratios.iter().filter(|ratio| **ratio > 0.0).map(|ratio| ratio.ln()).collect();
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let count = logs.len() as f64;
        let mean = (count > 0.0).then(|| logs.iter().sum::<f64>() / count)?;
        let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let reach = if logs.len() > 1 {
            students_t(logs.len() - 1) * (variance / count).sqrt()
        } else {
            f64::INFINITY
        };
        Some(Self { mean: mean.exp(), low: (mean - reach).exp(), high: (mean + reach).exp() })
    }

    /// Returns whether the row lost too much, as far as the rounds show it.
    fn verdict(self) -> &'static str {
        if self.high < 1.0 - LOSS_MAX {
            "**slower**"
        } else if self.low >= 1.0 - LOSS_MAX {
            "equal or faster"
        } else {
            ""
        }
    }
}

/// Returns the factor of a two-sided interval of 95 % (Student's t), rounded up between the listed degrees of
/// freedom.
fn students_t(degrees: usize) -> f64 {
    match degrees {
        0 | 1 => 12.71,
        2 => 4.31,
        3 => 3.19,
        4 => 2.78,
        5..=6 => 2.58,
        7..=9 => 2.37,
        10..=14 => 2.23,
        15..=29 => 2.14,
        _ => 2.05,
    }
}

/// The results of both programs, which contain the same rows.
pub(crate) struct Comparison<'a> {
    /// This build and the other program.
    pub(crate) versions: &'a [String; 2],
    pub(crate) this: &'a Results,
    pub(crate) other: &'a Results,
}

/// The comparison of one row. Ratios are this build divided by the other program; all but that of the rate are
/// of medians.
struct RowComparison {
    row: Row,
    this_rate: f64,
    other_rate: f64,
    /// The ratios of the rate in the individual rounds.
    by_round: Vec<f64>,
    rate_ratio: PairedRatio,
    service_cpu_ratio: Option<f64>,
    postgres_cpu_ratio: Option<f64>,
    p50_ratio: Option<f64>,
    peak_ratio: Option<f64>,
}

impl RowComparison {
    fn new(row: Row, this: &[Sample], other: &[Sample]) -> Option<Self> {
        let median = |samples: &[Sample], field: &dyn Fn(&Sample) -> f64| {
            spread(samples, field).map(|spread| spread.median).filter(|median| *median > 0.0)
        };
        let ratio = |field: &dyn Fn(&Sample) -> f64| Some(median(this, field)? / median(other, field)?);
        let by_round: Vec<f64> = this.iter().zip(other).map(|(this, other)| this.rate / other.rate).collect();
        Some(Self {
            row,
            this_rate: median(this, &|sample| sample.rate)?,
            other_rate: median(other, &|sample| sample.rate)?,
            rate_ratio: PairedRatio::new(&by_round)?,
            by_round,
            service_cpu_ratio: ratio(&|sample| sample.service.total()),
            postgres_cpu_ratio: ratio(&|sample| sample.postgres.total()),
            p50_ratio: ratio(&|sample| sample.latency.map_or(f64::NAN, |latency| latency.p50)),
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            peak_ratio: ratio(&|sample| sample.peak_bytes.map_or(f64::NAN, |bytes| bytes as f64)),
        })
    }

    fn line(&self) -> String {
        let unit = self.row.unit().rate_name();
        let optional = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
        format!(
            "| {} | {} | {} | {:.3} | {:.3}–{:.3} | {} | {} | {} | {} | {} |",
            self.row.name(),
            figure(self.this_rate, unit),
            figure(self.other_rate, unit),
            self.rate_ratio.mean,
            self.rate_ratio.low,
            self.rate_ratio.high,
            optional(self.service_cpu_ratio),
            optional(self.postgres_cpu_ratio),
            optional(self.p50_ratio),
            optional(self.peak_ratio),
            self.rate_ratio.verdict(),
        )
    }

    fn json(&self) -> Value {
        json!({
            "row": self.row.name(), "rate": self.this_rate, "other_rate": self.other_rate,
            "rate_ratio": self.rate_ratio.mean, "rate_ratio_low": self.rate_ratio.low,
            "rate_ratio_high": self.rate_ratio.high, "service_cpu_ratio": self.service_cpu_ratio,
            "postgres_cpu_ratio": self.postgres_cpu_ratio, "p50_ratio": self.p50_ratio,
            "peak_ratio": self.peak_ratio,
        })
    }
}

impl Comparison<'_> {
    /// Returns the rows that both programs have samples of.
    fn rows(&self) -> Vec<RowComparison> {
        let rows = self.this.0.iter().zip(&self.other.0);
        rows.filter_map(|((row, this), (_, other))| RowComparison::new(*row, this, other)).collect()
    }

    /// Renders the comparison as Markdown.
    pub(crate) fn markdown(&self, machine: &Facts, options: &Options) -> String {
        let mut text = String::new();
        let [this, other] = self.versions;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "- this build: {this}\n- other program: {other}");
        write_conditions(&mut text, machine, options);
        let _ = writeln!(
            text,
            "Ratios are this build divided by the other program: of the rate the geometric mean over the pairs of \
             rounds with its interval of 95 %, of the other figures the ratio of the medians. A row is slower if \
             the whole interval is below {:.2}, and equal or faster if none of it is.\n\n\
             | row | this build | other | rate | 95 % | service CPU | PostgreSQL CPU | p50 | peak | |\n\
             |---|---|---|---|---|---|---|---|---|---|",
            1.0 - LOSS_MAX
        );
        let rows = self.rows();
        for row in &rows {
            let _ = writeln!(text, "{}", row.line());
        }
        let pairs: Vec<f64> = rows.iter().flat_map(|row| row.by_round.iter().copied()).collect();
        if let Some(PairedRatio { mean, low, high }) = PairedRatio::new(&pairs) {
            let _ = writeln!(
                text,
                "| all rows, {} pairs | | | {mean:.3} | {low:.3}–{high:.3} | | | | | |",
                pairs.len()
            );
        }
        text
    }

    /// Returns the comparison and all samples as JSON.
    pub(crate) fn json(&self, machine: &Facts) -> Value {
        json!({
            "machine": machine_json(machine),
            "programs": self.versions,
            "comparison": self.rows().iter().map(RowComparison::json).collect::<Vec<_>>(),
            "rows": rows_json(self.this),
            "other_rows": rows_json(self.other),
        })
    }
}
