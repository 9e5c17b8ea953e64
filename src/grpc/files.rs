//! `FileService`: decode, call the use case, encode. The streams have files of their own.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    call::{ValidUntil, answer, caller},
    convert::{
        self,
        file::{basic, full, shown},
        quota::state,
        watch::position,
    },
    downloads::{DownloadStream, Downloads},
    imports::{self, ImportStream},
    uploads::Uploads,
    watches::{WatchStream, sent},
};
use crate::{
    app::{
        App,
        files::{
            archive::archive,
            batch_delete::batch_delete,
            batch_get::batch_get,
            copy::copy,
            delete::delete,
            delete_version::delete_version,
            download::download,
            get::get,
            list::list,
            list_versions::list_versions,
            purge::purge,
            release_hold::release_hold,
            restore_version::restore_version,
            set_hold::{HoldRequest, set_hold},
            transfer_ownership::transfer_ownership,
            unarchive::unarchive,
            undelete::undelete,
            update::update,
            watch::watch,
        },
        imports::find as find_imported,
        uploads::{
            direct::urls::direct_urls,
            resumable::{
                cancel::cancel, complete::complete, create::create, get::get as get_upload,
                list::list as list_uploads, upload_part::upload_part,
            },
        },
    },
    proto::v1::{
        ArchiveFileRequest, ArchiveFileResponse, BatchDeleteFilesRequest, BatchDeleteFilesResponse,
        BatchGetFilesRequest, BatchGetFilesResponse, CancelUploadRequest, CancelUploadResponse,
        CompleteUploadRequest, CompleteUploadResponse, CopyFileRequest, CopyFileResponse,
        CreateUploadRequest, CreateUploadResponse, DeleteFileRequest, DeleteFileResponse,
        DeleteFileVersionRequest, DeleteFileVersionResponse, DownloadFileRequest, FindImportedFilesRequest,
        FindImportedFilesResponse, GetFileRequest, GetFileResponse, GetUploadRequest, GetUploadResponse,
        ImportFilesRequest, ListFileVersionsRequest, ListFileVersionsResponse, ListFilesRequest,
        ListFilesResponse, ListUploadsRequest, ListUploadsResponse, PurgeFileRequest, PurgeFileResponse,
        ReleaseLegalHoldRequest, ReleaseLegalHoldResponse, RestoreFileVersionRequest,
        RestoreFileVersionResponse, SetLegalHoldRequest, SetLegalHoldResponse, TransferOwnershipRequest,
        TransferOwnershipResponse, UnarchiveFileRequest, UnarchiveFileResponse, UndeleteFileRequest,
        UndeleteFileResponse, UpdateFileRequest, UpdateFileResponse, UploadFileRequest, UploadFileResponse,
        UploadPartRequest, UploadPartResponse, WatchFilesRequest, file_service_server::FileService,
    },
};

/// The adapter of the file service.
pub(super) struct Files {
    pub(super) app: Arc<App>,
    pub(super) uploads: Uploads,
    pub(super) downloads: Downloads,
}

#[async_trait]
impl FileService for Files {
    type DownloadFileStream = DownloadStream;
    type ImportFilesStream = ImportStream;
    type WatchFilesStream = WatchStream;

    async fn upload_file(
        &self,
        request: Request<Streaming<UploadFileRequest>>,
    ) -> Result<Response<UploadFileResponse>, Status> {
        let (caller, stream) = caller(request)?;
        // The future has many kilobytes: boxed, it is not moved again.
        let received = Box::pin(self.uploads.receive(&self.app, &caller, stream)).await;
        received.map(Response::new)
    }

