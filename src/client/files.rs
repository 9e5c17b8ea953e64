//! Calls to `FileService` that carry no content: records, versions, the trash, the archive and legal holds.

use futures::{Stream, TryStreamExt, stream};

use super::{connection::Client, error::ClientError, randomness::fill_request_id};
use crate::proto::v1::{
    ArchiveFileRequest, ArchiveFileResponse, BatchDeleteFilesRequest, BatchDeleteFilesResponse,
    BatchGetFilesRequest, BatchGetFilesResponse, CopyFileRequest, CopyFileResponse, DeleteFileRequest,
    DeleteFileResponse, DeleteFileVersionRequest, DeleteFileVersionResponse, File, GetFileRequest,
    GetFileResponse, ListFileVersionsRequest, ListFileVersionsResponse, ListFilesRequest, ListFilesResponse,
    PurgeFileRequest, PurgeFileResponse, ReleaseLegalHoldRequest, ReleaseLegalHoldResponse,
    RestoreFileVersionRequest, RestoreFileVersionResponse, SetLegalHoldRequest, SetLegalHoldResponse,
    TransferOwnershipRequest, TransferOwnershipResponse, UnarchiveFileRequest, UnarchiveFileResponse,
    UndeleteFileRequest, UndeleteFileResponse, UpdateFileRequest, UpdateFileResponse,
};

impl Client {
    /// Returns the record of one file.
    pub async fn get_file(&self, request: GetFileRequest) -> Result<GetFileResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.files.get_file(request).await }).await
    }

    /// Returns the records of several files, and the ids of those that were not found.
    pub async fn batch_get_files(
        &self,
        request: BatchGetFilesRequest,
    ) -> Result<BatchGetFilesResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.files.batch_get_files(request).await }).await
    }

    /// Returns one page of files.
    pub async fn list_files(&self, request: ListFilesRequest) -> Result<ListFilesResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.files.list_files(request).await }).await
    }

    /// Returns all files that match, beginning at `request.page_token`. The stream requests a page when it
    /// needs one, and ends after the first error.
    pub fn list_all_files(
        &self,
        request: ListFilesRequest,
    ) -> impl Stream<Item = Result<File, ClientError>> + Send {
        let first = Some((self.clone(), request));
        stream::try_unfold(first, |next| async move {
            let Some((client, mut request)) = next else { return Ok(None) };
            let page = client.list_files(request.clone()).await?;
            let more = !page.next_page_token.is_empty();
            request.page_token = page.next_page_token;
            // The total costs the server a scan, and the stream does not return it.
            request.include_total = false;
            let files = stream::iter(page.files.into_iter().map(Ok));
            Ok::<_, ClientError>(Some((files, more.then_some((client, request)))))
        })
        .try_flatten()
    }

    /// Updates the fields of a record that callers can set. Safe to retry: a missing request id is generated.
    pub async fn update_file(
        &self,
        mut request: UpdateFileRequest,
    ) -> Result<UpdateFileResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.update_file(request).await }).await
    }

    /// Archives a file. Safe to retry: a missing request id is generated.
    pub async fn archive_file(
        &self,
        mut request: ArchiveFileRequest,
    ) -> Result<ArchiveFileResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.archive_file(request).await }).await
    }

    /// Unarchives a file. Safe to retry: a missing request id is generated.
    pub async fn unarchive_file(
        &self,
        mut request: UnarchiveFileRequest,
    ) -> Result<UnarchiveFileResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.unarchive_file(request).await }).await
    }

    /// Returns one page of a file's versions, newest first.
    pub async fn list_file_versions(
        &self,
        request: ListFileVersionsRequest,
    ) -> Result<ListFileVersionsResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.files.list_file_versions(request).await })
            .await
    }

    /// Restores an earlier version as a new current version. Safe to retry: a missing request id is
    /// generated.
    pub async fn restore_file_version(
        &self,
        mut request: RestoreFileVersionRequest,
    ) -> Result<RestoreFileVersionResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.restore_file_version(request).await })
            .await
    }

    /// Deletes one version permanently. Safe to retry: a missing request id is generated.
    pub async fn delete_file_version(
        &self,
        mut request: DeleteFileVersionRequest,
    ) -> Result<DeleteFileVersionResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.delete_file_version(request).await })
            .await
    }

    /// Copies a file on the server, without transferring its content. Safe to retry: a missing request id is
    /// generated.
    pub async fn copy_file(&self, mut request: CopyFileRequest) -> Result<CopyFileResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.copy_file(request).await }).await
    }

    /// Moves several files to the trash, all or none. Safe to retry: a missing request id is generated.
    pub async fn batch_delete_files(
        &self,
        mut request: BatchDeleteFilesRequest,
    ) -> Result<BatchDeleteFilesResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.batch_delete_files(request).await })
            .await
    }

    /// Sets a legal hold, which protects a file from deletion. Safe to retry: a missing request id is
    /// generated.
    pub async fn set_legal_hold(
        &self,
        mut request: SetLegalHoldRequest,
    ) -> Result<SetLegalHoldResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.set_legal_hold(request).await }).await
    }

    /// Releases a legal hold. Safe to retry: a missing request id is generated.
    pub async fn release_legal_hold(
        &self,
        mut request: ReleaseLegalHoldRequest,
    ) -> Result<ReleaseLegalHoldResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.release_legal_hold(request).await })
            .await
    }

    /// Transfers files of one user to another, at most `batch_size` per call: repeat the call until no file
    /// remains. Safe to retry: a missing request id is generated.
    pub async fn transfer_ownership(
        &self,
        mut request: TransferOwnershipRequest,
    ) -> Result<TransferOwnershipResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.transfer_ownership(request).await })
            .await
    }

    /// Moves a file to the trash. Safe to retry: a missing request id is generated.
    pub async fn delete_file(
        &self,
        mut request: DeleteFileRequest,
    ) -> Result<DeleteFileResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.delete_file(request).await }).await
    }

    /// Restores a file from the trash. Safe to retry: a missing request id is generated.
    pub async fn undelete_file(
        &self,
        mut request: UndeleteFileRequest,
    ) -> Result<UndeleteFileResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.undelete_file(request).await }).await
    }

    /// Purges a file: deletes it permanently with all its versions. Safe to retry: a missing request id is
    /// generated.
    pub async fn purge_file(&self, mut request: PurgeFileRequest) -> Result<PurgeFileResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.files.purge_file(request).await }).await
    }
}
