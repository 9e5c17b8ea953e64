//! The adapter of `QuotaService`: each RPC decodes the request, calls a use case and encodes the response.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{PrincipalCall, extract_principal, respond},
    convert::quota,
};
use crate::{
    app::{App, quotas},
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
}
