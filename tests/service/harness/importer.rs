//! Calls of the import service.

use futures::stream;
use strongroom::proto::v1::{
    FindImportedFilesRequest, FindImportedFilesResponse, ImportFilesRequest, ImportFilesResponse, ImportItem,
    ImportOptions, ImportResult, ImportSummary, import_files_request,
    import_files_response::Message as Response,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Caller;

impl Caller {
    /// Runs an import and returns the whole report.
    pub(crate) async fn import_files(
        &self,
        source: &str,
        dry_run: bool,
        items: impl IntoIterator<Item = ImportItem>,
    ) -> Result<Vec<Response>, Status> {
        let options = ImportOptions { source: source.to_owned(), dry_run };
        let items = items.into_iter().map(import_files_request::Message::Item);
        let messages: Vec<_> = std::iter::once(import_files_request::Message::Options(options))
            .chain(items)
            .map(import_request)
            .collect();
        let mut stream =
            self.imports.clone().import_files(futures::stream::iter(messages)).await?.into_inner();
        let mut report = Vec::new();
        while let Some(response) = stream.message().await? {
            report.push(response.message.unwrap());
        }
        Ok(report)
    }

    /// Starts an import whose items the test sends one by one.
    pub(crate) async fn start_import(
        &self,
        source: &str,
    ) -> (mpsc::Sender<ImportFilesRequest>, Streaming<ImportFilesResponse>) {
        let (items, rest) = mpsc::channel(16);
        let options = ImportOptions { source: source.to_owned(), dry_run: false };
        items.send(import_request(import_files_request::Message::Options(options))).await.unwrap();
        let messages = stream::unfold(rest, |mut rest| async { rest.recv().await.map(|next| (next, rest)) });
        (items, self.imports.clone().import_files(messages).await.unwrap().into_inner())
    }

    pub(crate) async fn find_imported_files(
        &self,
        request: FindImportedFilesRequest,
    ) -> Result<FindImportedFilesResponse, Status> {
        self.imports.clone().find_imported_files(request).await.map(tonic::Response::into_inner)
    }
}

pub(crate) fn import_request(message: import_files_request::Message) -> ImportFilesRequest {
    ImportFilesRequest { message: Some(message) }
}

/// Returns the result of each object in a report.
pub(crate) fn import_results(report: &[Response]) -> Vec<ImportResult> {
    let result = |response: &Response| match response {
        Response::Result(result) => Some(result.clone()),
        Response::PrefixEnd(_) | Response::Summary(_) => None,
    };
    report.iter().filter_map(result).collect()
}

/// Returns the last message of a report.
pub(crate) fn import_summary(report: &[Response]) -> ImportSummary {
    match report.last() {
        Some(Response::Summary(summary)) => *summary,
        other => panic!("the report does not end with a summary: {other:?}"),
    }
}
