//! The adapter of `QuotaService`: each RPC decodes the request, calls a use case and encodes the response.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{CallerCall, PrincipalCall, extract_caller, extract_principal, respond},
    convert::{
        credits, quota, quota_alert, quota_check, usage,
        usage_recalculation::{self, RecalculateRequest},
        user_quota,
    },
};
use crate::{
    app::{self, App, quotas},
    proto::v1::{self, quota_service_server::QuotaService},
};

pub(super) struct Quotas(pub(super) Arc<App>);

#[async_trait]
impl QuotaService for Quotas {
    async fn get_quota(
        &self,
        request: Request<v1::GetQuotaRequest>,
    ) -> Result<Response<v1::GetQuotaResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let quota =
                quotas::get_quota(&self.0, &principal, quota::parse_tenant_id(&request.tenant_id)?).await?;
            Ok(v1::GetQuotaResponse { quota: Some(quota::to_proto(&quota)) })
        })
        .await
    }

    async fn update_quota(
        &self,
        request: Request<v1::UpdateQuotaRequest>,
    ) -> Result<Response<v1::UpdateQuotaResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let request = quota::update_request_from_proto(request)?;
            let quota = quotas::update_quota(&self.0, &principal, request.tenant, request.update).await?;
            let state = quota::state_to_proto(quota.state());
            Ok(v1::UpdateQuotaResponse { quota: Some(quota::to_proto(&quota)), quota_state: Some(state) })
        })
        .await
    }

    async fn get_usage(
        &self,
        request: Request<v1::GetUsageRequest>,
    ) -> Result<Response<v1::GetUsageResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let usage =
                quotas::get_usage(&self.0, &principal, quota::parse_tenant_id(&request.tenant_id)?).await?;
            Ok(quota::usage_to_proto(usage))
        })
        .await
    }

    async fn update_user_quota(
        &self,
        request: Request<v1::UpdateUserQuotaRequest>,
    ) -> Result<Response<v1::UpdateUserQuotaResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let user_quota::UpdateRequest { tenant, update } =
                user_quota::update_request_from_proto(request)?;
            let updated = quotas::update_user_quota(&self.0, &principal, tenant, update).await?;
            Ok(v1::UpdateUserQuotaResponse { quota: Some(user_quota::to_proto(updated)) })
        })
        .await
    }

    async fn get_user_quota(
        &self,
        request: Request<v1::GetUserQuotaRequest>,
    ) -> Result<Response<v1::GetUserQuotaResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let user = credits::parse_user_request(&request.tenant_id, &request.user_id)?;
            let found = quotas::get_user_quota(&self.0, &principal, user.tenant, user.user_id).await?;
            Ok(v1::GetUserQuotaResponse { quota: Some(user_quota::to_proto(found)) })
        })
        .await
    }

    async fn list_user_quotas(
        &self,
        request: Request<v1::ListUserQuotasRequest>,
    ) -> Result<Response<v1::ListUserQuotasResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let tenant = quota::parse_tenant_id(&request.tenant_id)?;
            let (page_size, page_token) = (request.page_size, request.page_token.as_str());
            let page = quotas::list_user_quotas(&self.0, &principal, tenant, page_size, page_token).await?;
            Ok(user_quota::page_to_proto(page))
        })
        .await
    }

    async fn check_quota(
        &self,
        request: Request<v1::CheckQuotaRequest>,
    ) -> Result<Response<v1::CheckQuotaResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let items = quota_check::items_from_proto(request.items)?;
            let check = quotas::check_quota(&self.0, &caller, &items).await?;
            Ok(quota_check::check_to_proto(&check, &caller.origin.call_id))
        })
        .await
    }

    async fn list_quota_alerts(
        &self,
        request: Request<v1::ListQuotaAlertsRequest>,
    ) -> Result<Response<v1::ListQuotaAlertsResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let query = quota_alert::query_from_proto(request)?;
            Ok(quota_alert::page_to_proto(quotas::list_quota_alerts(&self.0, &principal, query).await?))
        })
        .await
    }

    async fn add_credits(
        &self,
        request: Request<v1::AddCreditsRequest>,
    ) -> Result<Response<v1::AddCreditsResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let request = credits::add_request_from_proto(request)?;
            let entry =
                app::credits::add_credits(&self.0, &principal, request.tenant, request.change).await?;
            Ok(v1::AddCreditsResponse { entry: Some(credits::entry_to_proto(entry)) })
        })
        .await
    }

    async fn recalculate_usage(
        &self,
        request: Request<v1::RecalculateUsageRequest>,
    ) -> Result<Response<v1::RecalculateUsageResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let RecalculateRequest { tenant, request_id } =
                usage_recalculation::request_from_proto(&request)?;
            let requested = quotas::request_recalculation(&self.0, &principal, tenant, request_id).await?;
            let recalculation = Some(usage_recalculation::to_proto(&requested));
            Ok(v1::RecalculateUsageResponse { recalculation })
        })
        .await
    }

    async fn deduct_credits(
        &self,
        request: Request<v1::DeductCreditsRequest>,
    ) -> Result<Response<v1::DeductCreditsResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let request = credits::change_request_from_proto(request)?;
            let entry =
                app::credits::deduct_credits(&self.0, &principal, request.tenant, request.change).await?;
            Ok(v1::DeductCreditsResponse { entry: Some(credits::entry_to_proto(entry)) })
        })
        .await
    }

    async fn get_usage_recalculation(
        &self,
        request: Request<v1::GetUsageRecalculationRequest>,
    ) -> Result<Response<v1::GetUsageRecalculationResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let tenant = quota::parse_tenant_id(&request.tenant_id)?;
            let newest = quotas::get_recalculation(&self.0, &principal, tenant).await?;
            let recalculation = newest.as_ref().map(usage_recalculation::to_proto);
            Ok(v1::GetUsageRecalculationResponse { recalculation })
        })
        .await
    }

    async fn get_credits(
        &self,
        request: Request<v1::GetCreditsRequest>,
    ) -> Result<Response<v1::GetCreditsResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let user = credits::parse_user_request(&request.tenant_id, &request.user_id)?;
            let found = app::credits::get_credits(&self.0, &principal, user.tenant, user.user_id).await?;
            Ok(v1::GetCreditsResponse { credits: Some(credits::balance_to_proto(found)) })
        })
        .await
    }

    async fn list_top_owners(
        &self,
        request: Request<v1::ListTopOwnersRequest>,
    ) -> Result<Response<v1::ListTopOwnersResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let tenant = quota::parse_tenant_id(&request.tenant_id)?;
            let (page_size, page_token) = (request.page_size, request.page_token.as_str());
            let page = quotas::list_top_owners(&self.0, &principal, tenant, page_size, page_token).await?;
            Ok(usage::owners_to_proto(page))
        })
        .await
    }

    async fn get_usage_history(
        &self,
        request: Request<v1::GetUsageHistoryRequest>,
    ) -> Result<Response<v1::GetUsageHistoryResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let tenant = quota::parse_tenant_id(&request.tenant_id)?;
            let query = usage::history_query_from_proto(request, tenant)?;
            let page = quotas::get_usage_history(&self.0, &principal, &query).await?;
            Ok(usage::history_to_proto(page))
        })
        .await
    }

    async fn list_credit_entries(
        &self,
        request: Request<v1::ListCreditEntriesRequest>,
    ) -> Result<Response<v1::ListCreditEntriesResponse>, Status> {
        let PrincipalCall { principal, origin, request } = extract_principal(request).await?;
        respond(&origin, async {
            let user = credits::parse_user_request(&request.tenant_id, &request.user_id)?;
            let (size, token) = (request.page_size, request.page_token.as_str());
            let (tenant, user_id) = (user.tenant, user.user_id);
            let page =
                app::credits::list_credit_entries(&self.0, &principal, tenant, user_id, size, token).await?;
            Ok(credits::page_to_proto(page))
        })
        .await
    }

    async fn check_rate_limit(
        &self,
        request: Request<v1::CheckRateLimitRequest>,
    ) -> Result<Response<v1::CheckRateLimitResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let check = usage::rate_limit_check_from_proto(request);
            let decision = quotas::check_rate_limit(&self.0, &caller, &check).await?;
            Ok(usage::rate_decision_to_proto(decision))
        })
        .await
    }
}
