//! Calls to `QuotaService`: limits and usage of a tenant.

use super::{connection::Client, error::ClientError, randomness::fill_request_id};
use crate::proto::v1::{
    GetQuotaRequest, GetQuotaResponse, GetUsageRequest, GetUsageResponse, UpdateQuotaRequest,
    UpdateQuotaResponse,
};

impl Client {
    /// Returns the limits of a tenant and its current usage.
    pub async fn get_quota(&self, request: GetQuotaRequest) -> Result<GetQuotaResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.quotas.get_quota(request).await }).await
    }

    /// Updates the limits of a tenant. Safe to retry: a missing request id is generated.
    pub async fn update_quota(
        &self,
        mut request: UpdateQuotaRequest,
    ) -> Result<UpdateQuotaResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.quotas.update_quota(request).await }).await
    }

    /// Returns the usage of a tenant by category and media kind.
    pub async fn get_usage(&self, request: GetUsageRequest) -> Result<GetUsageResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.quotas.get_usage(request).await }).await
    }
}
