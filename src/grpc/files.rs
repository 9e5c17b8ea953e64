//! The adapter of `FileService`: each RPC decodes the request, calls a use case and encodes the response.
//! Streams are in `uploads.rs` and `downloads.rs`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    call::{CallerCall, extract_caller, extract_stream_sender, respond},
    client_origin::client_origin,
    convert::{self, file, id::BatchGetRequest, quota, watch},
    downloads::{DownloadStream, Downloads, StreamedBytes},
    uploads::UploadStreams,
};
use crate::{
    app::{App, files},
    proto::v1::{self, file_service_server::FileService},
};

pub(super) struct Files {
    pub(super) app: Arc<App>,
    pub(super) uploads: UploadStreams,
    pub(super) downloads: Downloads,
}

#[async_trait]
impl FileService for Files {
    type DownloadFileStream = DownloadStream<v1::DownloadFileResponse>;

    async fn upload_file(
        &self,
        request: Request<Streaming<v1::UploadFileRequest>>,
    ) -> Result<Response<v1::UploadFileResponse>, Status> {
        let (sender, stream) = extract_stream_sender(request);
        // The future is large. Boxed, it is not moved again.
        let received = Box::pin(self.uploads.receive(&self.app, sender, stream)).await;
        received.map(Response::new)
    }

    async fn download_file(
        &self,
        request: Request<v1::DownloadFileRequest>,
    ) -> Result<Response<Self::DownloadFileStream>, Status> {
        let metadata = request.metadata().clone();
        let CallerCall { caller, request } = extract_caller(request).await?;
        let client = client_origin(&metadata, caller.origin.clone());
        let slot = self.downloads.acquire_slot(&caller)?;
        respond(&caller.origin, async {
            let request = convert::download::request_from_proto(request, client)?;
            let download = files::download_file(&self.app, &caller, request).await?;
            let header = convert::download::header_to_proto(&download);
            let bytes = StreamedBytes { range: download.range, bytes: download.bytes };
            Ok(self.downloads.start_sending(slot, header, bytes, &caller.origin))
        })
        .await
    }

