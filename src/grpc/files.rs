//! `FileService`: decode, call the use case, encode. The streams have files of their own.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    call::{answer, caller},
    convert::{
        self,
        file::{basic, full, shown},
        quota::state,
        watch::position,
    },
    downloads::{DownloadStream, Downloads},
    uploads::UploadStreams,
};
use crate::{
    app::{
        App,
        files::{
            archive::archive_file,
            batch_delete::batch_delete_files,
            batch_get::batch_get_files,
            copy::copy_file,
            delete::delete_file,
            delete_version::delete_file_version,
            download::download_file,
            get::get_file,
            list::list_files,
            list_versions::list_file_versions,
            purge::purge_file,
            release_hold::release_legal_hold,
            restore_version::restore_file_version,
            set_hold::{HoldRequest, set_legal_hold},
            transfer_ownership::transfer_ownership,
            unarchive::unarchive_file,
            undelete::undelete_file,
            update::update_file,
        },
    },
    proto::v1::{
        ArchiveFileRequest, ArchiveFileResponse, BatchDeleteFilesRequest, BatchDeleteFilesResponse,
        BatchGetFilesRequest, BatchGetFilesResponse, CopyFileRequest, CopyFileResponse, DeleteFileRequest,
        DeleteFileResponse, DeleteFileVersionRequest, DeleteFileVersionResponse, DownloadFileRequest,
        GetFileRequest, GetFileResponse, ListFileVersionsRequest, ListFileVersionsResponse, ListFilesRequest,
        ListFilesResponse, PurgeFileRequest, PurgeFileResponse, ReleaseLegalHoldRequest,
        ReleaseLegalHoldResponse, RestoreFileVersionRequest, RestoreFileVersionResponse, SetLegalHoldRequest,
        SetLegalHoldResponse, TransferOwnershipRequest, TransferOwnershipResponse, UnarchiveFileRequest,
        UnarchiveFileResponse, UndeleteFileRequest, UndeleteFileResponse, UpdateFileRequest,
        UpdateFileResponse, UploadFileRequest, UploadFileResponse, file_service_server::FileService,
    },
};

/// The adapter of the file service.
pub(super) struct Files {
    pub(super) app: Arc<App>,
    pub(super) uploads: UploadStreams,
    pub(super) downloads: Downloads,
}

#[async_trait]
impl FileService for Files {
    type DownloadFileStream = DownloadStream;

    async fn upload_file(
        &self,
        request: Request<Streaming<UploadFileRequest>>,
    ) -> Result<Response<UploadFileResponse>, Status> {
        let (caller, stream) = caller(request)?;
        answer(&caller.origin, self.uploads.receive(&self.app, &caller, stream)).await
    }

    async fn download_file(
        &self,
        request: Request<DownloadFileRequest>,
    ) -> Result<Response<DownloadStream>, Status> {
        let (caller, request) = caller(request)?;
        let slot = self.downloads.slot(&caller.origin)?;
        answer(&caller.origin, async {
            let download = download_file(&self.app, &caller, convert::download::request(request)?).await?;
            Ok(self.downloads.send(slot, download, &caller.origin))
        })
        .await
    }

