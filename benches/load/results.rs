//! The results and their medians.

use crate::{meter::Sample, row::Row};

/// All samples of all rows.
pub(crate) struct Results(pub(crate) Vec<(Row, Vec<Sample>)>);

impl Results {
    pub(crate) fn new(rows: &[Row]) -> Self {
        Self(rows.iter().map(|row| (*row, Vec::new())).collect())
    }

    pub(crate) fn add(&mut self, row: usize, sample: Sample) {
        self.0[row].1.push(sample);
    }

    /// Returns the median of a value, if the row was measured.
    pub(crate) fn median(&self, row: Row, field: impl Fn(&Sample) -> f64) -> Option<f64> {
        let (_, samples) = self.0.iter().find(|(measured, _)| *measured == row)?;
        spread(samples, field).map(|spread| spread.median)
    }
}

/// Minimum, median and maximum of a value.
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

pub(crate) fn spread(samples: &[Sample], field: impl Fn(&Sample) -> f64) -> Option<Spread> {
    let mut values: Vec<f64> = samples.iter().map(field).collect();
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
