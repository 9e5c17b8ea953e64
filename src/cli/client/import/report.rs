//! Prints the report of an import: one line per object, and a summary at the end.

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::super::{exit::Exit, failure::Failure, human, output::Output};
use crate::proto::v1::{
    ErrorReason, ImportFilesResponse, ImportOutcome, ImportPrefixEnd, ImportResult, ImportSummary,
    import_files_response::Message,
};

pub(super) struct Report {
    output: Output,
    bar: ProgressBar,
    summary: ImportSummary,
}

impl Report {
    /// Creates a report of an import of `total` objects, or of an unknown number.
    pub(super) fn new(output: Output, total: Option<u64>) -> Self {
        Self { output, bar: output.counter("imported", total), summary: ImportSummary::default() }
    }

    /// Prints one message.
    pub(super) fn print_message(
        &mut self,
        ImportFilesResponse { message }: ImportFilesResponse,
    ) -> Result<(), Failure> {
        let output = self.output;
        match message {
            Some(Message::Result(result)) => {
                self.bar.inc(1);
                self.bar.suspend(|| {
                    if output.json {
                        output.json(&result_json(&result))
                    } else {
                        output.line(format_result(&result))
                    }
                })
            }
            Some(Message::PrefixEnd(end)) if output.json => output.json(&end_json(&end)),
            Some(Message::PrefixEnd(end)) => match end.reason() {
                ErrorReason::Unspecified => Ok(()),
                _ => self.bar.suspend(|| output.line(format_prefix_end(&end))),
            },
            Some(Message::Summary(summary)) => {
                self.summary = summary;
                self.bar.finish_and_clear();
                self.print_summary()
            }
            // Ignore message types that this version does not know.
            None => Ok(()),
        }
    }

    /// Returns an error if an object failed.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let ImportSummary { imported_count, already_imported_count, would_import_count, failed_count } =
            self.summary;
        let total = imported_count + already_imported_count + would_import_count + failed_count;
        let count = |number: i64| usize::try_from(number).unwrap_or_default();
        match failed_count {
            0 => Ok(()),
            failed => Err(Failure::Several { failed: count(failed), total: count(total), exit: Exit::Other }),
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
            "{imported_count} imported, {already_imported_count} already imported, {would}{failed_count} failed"
        ))
    }
}

/// Returns the key or the URL of the object.
fn object_source(result: &ImportResult) -> &str {
    if result.url.is_empty() { &result.object_key } else { &result.url }
}

fn format_result(result: &ImportResult) -> String {
    let outcome = match result.outcome() {
        ImportOutcome::Imported => "imported",
        ImportOutcome::AlreadyImported => "already imported",
        ImportOutcome::WouldImport => "would be imported",
        ImportOutcome::Failed | ImportOutcome::Unspecified => "failed",
    };
    let file = if result.file_id.is_empty() { "-" } else { &result.file_id };
    let message = if result.message.is_empty() { String::new() } else { format!(": {}", result.message) };
    format!(
        "{outcome:<17}  {file:<36}  {}{}",
        human::printable(object_source(result)),
        human::printable(&message)
    )
}

fn format_prefix_end(end: &ImportPrefixEnd) -> String {
    let text = format!("{}*: stopped after {} objects: {}", end.object_prefix, end.object_count, end.message);
    format!("{:<17}  {:<36}  {}", "failed", "-", human::printable(&text))
}

fn reason_name(reason: ErrorReason) -> Option<&'static str> {
    let name = (reason != ErrorReason::Unspecified).then(|| reason.as_str_name())?;
    Some(name.trim_start_matches("ERROR_REASON_"))
}

fn result_json(result: &ImportResult) -> Value {
    let outcome = result.outcome().as_str_name().trim_start_matches("IMPORT_OUTCOME_");
    let non_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({ "result": {
        "outcome": outcome,
        "object_key": non_empty(&result.object_key),
        "url": non_empty(&result.url),
        "legacy_id": non_empty(&result.legacy_id),
        "file_id": non_empty(&result.file_id),
        "reason": reason_name(result.reason()),
        "message": non_empty(&result.message),
    } })
}

fn end_json(end: &ImportPrefixEnd) -> Value {
    json!({ "prefix_end": {
        "object_prefix": end.object_prefix,
        "object_count": end.object_count,
        "reason": reason_name(end.reason()),
        "message": (!end.message.is_empty()).then_some(&end.message),
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_line_has_key_and_file_id_and_is_escaped() {
        let result = ImportResult {
            object_key: "a\u{1b}[31m".into(),
            file_id: "0198".into(),
            outcome: ImportOutcome::Imported.into(),
            ..ImportResult::default()
        };
        let printed = format_result(&result);
        assert!(
            printed.starts_with("imported           0198") && printed.ends_with("a\\u{1b}[31m"),
            "{printed:?}"
        );
        let failed = ImportResult {
            url: "https://a.test/?b".into(),
            outcome: ImportOutcome::Failed.into(),
            message: "no\n".into(),
            ..ImportResult::default()
        };
        assert!(
            format_result(&failed).ends_with("https://a.test/?b: no\\u{a}"),
            "{}",
            format_result(&failed)
        );
        assert_eq!(result_json(&failed)["result"]["outcome"], "FAILED");
        assert!(result_json(&failed)["result"]["object_key"].is_null());
    }
}