    async fn get_file(
        &self,
        request: Request<v1::GetFileRequest>,
    ) -> Result<Response<v1::GetFileResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let file =
                files::get_file(&self.app, &caller, convert::id::parse_file_id(&request.file_id)?).await?;
            Ok(v1::GetFileResponse { file: Some(file::to_full_proto(file)) })
        })
        .await
    }

    async fn batch_get_files(
        &self,
        request: Request<v1::BatchGetFilesRequest>,
    ) -> Result<Response<v1::BatchGetFilesResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let BatchGetRequest { files: ids, is_full } =
                convert::id::batch_get_request_from_proto(&request)?;
            let batch = files::batch_get_files(&self.app, &caller, ids, is_full).await?;
            Ok(v1::BatchGetFilesResponse {
                files: batch.files.into_iter().map(file::converter_for_view(is_full)).collect(),
                missing_file_ids: batch.missing.iter().map(ToString::to_string).collect(),
                unread_file_ids: batch.unread.iter().map(ToString::to_string).collect(),
            })
        })
        .await
    }

    async fn list_files(
        &self,
        request: Request<v1::ListFilesRequest>,
    ) -> Result<Response<v1::ListFilesResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = convert::filter::list_request_from_proto(request)?;
            let to_proto = file::converter_for_view(request.is_full);
            let listed = files::list_files(&self.app, &caller, request).await?;
            Ok(v1::ListFilesResponse {
                files: listed.files.into_iter().map(to_proto).collect(),
                next_page_token: listed.next_page_token,
                total_size: listed.total.as_ref().map(|total| total.count),
                total_size_is_lower_bound: listed.total.is_some_and(|total| total.is_lower_bound),
            })
        })
        .await
    }

    async fn update_file(
        &self,
        request: Request<v1::UpdateFileRequest>,
    ) -> Result<Response<v1::UpdateFileResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let updated =
                files::update_file(&self.app, &caller, convert::update::request_from_proto(request)?).await?;
            Ok(v1::UpdateFileResponse {
                event_position: watch::position_to_proto(updated.event),
                file: Some(file::to_full_proto(updated.value)),
                quota_state: Some(quota::state_to_proto(updated.quota)),
            })
        })
        .await
    }

    async fn delete_file(
        &self,
        request: Request<v1::DeleteFileRequest>,
    ) -> Result<Response<v1::DeleteFileResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let change =
                convert::id::parse_file_change(&request.file_id, request.if_etag, &request.request_id)?;
            let deleted = files::delete_file(&self.app, &caller, change).await?;
            Ok(v1::DeleteFileResponse {
                event_position: watch::position_to_proto(deleted.event),
                file: deleted.value.map(file::to_full_proto),
                quota_state: Some(quota::state_to_proto(deleted.quota)),
            })
        })
        .await
    }

    async fn undelete_file(
        &self,
        request: Request<v1::UndeleteFileRequest>,
    ) -> Result<Response<v1::UndeleteFileResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let change =
                convert::id::parse_file_change(&request.file_id, String::new(), &request.request_id)?;
            let restored = files::undelete_file(&self.app, &caller, change).await?;
            Ok(v1::UndeleteFileResponse {
                event_position: watch::position_to_proto(restored.event),
                file: Some(file::to_full_proto(restored.value)),
                quota_state: Some(quota::state_to_proto(restored.quota)),
            })
        })
        .await
    }

    async fn purge_file(
        &self,
        request: Request<v1::PurgeFileRequest>,
    ) -> Result<Response<v1::PurgeFileResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let change =
                convert::id::parse_file_change(&request.file_id, request.if_etag, &request.request_id)?;
            let purged = files::purge_file(&self.app, &caller, change).await?;
            Ok(v1::PurgeFileResponse {
                event_position: watch::position_to_proto(purged.event),
                quota_state: Some(quota::state_to_proto(purged.quota)),
            })
        })
        .await
    }

    async fn transfer_ownership(
        &self,
        request: Request<v1::TransferOwnershipRequest>,
    ) -> Result<Response<v1::TransferOwnershipResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = convert::id::transfer_request_from_proto(request)?;
            let transferred = files::transfer_ownership(&self.app, &caller, request).await?;
            Ok(v1::TransferOwnershipResponse {
                event_position: watch::position_to_proto(transferred.event),
                transferred_file_count: transferred.file_count,
                remaining_file_count: transferred.remaining_file_count,
                remaining_bytes: transferred.remaining_bytes,
            })
        })
        .await
    }

    async fn archive_file(
        &self,
        request: Request<v1::ArchiveFileRequest>,
    ) -> Result<Response<v1::ArchiveFileResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let change =
                convert::id::parse_file_change(&request.file_id, request.if_etag, &request.request_id)?;
            let archived = files::archive_file(&self.app, &caller, change).await?;
            Ok(v1::ArchiveFileResponse {
                event_position: watch::position_to_proto(archived.event),
                file: Some(file::to_full_proto(archived.value)),
                quota_state: Some(quota::state_to_proto(archived.quota)),
            })
        })
        .await
    }

    async fn unarchive_file(
        &self,
        request: Request<v1::UnarchiveFileRequest>,
    ) -> Result<Response<v1::UnarchiveFileResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let change =
                convert::id::parse_file_change(&request.file_id, request.if_etag, &request.request_id)?;
            let restored = files::unarchive_file(&self.app, &caller, change).await?;
            Ok(v1::UnarchiveFileResponse {
                event_position: watch::position_to_proto(restored.event),
                file: Some(file::to_full_proto(restored.value)),
                quota_state: Some(quota::state_to_proto(restored.quota)),
            })
        })
        .await
    }

    async fn copy_file(
        &self,
        request: Request<v1::CopyFileRequest>,
    ) -> Result<Response<v1::CopyFileResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let copied =
                files::copy_file(&self.app, &caller, convert::version::copy_request_from_proto(request)?)
                    .await?;
            Ok(v1::CopyFileResponse {
                event_position: watch::position_to_proto(copied.event),
                file: Some(file::to_full_proto(copied.value)),
                quota_state: Some(quota::state_to_proto(copied.quota)),
            })
        })
        .await
    }

    async fn batch_delete_files(
        &self,
        request: Request<v1::BatchDeleteFilesRequest>,
    ) -> Result<Response<v1::BatchDeleteFilesResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let ids = convert::id::parse_batch_change(&request.file_ids, &request.request_id)?;
            let deleted = files::batch_delete_files(&self.app, &caller, ids.files, ids.request).await?;
            Ok(v1::BatchDeleteFilesResponse {
                event_position: watch::position_to_proto(deleted.event),
                files: deleted.value.into_iter().map(file::to_basic_proto).collect(),
                quota_state: Some(quota::state_to_proto(deleted.quota)),
            })
        })
        .await
    }

    async fn set_legal_hold(
        &self,
        request: Request<v1::SetLegalHoldRequest>,
    ) -> Result<Response<v1::SetLegalHoldResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let change =
                convert::id::parse_file_change(&request.file_id, String::new(), &request.request_id)?;
            let request = files::HoldRequest { change, reason: request.reason };
            let held = files::set_legal_hold(&self.app, &caller, request).await?;
            Ok(v1::SetLegalHoldResponse {
                event_position: watch::position_to_proto(held.event),
                file: Some(file::to_full_proto(held.value)),
                quota_state: Some(quota::state_to_proto(held.quota)),
            })
        })
        .await
    }

    async fn release_legal_hold(
        &self,
        request: Request<v1::ReleaseLegalHoldRequest>,
    ) -> Result<Response<v1::ReleaseLegalHoldResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let change =
                convert::id::parse_file_change(&request.file_id, String::new(), &request.request_id)?;
            let request = files::HoldRequest { change, reason: request.reason };
            let released = files::release_legal_hold(&self.app, &caller, request).await?;
            Ok(v1::ReleaseLegalHoldResponse {
                event_position: watch::position_to_proto(released.event),
                file: Some(file::to_full_proto(released.value)),
                quota_state: Some(quota::state_to_proto(released.quota)),
            })
        })
        .await
    }

    async fn list_file_versions(
        &self,
        request: Request<v1::ListFileVersionsRequest>,
    ) -> Result<Response<v1::ListFileVersionsResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let listed = files::list_file_versions(
                &self.app,
                &caller,
                convert::version::list_request_from_proto(request)?,
            )
            .await?;
            Ok(convert::version::list_to_proto(listed))
        })
        .await
    }

    async fn restore_file_version(
        &self,
        request: Request<v1::RestoreFileVersionRequest>,
    ) -> Result<Response<v1::RestoreFileVersionResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let restored = files::restore_file_version(
                &self.app,
                &caller,
                convert::version::restore_request_from_proto(request)?,
            )
            .await?;
            Ok(v1::RestoreFileVersionResponse {
                event_position: watch::position_to_proto(restored.event),
                file: Some(file::to_full_proto(restored.value)),
                quota_state: Some(quota::state_to_proto(restored.quota)),
            })
        })
        .await
    }

    async fn delete_file_version(
        &self,
        request: Request<v1::DeleteFileVersionRequest>,
    ) -> Result<Response<v1::DeleteFileVersionResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = convert::version::delete_request_from_proto(request)?;
            let deleted =
                files::delete_file_version(&self.app, &caller, request.change, request.version).await?;
            Ok(v1::DeleteFileVersionResponse {
                event_position: watch::position_to_proto(deleted.event),
                file: Some(file::to_full_proto(deleted.value)),
                quota_state: Some(quota::state_to_proto(deleted.quota)),
            })
        })
        .await
    }
}
