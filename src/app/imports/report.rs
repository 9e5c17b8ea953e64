//! The reports of an import: one for each object, one for the end of each prefix, and the summary.

use super::{ObjectLocation, ObjectOutcome};
use crate::app::Error;

/// A report of an import.
#[derive(Debug)]
pub enum ImportReport {
    /// The result of one object.
    Object(ObjectReport),
    /// All objects of a prefix were reported, or its listing failed.
    PrefixEnd(PrefixEnd),
    /// The last report: all items were processed.
    Summary(ImportSummary),
}

/// The result of importing one object.
#[derive(Debug)]
pub struct ObjectReport {
    /// The location of the object; `None` if its item has no source.
    pub location: Option<ObjectLocation>,
    /// The id that the file had in the previous system; may be empty.
    pub legacy_id: String,
    /// The outcome. An error ends neither the import nor the prefix of the object.
    pub outcome: Result<ObjectOutcome, Error>,
}

/// The end of a prefix.
#[derive(Debug)]
pub struct PrefixEnd {
    pub prefix: String,
    /// The number of objects that were reported.
    pub object_count: i64,
    /// The error that prevented a complete listing, if any.
    pub error: Option<Error>,
}

/// The number of reports with each outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportSummary {
    pub imported_count: i64,
    pub already_imported_count: i64,
    pub would_import_count: i64,
    /// Objects that failed, and prefixes without a complete listing.
    pub failed_count: i64,
}

impl ImportSummary {
    /// Adds a report. Ignores a summary.
    pub(super) fn add(&mut self, report: &ImportReport) {
        match report {
            ImportReport::Object(object) => *self.count_of(&object.outcome) += 1,
            ImportReport::PrefixEnd(end) if end.error.is_some() => self.failed_count += 1,
            ImportReport::PrefixEnd(_) | ImportReport::Summary(_) => {}
        }
    }

    fn count_of(&mut self, outcome: &Result<ObjectOutcome, Error>) -> &mut i64 {
        match outcome {
            Ok(ObjectOutcome::Imported { .. }) => &mut self.imported_count,
            Ok(ObjectOutcome::AlreadyImported(_)) => &mut self.already_imported_count,
            Ok(ObjectOutcome::WouldImport) => &mut self.would_import_count,
            Err(_) => &mut self.failed_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Resource;

    #[test]
    fn summary_counts_each_outcome() {
        let object = |outcome| {
            ImportReport::Object(ObjectReport { location: None, legacy_id: String::new(), outcome })
        };
        let end =
            |error| ImportReport::PrefixEnd(PrefixEnd { prefix: String::new(), object_count: 2, error });
        let mut summary = ImportSummary::default();
        for report in [
            object(Ok(ObjectOutcome::WouldImport)),
            object(Err(Error::NotFound(Resource::SourceObject))),
            end(None),
            end(Some(Error::NotFound(Resource::SourceObject))),
            ImportReport::Summary(summary),
        ] {
            summary.add(&report);
        }
        assert_eq!(
            summary,
            ImportSummary { would_import_count: 1, failed_count: 2, ..ImportSummary::default() }
        );
    }
}
