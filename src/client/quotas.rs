//! Limits and usage.

use super::{connection::Client, error::ClientError, randomness::fill_request_id};
use crate::proto::v1::{
    GetQuotaRequest, GetQuotaResponse, GetUsageRequest, GetUsageResponse, UpdateQuotaRequest,
    UpdateQuotaResponse,
};

impl Client {
    /// Returns the limits and what is used of them.
    pub async fn get_quota(&self, request: GetQuotaRequest) -> Result<GetQuotaResponse, ClientError> {
        self.call(request, |mut to, request| async move { to.quotas.get_quota(request).await }).await
    }

    /// Changes limits. Safe to repeat; a request id is minted where there is none.
    pub async fn update_quota(
        &self,
        mut request: UpdateQuotaRequest,
    ) -> Result<UpdateQuotaResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut to, request| async move { to.quotas.update_quota(request).await }).await
    }

    /// Returns what is stored, by category and media kind.
    pub async fn get_usage(&self, request: GetUsageRequest) -> Result<GetUsageResponse, ClientError> {
        self.call(request, |mut to, request| async move { to.quotas.get_usage(request).await }).await
    }
}
