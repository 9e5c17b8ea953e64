//! What was measured, and medians of it.

use crate::{meter::Sample, row::Row};

/// Every sample of every row.
pub(crate) struct Results(pub(crate) Vec<(Row, Vec<Sample>)>);

impl Results {
    pub(crate) fn new(rows: &[Row]) -> Self {
        Self(rows.iter().map(|row| (*row, Vec::new())).collect())
    }

    pub(crate) fn add(&mut self, row: usize, sample: Sample) {
        self.0[row].1.push(sample);
    }

    /// The median of something, where the row was measured.
    pub(crate) fn median(&self, row: Row, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        let (_, samples) = self.0.iter().find(|(measured, _)| *measured == row)?;
        spread(samples, of).map(|spread| spread.median)
    }
}

/// Where a figure lies.
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

pub(crate) fn spread(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> Option<Spread> {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        0 => (values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0,
        _ => *values.get(middle)?,
    };
    Some(Spread { min: *values.first()?, median, max: *values.last()? })
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
