//! An import, as a test runs it.

use futures::stream;
use strongroom::proto::v1::{
    FindImportedFilesRequest, FindImportedFilesResponse, ImportFilesRequest, ImportFilesResponse, ImportItem,
    ImportOptions, ImportResult, ImportSummary, import_files_request,
    import_files_response::Message as Answer,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

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
            .map(request)
            .collect();
        let mut stream =
            self.imports.clone().import_files(futures::stream::iter(messages)).await?.into_inner();
        let mut report = Vec::new();
        while let Some(answer) = stream.message().await? {
            report.push(answer.message.unwrap());
        }
        Ok(report)
    }

    /// Begins an import whose items come one by one.
    pub(crate) async fn import_slowly(
        &self,
        source: &str,
    ) -> (mpsc::Sender<ImportFilesRequest>, Streaming<ImportFilesResponse>) {
        let (items, rest) = mpsc::channel(16);
        let options = ImportOptions { source: source.to_owned(), dry_run: false };
        items.send(request(import_files_request::Message::Options(options))).await.unwrap();
        let messages = stream::unfold(rest, |mut rest| async { rest.recv().await.map(|next| (next, rest)) });
        (items, self.imports.clone().import_files(messages).await.unwrap().into_inner())
    }

    /// The files that objects of before became.
    pub(crate) async fn find_imported(
        &self,
        request: FindImportedFilesRequest,
    ) -> Result<FindImportedFilesResponse, Status> {
        self.imports.clone().find_imported_files(request).await.map(tonic::Response::into_inner)
    }
}

/// A message of an import.
pub(crate) fn request(message: import_files_request::Message) -> ImportFilesRequest {
    ImportFilesRequest { message: Some(message) }
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
