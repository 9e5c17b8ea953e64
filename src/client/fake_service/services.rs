//! The services of the fake server other than `FileService`.

use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{Fake, build_report};
use crate::proto::v1::{
    event_service_server::EventService, import_service_server::ImportService,
    quota_service_server::QuotaService, service_info_service_server::ServiceInfoService,
    upload_service_server::UploadService, *,
};

#[tonic::async_trait]
impl UploadService for Fake {
    async fn create_upload(
        &self,
        request: Request<CreateUploadRequest>,
    ) -> Result<Response<CreateUploadResponse>, Status> {
        self.record_call(&request)?;
        let upload = self.script.lock().unwrap().upload.clone();
        Ok(Response::new(CreateUploadResponse { upload, direct: None }))
    }

    async fn get_upload(
        &self,
        request: Request<GetUploadRequest>,
    ) -> Result<Response<GetUploadResponse>, Status> {
        self.record_call(&request)?;
        let upload = self.script.lock().unwrap().upload.clone();
        upload
            .map(|upload| Response::new(GetUploadResponse { upload: Some(upload), direct: None }))
            .ok_or_else(|| Status::not_found("upload does not exist"))
    }

    async fn list_uploads(
        &self,
        request: Request<ListUploadsRequest>,
    ) -> Result<Response<ListUploadsResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(ListUploadsResponse::default()))
    }

    async fn cancel_upload(
        &self,
        request: Request<CancelUploadRequest>,
    ) -> Result<Response<CancelUploadResponse>, Status> {
        self.script.lock().unwrap().request_ids.push(request.get_ref().request_id.clone());
        self.record_call(&request)?;
        Ok(Response::new(CancelUploadResponse::default()))
    }

    async fn upload_part(
        &self,
        request: Request<UploadPartRequest>,
    ) -> Result<Response<UploadPartResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(UploadPartResponse::default()))
    }

    async fn complete_upload(
        &self,
        request: Request<CompleteUploadRequest>,
    ) -> Result<Response<CompleteUploadResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(CompleteUploadResponse::default()))
    }
}

#[tonic::async_trait]
impl ImportService for Fake {
    type ImportFilesStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<ImportFilesResponse, Status>> + Send>>;

    async fn import_files(
        &self,
        request: Request<Streaming<ImportFilesRequest>>,
    ) -> Result<Response<Self::ImportFilesStream>, Status> {
        self.record_call(&request)?;
        let mut messages = request.into_inner();
        let (mut options, mut items) = (ImportOptions::default(), Vec::new());
        while let Some(message) = messages.message().await? {
            match message.message {
                Some(import_files_request::Message::Options(message)) => options = message,
                Some(import_files_request::Message::Item(item)) => items.push(item),
                None => {}
            }
        }
        let report = build_report(&items);
        self.script.lock().unwrap().imports.push((options, items));
        Ok(Response::new(stream::iter(report).boxed()))
    }

    async fn find_imported_files(
        &self,
        request: Request<FindImportedFilesRequest>,
    ) -> Result<Response<FindImportedFilesResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(FindImportedFilesResponse::default()))
    }
}

#[tonic::async_trait]
impl EventService for Fake {
    type WatchFilesStream = std::pin::Pin<Box<dyn Stream<Item = Result<WatchFilesResponse, Status>> + Send>>;

    async fn watch_files(
        &self,
        request: Request<WatchFilesRequest>,
    ) -> Result<Response<Self::WatchFilesStream>, Status> {
        self.script.lock().unwrap().cursors.push(request.get_ref().cursor.clone());
        self.record_call(&request)?;
        let mut script = self.script.lock().unwrap();
        let messages = stream::iter(script.watches.pop_front().unwrap_or_default());
        let is_last = script.watches.is_empty();
        Ok(Response::new(if is_last { messages.chain(stream::pending()).boxed() } else { messages.boxed() }))
    }
}

#[tonic::async_trait]
impl QuotaService for Fake {
    async fn get_quota(
        &self,
        request: Request<GetQuotaRequest>,
    ) -> Result<Response<GetQuotaResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(GetQuotaResponse { quota: Some(Quota::default()) }))
    }

    async fn update_quota(
        &self,
        request: Request<UpdateQuotaRequest>,
    ) -> Result<Response<UpdateQuotaResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(UpdateQuotaResponse { quota: request.into_inner().quota, quota_state: None }))
    }

    async fn get_usage(
        &self,
        request: Request<GetUsageRequest>,
    ) -> Result<Response<GetUsageResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(GetUsageResponse::default()))
    }

    async fn check_quota(
        &self,
        request: Request<CheckQuotaRequest>,
    ) -> Result<Response<CheckQuotaResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(CheckQuotaResponse { fits: true, ..CheckQuotaResponse::default() }))
    }

    async fn list_quota_alerts(
        &self,
        request: Request<ListQuotaAlertsRequest>,
    ) -> Result<Response<ListQuotaAlertsResponse>, Status> {
        self.record_call(&request)?;
        let alerts = vec![QuotaAlert { threshold_percent: 80, ..QuotaAlert::default() }];
        Ok(Response::new(ListQuotaAlertsResponse { alerts, next_page_token: String::new() }))
    }

    async fn recalculate_usage(
        &self,
        request: Request<RecalculateUsageRequest>,
    ) -> Result<Response<RecalculateUsageResponse>, Status> {
        self.record_call(&request)?;
        let recalculation = Some(UsageRecalculation::default());
        Ok(Response::new(RecalculateUsageResponse { recalculation }))
    }

    async fn get_usage_recalculation(
        &self,
        request: Request<GetUsageRecalculationRequest>,
    ) -> Result<Response<GetUsageRecalculationResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(GetUsageRecalculationResponse { recalculation: None }))
    }

    async fn list_top_owners(
        &self,
        request: Request<ListTopOwnersRequest>,
    ) -> Result<Response<ListTopOwnersResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(ListTopOwnersResponse::default()))
    }

    async fn get_usage_history(
        &self,
        request: Request<GetUsageHistoryRequest>,
    ) -> Result<Response<GetUsageHistoryResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(GetUsageHistoryResponse::default()))
    }

    async fn add_credits(
        &self,
        request: Request<AddCreditsRequest>,
    ) -> Result<Response<AddCreditsResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(AddCreditsResponse::default()))
    }

    async fn deduct_credits(
        &self,
        request: Request<DeductCreditsRequest>,
    ) -> Result<Response<DeductCreditsResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(DeductCreditsResponse::default()))
    }

    async fn get_credits(
        &self,
        request: Request<GetCreditsRequest>,
    ) -> Result<Response<GetCreditsResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(GetCreditsResponse::default()))
    }

    async fn list_credit_entries(
        &self,
        request: Request<ListCreditEntriesRequest>,
    ) -> Result<Response<ListCreditEntriesResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(ListCreditEntriesResponse::default()))
    }

    async fn check_rate_limit(
        &self,
        request: Request<CheckRateLimitRequest>,
    ) -> Result<Response<CheckRateLimitResponse>, Status> {
        self.record_call(&request)?;
        let allowed = request.get_ref().subject != "mallory";
        Ok(Response::new(CheckRateLimitResponse { allowed, ..CheckRateLimitResponse::default() }))
    }
}

#[tonic::async_trait]
impl ServiceInfoService for Fake {
    async fn get_service_info(
        &self,
        request: Request<GetServiceInfoRequest>,
    ) -> Result<Response<GetServiceInfoResponse>, Status> {
        self.record_call(&request)?;
        Ok(Response::new(GetServiceInfoResponse::default()))
    }
}
