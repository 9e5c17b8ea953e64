//! The comparison of this build with another program.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    machine::Facts,
    meter::Sample,
    options::Options,
    report::{figure, machine_json, rows_json, write_conditions},
    results::{Results, Spread, spread},
    row::Row,
};

/// A row whose rate falls by more than this fraction is reported as slower.
const LOSS_MAX: f64 = 0.03;

/// The results of both programs, which contain the same rows.
pub(crate) struct Comparison<'a> {
    /// This build and the other program.
    pub(crate) versions: &'a [String; 2],
    pub(crate) this: &'a Results,
    pub(crate) other: &'a Results,
}

/// The comparison of one row. Ratios are of medians: this build divided by the other program.
struct RowComparison {
    row: Row,
    this_rate: f64,
    other_rate: f64,
    rate_ratio: f64,
    /// The ratios of the individual rounds.
    by_round: Spread,
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
        let by_round: Vec<Sample> = this
            .iter()
            .zip(other)
            .map(|(this, other)| Sample { rate: this.rate / other.rate, ..Sample::default() })
            .collect();
        Some(Self {
            row,
            this_rate: median(this, &|sample| sample.rate)?,
            other_rate: median(other, &|sample| sample.rate)?,
            rate_ratio: ratio(&|sample| sample.rate)?,
            by_round: spread(&by_round, |sample| sample.rate)?,
            service_cpu_ratio: ratio(&|sample| sample.service.total()),
            postgres_cpu_ratio: ratio(&|sample| sample.postgres.total()),
            p50_ratio: ratio(&|sample| sample.latency.map_or(f64::NAN, |latency| latency.p50)),
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            peak_ratio: ratio(&|sample| sample.peak_bytes.map_or(f64::NAN, |bytes| bytes as f64)),
        })
    }

    fn verdict(&self) -> &'static str {
        if self.rate_ratio < 1.0 - LOSS_MAX { "**slower**" } else { "" }
    }

    fn line(&self) -> String {
        let unit = self.row.unit().rate_name();
        let optional = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
        format!(
            "| {} | {} | {} | {:.3} | {:.3}–{:.3} | {} | {} | {} | {} | {} |",
            self.row.name(),
            figure(self.this_rate, unit),
            figure(self.other_rate, unit),
            self.rate_ratio,
            self.by_round.min,
            self.by_round.max,
            optional(self.service_cpu_ratio),
            optional(self.postgres_cpu_ratio),
            optional(self.p50_ratio),
            optional(self.peak_ratio),
            self.verdict(),
        )
    }

    fn json(&self) -> Value {
        json!({
            "row": self.row.name(), "rate": self.this_rate, "other_rate": self.other_rate,
            "rate_ratio": self.rate_ratio, "rate_ratio_min": self.by_round.min,
            "rate_ratio_max": self.by_round.max, "service_cpu_ratio": self.service_cpu_ratio,
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
            "Ratios are of medians, this build divided by the other program; rounds is the range of the ratios of \
             single rounds. A row is slower if its rate is more than {:.0} % lower.\n\n\
             | row | this build | other | ratio | rounds | service CPU | PostgreSQL CPU | p50 | peak | |\n\
             |---|---|---|---|---|---|---|---|---|---|",
            LOSS_MAX * 100.0
        );
        for row in self.rows() {
            let _ = writeln!(text, "{}", row.line());
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
