//! `[lists]`: limits of list requests.

use serde::Deserialize;

use super::validation::Violations;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListsConfig {
    /// Page size, in rows, if the request has none.
    pub page_size_default: u32,
    /// Maximum page size, in rows.
    pub page_size_max: u32,
    /// Maximum number of rows that are read for one returned row.
    pub scan_rows_per_row_max: u32,
    /// Totals up to this number are exact.
    pub count_max: u32,
}

impl ListsConfig {
    pub(super) fn check(&self, violations: &mut Violations) {
        violations.check_range("lists.page_size_default", self.page_size_default, 1..=1_000);
        violations.check_range("lists.page_size_max", self.page_size_max, 1..=1_000);
        if self.page_size_default > self.page_size_max {
            violations.add(
                "lists.page_size_default",
                format!(
                    "must be at most `page_size_max` ({}), not {}",
                    self.page_size_max, self.page_size_default
                ),
            );
        }
        violations.check_range("lists.scan_rows_per_row_max", self.scan_rows_per_row_max, 1..=1_000);
        violations.check_range("lists.count_max", self.count_max, 0..=100_000);
    }
}
