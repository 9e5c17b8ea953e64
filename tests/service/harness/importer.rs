//! An import, as a test runs it.

use strongroom::proto::v1::{
    FindImportedFilesRequest, FindImportedFilesResponse, ImportFilesRequest, ImportItem, ImportOptions,
    ImportResult, ImportSummary, import_files_request, import_files_response::Message as Answer,
};
use tonic::Status;

use super::Caller;

impl Caller {
    /// Imports, and takes the whole report.
    pub(crate) async fn import(
        &self,
        source: &str,
        dry_run: bool,
        items: impl IntoIterator<Item = ImportItem>,
    ) -> Result<Vec<Answer>, Status> {
        let options = ImportOptions { source: source.to_owned(), dry_run };
        let items = items.into_iter().map(import_files_request::Message::Item);
        let messages: Vec<_> = std::iter::once(import_files_request::Message::Options(options))
            .chain(items)
            .map(|message| ImportFilesRequest { message: Some(message) })
            .collect();
        let mut stream = self.files.clone().import_files(futures::stream::iter(messages)).await?.into_inner();
        let mut report = Vec::new();
        while let Some(answer) = stream.message().await? {
            report.push(answer.message.unwrap());
        }
        Ok(report)
    }

    /// The files that objects of before became.
    pub(crate) async fn find_imported(
        &self,
        request: FindImportedFilesRequest,
    ) -> Result<FindImportedFilesResponse, Status> {
        self.files.clone().find_imported_files(request).await.map(tonic::Response::into_inner)
    }
}

/// What a report says of single objects.
pub(crate) fn results(report: &[Answer]) -> Vec<ImportResult> {
    let result = |answer: &Answer| match answer {
        Answer::Result(result) => Some(result.clone()),
        Answer::PrefixEnd(_) | Answer::Summary(_) => None,
    };
    report.iter().filter_map(result).collect()
}

/// How a report ends.
pub(crate) fn summary(report: &[Answer]) -> ImportSummary {
    match report.last() {
        Some(Answer::Summary(summary)) => *summary,
        other => panic!("the report does not end with a summary: {other:?}"),
    }
}
