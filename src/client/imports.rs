//! Files of before: taken over, and found by what they were.

use futures::{Stream, StreamExt, stream};

use super::{connection::Client, error::ClientError};
use crate::proto::v1::{
    FindImportedFilesRequest, FindImportedFilesResponse, ImportFilesRequest, ImportFilesResponse, ImportItem,
    ImportOptions, import_files_request::Message, import_files_response,
};

impl Client {
    /// Imports files of before, and hands out the report as it comes: its last message is the summary, or an error.
    ///
    /// Tried once. Whatever broke it, the same import can be run again: nothing becomes two files, and what is done is
    /// answered with the file that it is.
    pub async fn import_files<S>(
        &self,
        options: ImportOptions,
        items: S,
    ) -> Result<impl Stream<Item = Result<ImportFilesResponse, ClientError>> + Send + use<S>, ClientError>
    where
        S: Stream<Item = ImportItem> + Send + 'static,
    {
        let first = stream::once(async { Message::Options(options) });
        let messages = first.chain(items.map(Message::Item));
        let messages = messages.map(|message| ImportFilesRequest { message: Some(message) });
        let answer = self.services.imports.clone().import_files(messages).await;
        let report = answer.map_err(ClientError::from_status)?.into_inner();
        Ok(stream::unfold(Some(report), |report| async move {
            let mut report = report?;
            let (answer, is_over) = match report.message().await {
                Ok(Some(answer)) => {
                    let is_over = matches!(answer.message, Some(import_files_response::Message::Summary(_)));
                    (Ok(answer), is_over)
                }
                // The server never ends a report without its summary.
                Ok(None) => {
                    let source = "the report of the import ended without its summary".into();
                    (Err(ClientError::Transport { source }), true)
                }
                Err(status) => (Err(ClientError::from_status(status)), true),
            };
            Some((answer, (!is_over).then_some(report)))
        })
        .boxed())
    }

    /// The files that objects of before became, by their old keys, URLs and ids.
    pub async fn find_imported_files(
        &self,
        request: FindImportedFilesRequest,
    ) -> Result<FindImportedFilesResponse, ClientError> {
        self.call(request, |mut to, request| async move { to.imports.find_imported_files(request).await })
            .await
    }
}
