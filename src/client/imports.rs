//! Calls to `ImportService`: import of existing objects, and lookup of imported files.

use futures::{Stream, StreamExt, stream};

use super::{connection::Client, error::ClientError};
use crate::proto::v1::{
    FindImportedFilesRequest, FindImportedFilesResponse, ImportFilesRequest, ImportFilesResponse, ImportItem,
    ImportOptions, import_files_request::Message, import_files_response,
};

impl Client {
    /// Imports existing objects. The returned stream contains the results; its last message is the summary or
    /// an error.
    ///
    /// The call is not retried. After a failure, run the same import again: no object is imported twice, and
    /// the result of an object that is already imported names its file.
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
        let response = self.services.imports.clone().import_files(messages).await;
        let responses = response.map_err(ClientError::from_status)?.into_inner();
        Ok(stream::unfold(Some(responses), |responses| async move {
            let mut responses = responses?;
            let (response, is_last) = match responses.message().await {
                Ok(Some(response)) => {
                    let is_last =
                        matches!(response.message, Some(import_files_response::Message::Summary(_)));
                    (Ok(response), is_last)
                }
                // The server always ends the stream with a summary or an error.
                Ok(None) => {
                    let source = "import stream ended without a summary".into();
                    (Err(ClientError::Transport { source }), true)
                }
                Err(status) => (Err(ClientError::from_status(status)), true),
            };
            Some((response, (!is_last).then_some(responses)))
        })
        .boxed())
    }

    /// Returns the files that were imported from objects, by the keys, URLs and legacy ids of the objects.
    pub async fn find_imported_files(
        &self,
        request: FindImportedFilesRequest,
    ) -> Result<FindImportedFilesResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.imports.find_imported_files(request).await })
            .await
    }
}