    async fn get_file(&self, request: Request<GetFileRequest>) -> Result<Response<GetFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let file = get_file(&self.app, &caller, convert::id::file_id(&request.file_id)?).await?;
            Ok(GetFileResponse { file: Some(full(file)) })
        })
        .await
    }

    async fn batch_get_files(
        &self,
        request: Request<BatchGetFilesRequest>,
    ) -> Result<Response<BatchGetFilesResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (ids, is_full) = convert::id::batch(&request)?;
            let found = batch_get_files(&self.app, &caller, ids, is_full).await?;
            Ok(BatchGetFilesResponse {
                files: found.files.into_iter().map(shown(is_full)).collect(),
                missing_file_ids: found.missing.iter().map(ToString::to_string).collect(),
                unread_file_ids: found.unread.iter().map(ToString::to_string).collect(),
            })
        })
        .await
    }

    async fn list_files(
        &self,
        request: Request<ListFilesRequest>,
    ) -> Result<Response<ListFilesResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let request = convert::filter::list(request)?;
            let view = shown(request.is_full);
            let listed = list_files(&self.app, &caller, request).await?;
            Ok(ListFilesResponse {
                files: listed.files.into_iter().map(view).collect(),
                next_page_token: listed.next_page_token,
                total_size: listed.total.as_ref().map(|total| total.count),
                total_size_is_lower_bound: listed.total.is_some_and(|total| total.is_lower_bound),
            })
        })
        .await
    }

    async fn update_file(
        &self,
        request: Request<UpdateFileRequest>,
    ) -> Result<Response<UpdateFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let updated = update_file(&self.app, &caller, convert::update::request(request)?).await?;
            Ok(UpdateFileResponse {
                event_position: position(updated.event),
                file: Some(full(updated.value)),
                quota_state: Some(state(updated.quota)),
            })
        })
        .await
    }

    async fn delete_file(
        &self,
        request: Request<DeleteFileRequest>,
    ) -> Result<Response<DeleteFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (file, request_id) = convert::id::change(&request.file_id, &request.request_id)?;
            let deleted = delete_file(&self.app, &caller, file, request_id).await?;
            Ok(DeleteFileResponse {
                event_position: position(deleted.event),
                file: deleted.value.map(full),
                quota_state: Some(state(deleted.quota)),
            })
        })
        .await
    }

    async fn undelete_file(
        &self,
        request: Request<UndeleteFileRequest>,
    ) -> Result<Response<UndeleteFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (file, request_id) = convert::id::change(&request.file_id, &request.request_id)?;
            let restored = undelete_file(&self.app, &caller, file, request_id).await?;
            Ok(UndeleteFileResponse {
                event_position: position(restored.event),
                file: Some(full(restored.value)),
                quota_state: Some(state(restored.quota)),
            })
        })
        .await
    }

    async fn purge_file(
        &self,
        request: Request<PurgeFileRequest>,
    ) -> Result<Response<PurgeFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (file, request_id) = convert::id::change(&request.file_id, &request.request_id)?;
            let purged = purge_file(&self.app, &caller, file, request_id).await?;
            Ok(PurgeFileResponse {
                event_position: position(purged.event),
                quota_state: Some(state(purged.quota)),
            })
        })
        .await
    }

    async fn transfer_ownership(
        &self,
        request: Request<TransferOwnershipRequest>,
    ) -> Result<Response<TransferOwnershipResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let asked = convert::id::transfer(request)?;
            let transferred = transfer_ownership(&self.app, &caller, asked).await?;
            Ok(TransferOwnershipResponse {
                event_position: position(transferred.event),
                transferred_file_count: transferred.file_count,
                remaining_file_count: transferred.remaining_file_count,
                remaining_bytes: transferred.remaining_bytes,
            })
        })
        .await
    }

    async fn archive_file(
        &self,
        request: Request<ArchiveFileRequest>,
    ) -> Result<Response<ArchiveFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (file, request_id) = convert::id::change(&request.file_id, &request.request_id)?;
            let archived = archive_file(&self.app, &caller, file, request_id).await?;
            Ok(ArchiveFileResponse {
                event_position: position(archived.event),
                file: Some(full(archived.value)),
                quota_state: Some(state(archived.quota)),
            })
        })
        .await
    }

    async fn unarchive_file(
        &self,
        request: Request<UnarchiveFileRequest>,
    ) -> Result<Response<UnarchiveFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (file, request_id) = convert::id::change(&request.file_id, &request.request_id)?;
            let readable = unarchive_file(&self.app, &caller, file, request_id).await?;
            Ok(UnarchiveFileResponse {
                event_position: position(readable.event),
                file: Some(full(readable.value)),
                quota_state: Some(state(readable.quota)),
            })
        })
        .await
    }

    async fn copy_file(
        &self,
        request: Request<CopyFileRequest>,
    ) -> Result<Response<CopyFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let copied = copy_file(&self.app, &caller, convert::version::copy(request)?).await?;
            Ok(CopyFileResponse {
                event_position: position(copied.event),
                file: Some(full(copied.value)),
                quota_state: Some(state(copied.quota)),
            })
        })
        .await
    }

    async fn batch_delete_files(
        &self,
        request: Request<BatchDeleteFilesRequest>,
    ) -> Result<Response<BatchDeleteFilesResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (ids, request_id) = convert::id::batch_change(&request.file_ids, &request.request_id)?;
            let deleted = batch_delete_files(&self.app, &caller, ids, request_id).await?;
            Ok(BatchDeleteFilesResponse {
                event_position: position(deleted.event),
                files: deleted.value.into_iter().map(basic).collect(),
                quota_state: Some(state(deleted.quota)),
            })
        })
        .await
    }

    async fn set_legal_hold(
        &self,
        request: Request<SetLegalHoldRequest>,
    ) -> Result<Response<SetLegalHoldResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (file, request_id) = convert::id::change(&request.file_id, &request.request_id)?;
            let request = HoldRequest { file, reason: request.reason, request_id };
            let held = set_legal_hold(&self.app, &caller, request).await?;
            Ok(SetLegalHoldResponse {
                event_position: position(held.event),
                file: Some(full(held.value)),
                quota_state: Some(state(held.quota)),
            })
        })
        .await
    }

    async fn release_legal_hold(
        &self,
        request: Request<ReleaseLegalHoldRequest>,
    ) -> Result<Response<ReleaseLegalHoldResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (file, request_id) = convert::id::change(&request.file_id, &request.request_id)?;
            let request = HoldRequest { file, reason: request.reason, request_id };
            let released = release_legal_hold(&self.app, &caller, request).await?;
            Ok(ReleaseLegalHoldResponse {
                event_position: position(released.event),
                file: Some(full(released.value)),
                quota_state: Some(state(released.quota)),
            })
        })
        .await
    }

    async fn list_file_versions(
        &self,
        request: Request<ListFileVersionsRequest>,
    ) -> Result<Response<ListFileVersionsResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let listed = list_file_versions(&self.app, &caller, convert::version::list(request)?).await?;
            Ok(convert::version::listed(listed))
        })
        .await
    }

    async fn restore_file_version(
        &self,
        request: Request<RestoreFileVersionRequest>,
    ) -> Result<Response<RestoreFileVersionResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let restored =
                restore_file_version(&self.app, &caller, convert::version::restore(request)?).await?;
            Ok(RestoreFileVersionResponse {
                event_position: position(restored.event),
                file: Some(full(restored.value)),
                quota_state: Some(state(restored.quota)),
            })
        })
        .await
    }

    async fn delete_file_version(
        &self,
        request: Request<DeleteFileVersionRequest>,
    ) -> Result<Response<DeleteFileVersionResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (version, request_id) = convert::version::delete(&request)?;
            let deleted = delete_file_version(&self.app, &caller, version, request_id).await?;
            Ok(DeleteFileVersionResponse {
                event_position: position(deleted.event),
                file: Some(full(deleted.value)),
                quota_state: Some(state(deleted.quota)),
            })
        })
        .await
    }
}
