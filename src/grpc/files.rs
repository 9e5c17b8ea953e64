//! `FileService`: decode, call the use case, encode. The streams have files of their own.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    call::{ValidUntil, answer, caller},
    convert::{
        self,
        file::{full, shown},
        quota::state,
        watch::position,
    },
    downloads::{DownloadStream, Downloads},
    uploads::Uploads,
    watches::{WatchStream, sent},
};
use crate::{
    app::{
        App,
        files::{
            archive::archive, batch_get::batch_get, delete::delete, download::download, get::get, list::list,
            purge::purge, unarchive::unarchive, undelete::undelete, update::update, watch::watch,
        },
    },
    proto::v1::{
        ArchiveFileRequest, ArchiveFileResponse, BatchGetFilesRequest, BatchGetFilesResponse,
        DeleteFileRequest, DeleteFileResponse, DownloadFileRequest, GetFileRequest, GetFileResponse,
        ListFilesRequest, ListFilesResponse, PurgeFileRequest, PurgeFileResponse, UnarchiveFileRequest,
        UnarchiveFileResponse, UndeleteFileRequest, UndeleteFileResponse, UpdateFileRequest,
        UpdateFileResponse, UploadFileRequest, UploadFileResponse, WatchFilesRequest,
        file_service_server::FileService,
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
    type WatchFilesStream = WatchStream;

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
}