    async fn create_upload(
        &self,
        request: Request<CreateUploadRequest>,
    ) -> Result<Response<CreateUploadResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let spec = convert::upload::spec(request.spec.unwrap_or_default());
            let upload = create(&self.app, &caller, spec, request.direct).await?;
            let urls = if request.direct { direct_urls(&self.app, &caller, upload.id).await? } else { None };
            let direct = urls.map(convert::upload::direct);
            Ok(CreateUploadResponse { upload: Some(self.uploads.shown(upload)), direct })
        })
        .await
    }

    async fn get_upload(
        &self,
        request: Request<GetUploadRequest>,
    ) -> Result<Response<GetUploadResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let id = convert::id::upload_id(&request.upload_id)?;
            let upload = get_upload(&self.app, &caller, id).await?;
            let urls = if request.with_urls { direct_urls(&self.app, &caller, id).await? } else { None };
            let direct = urls.map(convert::upload::direct);
            Ok(GetUploadResponse { upload: Some(self.uploads.shown(upload)), direct })
        })
        .await
    }

    async fn list_uploads(
        &self,
        request: Request<ListUploadsRequest>,
    ) -> Result<Response<ListUploadsResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let listed = list_uploads(&self.app, &caller, request.page_size, &request.page_token).await?;
            let uploads = listed.uploads.into_iter().map(|upload| self.uploads.shown(upload)).collect();
            Ok(ListUploadsResponse { uploads, next_page_token: listed.next_page_token })
        })
        .await
    }

    async fn cancel_upload(
        &self,
        request: Request<CancelUploadRequest>,
    ) -> Result<Response<CancelUploadResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (id, request_id) = convert::id::upload_change(&request.upload_id, &request.request_id)?;
            cancel(&self.app, &caller, id, request_id).await?;
            Ok(CancelUploadResponse {})
        })
        .await
    }

    async fn upload_part(
        &self,
        request: Request<UploadPartRequest>,
    ) -> Result<Response<UploadPartResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (id, chunk) = convert::upload::part(request)?;
            let upload = upload_part(&self.app, &caller, id, chunk).await?;
            Ok(UploadPartResponse { upload: Some(self.uploads.shown(upload)) })
        })
        .await
    }

    async fn complete_upload(
        &self,
        request: Request<CompleteUploadRequest>,
    ) -> Result<Response<CompleteUploadResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let id = convert::id::upload_id(&request.upload_id)?;
            let uploaded = complete(&self.app, &caller, id, convert::upload::completion(request)).await?;
            let UploadFileResponse { file, quota, warnings, event_position } =
                convert::upload::uploaded(uploaded);
            Ok(CompleteUploadResponse { file, quota, warnings, event_position })
        })
        .await
    }

    async fn download_file(
        &self,
        request: Request<DownloadFileRequest>,
    ) -> Result<Response<DownloadStream>, Status> {
        let (caller, request) = caller(request)?;
        let slot = self.downloads.slot(&caller.origin)?;
        answer(&caller.origin, async {
            let download = download(&self.app, &caller, convert::download::request(request)?).await?;
            Ok(self.downloads.send(slot, download, &caller.origin))
        })
        .await
    }

    async fn get_file(&self, request: Request<GetFileRequest>) -> Result<Response<GetFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let file = get(&self.app, &caller, convert::id::file_id(&request.file_id)?).await?;
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
            let found = batch_get(&self.app, &caller, ids, is_full).await?;
            Ok(BatchGetFilesResponse {
                files: found.files.into_iter().map(shown(is_full)).collect(),
                missing_file_ids: found.missing.iter().map(ToString::to_string).collect(),
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
            let listed = list(&self.app, &caller, request).await?;
            Ok(ListFilesResponse {
                files: listed.files.into_iter().map(view).collect(),
                next_page_token: listed.next_page_token,
                total_size: listed.total.as_ref().map_or(0, |total| total.count),
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
            let updated = update(&self.app, &caller, convert::update::request(request)?).await?;
            Ok(UpdateFileResponse {
                event_position: position(updated.event),
                file: Some(full(updated.value)),
                quota: Some(state(updated.quota)),
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
            let deleted = delete(&self.app, &caller, file, request_id).await?;
            Ok(DeleteFileResponse {
                event_position: position(deleted.event),
                file: deleted.value.map(full),
                quota: Some(state(deleted.quota)),
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
            let restored = undelete(&self.app, &caller, file, request_id).await?;
            Ok(UndeleteFileResponse {
                event_position: position(restored.event),
                file: Some(full(restored.value)),
                quota: Some(state(restored.quota)),
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
            let purged = purge(&self.app, &caller, file, request_id).await?;
            Ok(PurgeFileResponse { event_position: position(purged.event), quota: Some(state(purged.quota)) })
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
            let archived = archive(&self.app, &caller, file, request_id).await?;
            Ok(ArchiveFileResponse {
                event_position: position(archived.event),
                file: Some(full(archived.value)),
                quota: Some(state(archived.quota)),
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
            let readable = unarchive(&self.app, &caller, file, request_id).await?;
            Ok(UnarchiveFileResponse {
                event_position: position(readable.event),
                file: Some(full(readable.value)),
                quota: Some(state(readable.quota)),
            })
        })
        .await
    }

    async fn import_files(
        &self,
        request: Request<Streaming<ImportFilesRequest>>,
    ) -> Result<Response<ImportStream>, Status> {
        let valid_until = request.extensions().get::<ValidUntil>().map(|until| until.0);
        let (caller, messages) = caller(request)?;
        let messages = imports::Messages::new(messages, self.uploads.message_bytes_max());
        imports::begun(&self.app, caller, messages, valid_until).await.map(Response::new)
    }

    async fn find_imported_files(
        &self,
        request: Request<FindImportedFilesRequest>,
    ) -> Result<Response<FindImportedFilesResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let found = find_imported(&self.app, &caller, convert::import::lookup(request)).await?;
            Ok(convert::import::found(found))
        })
        .await
    }

    async fn watch_files(
        &self,
        request: Request<WatchFilesRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let valid_until = request.extensions().get::<ValidUntil>().map(|until| until.0);
        let (caller, request) = caller(request)?;
        let origin = caller.origin.clone();
        answer(&origin, async {
            let watch = watch(&self.app, caller, convert::watch::request(request)?, valid_until).await?;
            Ok(sent(Arc::clone(&self.app), watch, &origin))
        })
        .await
    }

    async fn copy_file(
        &self,
        request: Request<CopyFileRequest>,
    ) -> Result<Response<CopyFileResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let copied = copy(&self.app, &caller, convert::version::copy(request)?).await?;
            Ok(CopyFileResponse {
                event_position: position(copied.event),
                file: Some(full(copied.value)),
                quota: Some(state(copied.quota)),
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
            let deleted = batch_delete(&self.app, &caller, ids, request_id).await?;
            Ok(BatchDeleteFilesResponse {
                event_position: position(deleted.event),
                files: deleted.value.into_iter().map(basic).collect(),
                quota: Some(state(deleted.quota)),
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
            let held = set_hold(&self.app, &caller, request).await?;
            Ok(SetLegalHoldResponse {
                event_position: position(held.event),
                file: Some(full(held.value)),
                quota: Some(state(held.quota)),
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
            let released = release_hold(&self.app, &caller, request).await?;
            Ok(ReleaseLegalHoldResponse {
                event_position: position(released.event),
                file: Some(full(released.value)),
                quota: Some(state(released.quota)),
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
            let listed = list_versions(&self.app, &caller, convert::version::list(request)?).await?;
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
            let restored = restore_version(&self.app, &caller, convert::version::restore(request)?).await?;
            Ok(RestoreFileVersionResponse {
                event_position: position(restored.event),
                file: Some(full(restored.value)),
                quota: Some(state(restored.quota)),
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
            let deleted = delete_version(&self.app, &caller, version, request_id).await?;
            Ok(DeleteFileVersionResponse {
                event_position: position(deleted.event),
                file: Some(full(deleted.value)),
                quota: Some(state(deleted.quota)),
            })
        })
        .await
    }
}
