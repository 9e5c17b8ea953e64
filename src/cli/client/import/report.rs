//! The report of an import, as it comes: a line for each object, and at its end the counts.

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::super::{exit::Exit, failure::Failure, human, output::Output};
use crate::proto::v1::{
    ErrorReason, ImportFilesResponse, ImportOutcome, ImportPrefixEnd, ImportResult, ImportSummary,
    import_files_response::Message,
};

/// What was reported so far.
pub(super) struct Report {
    output: Output,
    bar: ProgressBar,
    summary: ImportSummary,
}

impl Report {
    /// Of an import of so many objects, where that is known.
    pub(super) fn new(output: Output, total: Option<u64>) -> Self {
        Self { output, bar: output.count("imported", total), summary: ImportSummary::default() }
    }

    /// Prints one message.
    pub(super) fn take(
        &mut self,
        ImportFilesResponse { message }: ImportFilesResponse,
    ) -> Result<(), Failure> {
        let output = self.output;
        match message {
            Some(Message::Result(result)) => {
                self.bar.inc(1);
                self.bar.suspend(|| {
                    if output.json { output.json(&result_json(&result)) } else { output.line(line(&result)) }
                })
            }
            Some(Message::PrefixEnd(end)) if output.json => output.json(&end_json(&end)),
            Some(Message::PrefixEnd(end)) => match end.reason() {
                ErrorReason::Unspecified => Ok(()),
                _ => self.bar.suspend(|| output.line(end_line(&end))),
            },
            Some(Message::Summary(summary)) => {
                self.summary = summary;
                self.bar.finish_and_clear();
                self.print_summary()
            }
            // A kind of message that this version does not know is none of its results.
            None => Ok(()),
        }
    }

    /// How the command ends.
    pub(super) fn end(self) -> Result<(), Failure> {
        let ImportSummary { imported_count, already_imported_count, would_import_count, failed_count } =
            self.summary;
        let total = imported_count + already_imported_count + would_import_count + failed_count;
        let count = |number: i64| usize::try_from(number).unwrap_or_default();
        match failed_count {
            0 => Ok(()),
            failed => Err(Failure::Some { failed: count(failed), total: count(total), exit: Exit::Other }),
        }
    }

    fn print_summary(&self) -> Result<(), Failure> {
        let ImportSummary { imported_count, already_imported_count, would_import_count, failed_count } =
            self.summary;
        if self.output.json {
            return self.output.json(&json!({ "summary": {
                "imported_count": imported_count,
                "already_imported_count": already_imported_count,
                "would_import_count": would_import_count,
                "failed_count": failed_count,
            } }));
        }
        let would = match would_import_count {
            0 => String::new(),
            count => format!("{count} would be imported, "),
        };
        self.output.line(format_args!(
            "{imported_count} imported, {already_imported_count} imported before, {would}{failed_count} failed"
        ))
    }
}

/// Which it was before: a key or a URL.
fn before(result: &ImportResult) -> &str {
    if result.url.is_empty() { &result.object_key } else { &result.url }
}

fn line(result: &ImportResult) -> String {
    let word = match result.outcome() {
        ImportOutcome::Imported => "imported",
        ImportOutcome::AlreadyImported => "already",
        ImportOutcome::WouldImport => "would be",
        ImportOutcome::Failed | ImportOutcome::Unspecified => "failed",
    };
    let file = if result.file_id.is_empty() { "-" } else { &result.file_id };
    let why = if result.message.is_empty() { String::new() } else { format!(": {}", result.message) };
    format!("{word:<8}  {file:<36}  {}{}", human::printable(before(result)), human::printable(&why))
}

fn end_line(end: &ImportPrefixEnd) -> String {
    let what = format!("{}…: {} found, then: {}", end.object_prefix, end.object_count, end.message);
    format!("{:<8}  {:<36}  {}", "failed", "-", human::printable(&what))
}

fn reason(reason: ErrorReason) -> Option<&'static str> {
    let name = (reason != ErrorReason::Unspecified).then(|| reason.as_str_name())?;
    Some(name.trim_start_matches("ERROR_REASON_"))
}

fn result_json(result: &ImportResult) -> Value {
    let outcome = result.outcome().as_str_name().trim_start_matches("IMPORT_OUTCOME_");
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({ "result": {
        "outcome": outcome,
        "object_key": known(&result.object_key),
        "url": known(&result.url),
        "legacy_id": known(&result.legacy_id),
        "file_id": known(&result.file_id),
        "reason": reason(result.reason()),
        "message": known(&result.message),
    } })
}

fn end_json(end: &ImportPrefixEnd) -> Value {
    json!({ "prefix_end": {
        "object_prefix": end.object_prefix,
        "object_count": end.object_count,
        "reason": reason(end.reason()),
        "message": (!end.message.is_empty()).then_some(&end.message),
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_old_and_new_and_cannot_write_to_the_terminal_as_it_likes() {
        let result = ImportResult {
            object_key: "a\u{1b}[31m".into(),
            file_id: "0198".into(),
            outcome: ImportOutcome::Imported.into(),
            ..ImportResult::default()
        };
        let printed = line(&result);
        assert!(printed.starts_with("imported  0198") && printed.ends_with("a\\u{1b}[31m"), "{printed:?}");
        let failed = ImportResult {
            url: "https://a.test/?b".into(),
            outcome: ImportOutcome::Failed.into(),
            message: "no\n".into(),
            ..ImportResult::default()
        };
        assert!(line(&failed).ends_with("https://a.test/?b: no\\u{a}"), "{}", line(&failed));
        assert_eq!(result_json(&failed)["result"]["outcome"], "FAILED");
        assert!(result_json(&failed)["result"]["object_key"].is_null());
    }
}
