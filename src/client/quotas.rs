//! Calls to `QuotaService`: limits and usage of a tenant, and credits of its users.

use super::{connection::Client, error::ClientError, randomness::fill_request_id};
use crate::proto::v1::{
    AddCreditsRequest, AddCreditsResponse, CheckQuotaRequest, CheckQuotaResponse, CheckRateLimitRequest,
    CheckRateLimitResponse, DeductCreditsRequest, DeductCreditsResponse, GetCreditsRequest,
    GetCreditsResponse, GetQuotaRequest, GetQuotaResponse, GetUsageHistoryRequest, GetUsageHistoryResponse,
    GetUsageRecalculationRequest, GetUsageRecalculationResponse, GetUsageRequest, GetUsageResponse,
    ListCreditEntriesRequest, ListCreditEntriesResponse, ListQuotaAlertsRequest, ListQuotaAlertsResponse,
    ListTopOwnersRequest, ListTopOwnersResponse, RecalculateUsageRequest, RecalculateUsageResponse,
    UpdateQuotaRequest, UpdateQuotaResponse,
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

    /// Returns whether uploads of these sizes would fit now.
    pub async fn check_quota(&self, request: CheckQuotaRequest) -> Result<CheckQuotaResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.quotas.check_quota(request).await }).await
    }

    /// Lists the alerts of a tenant, newest first, one page at a time.
    pub async fn list_quota_alerts(
        &self,
        request: ListQuotaAlertsRequest,
    ) -> Result<ListQuotaAlertsResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.quotas.list_quota_alerts(request).await })
            .await
    }

    /// Starts a recalculation of the usage. Safe to retry: a missing request id is generated.
    pub async fn recalculate_usage(
        &self,
        mut request: RecalculateUsageRequest,
    ) -> Result<RecalculateUsageResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.quotas.recalculate_usage(request).await })
            .await
    }

    /// Returns the newest recalculation of the usage, and its result.
    pub async fn get_usage_recalculation(
        &self,
        request: GetUsageRecalculationRequest,
    ) -> Result<GetUsageRecalculationResponse, ClientError> {
        self.call(
            request,
            |mut api, request| async move { api.quotas.get_usage_recalculation(request).await },
        )
        .await
    }
    /// Returns a page of the owners with the most bytes.
    pub async fn list_top_owners(
        &self,
        request: ListTopOwnersRequest,
    ) -> Result<ListTopOwnersResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.quotas.list_top_owners(request).await }).await
    }

    /// Returns a page of the daily samples of the usage of a tenant.
    pub async fn get_usage_history(
        &self,
        request: GetUsageHistoryRequest,
    ) -> Result<GetUsageHistoryResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.quotas.get_usage_history(request).await })
            .await
    }

    /// Checks an event against a limit, and counts it if it is allowed. It is counted again if it is retried after the
    /// connection broke.
    pub async fn check_rate_limit(
        &self,
        request: CheckRateLimitRequest,
    ) -> Result<CheckRateLimitResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.quotas.check_rate_limit(request).await }).await
    }

    /// Adds credits to a user. Safe to retry: a missing request id is generated.
    pub async fn add_credits(
        &self,
        mut request: AddCreditsRequest,
    ) -> Result<AddCreditsResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.quotas.add_credits(request).await }).await
    }

    /// Deducts credits of a user. Safe to retry: a missing request id is generated.
    pub async fn deduct_credits(
        &self,
        mut request: DeductCreditsRequest,
    ) -> Result<DeductCreditsResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.quotas.deduct_credits(request).await }).await
    }

    /// Returns the credits of a user.
    pub async fn get_credits(&self, request: GetCreditsRequest) -> Result<GetCreditsResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.quotas.get_credits(request).await }).await
    }

    /// Lists the credit entries of a user, the newest first, one page at a time.
    pub async fn list_credit_entries(
        &self,
        request: ListCreditEntriesRequest,
    ) -> Result<ListCreditEntriesResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.quotas.list_credit_entries(request).await })
            .await
    }
}
