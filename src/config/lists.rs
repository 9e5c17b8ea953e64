//! `[lists]`: how much a list may read.

use serde::Deserialize;

use super::validation::Violations;

/// Lists of files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListsConfig {
    /// Rows of a page when the caller asks for none.
    pub page_size_default: u32,
    /// Rows of a page at most.
    pub page_size_max: u32,
    /// Rows read for one row returned.
    pub scan_rows_per_row_max: u32,
    /// Totals are exact up to this number.
    pub count_max: u32,
}

impl ListsConfig {
    pub(super) fn check(&self, violations: &mut Violations) {
        violations.range("lists.page_size_default", self.page_size_default, 1..=1_000);
        violations.range("lists.page_size_max", self.page_size_max, 1..=1_000);
        if self.page_size_default > self.page_size_max {
            violations.refuse("lists.page_size_default", "must be at most `page_size_max`");
        }
        violations.range("lists.scan_rows_per_row_max", self.scan_rows_per_row_max, 1..=1_000);
        violations.range("lists.count_max", self.count_max, 0..=100_000);
    }
}
