//! `QuotaService`: decode, call the use case, encode.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{answer, principal},
    convert,
};
use crate::{
    app::{
        App,
        quotas::{get::get_quota, update::update_quota, usage::get_usage},
    },
    proto::v1::{
        GetQuotaRequest, GetQuotaResponse, GetUsageRequest, GetUsageResponse, UpdateQuotaRequest,
        UpdateQuotaResponse, quota_service_server::QuotaService,
    },
};

/// The adapter of the quota service.
pub(super) struct Quotas(pub(super) Arc<App>);

#[async_trait]
impl QuotaService for Quotas {
    async fn get_quota(
        &self,
        request: Request<GetQuotaRequest>,
    ) -> Result<Response<GetQuotaResponse>, Status> {
        let (principal, origin, request) = principal(request)?;
        answer(&origin, async {
            let quota = get_quota(&self.0, &principal, convert::quota::tenant(&request.tenant_id)?).await?;
            Ok(GetQuotaResponse { quota: Some(convert::quota::quota(&quota)) })
        })
        .await
    }

    async fn update_quota(
        &self,
        request: Request<UpdateQuotaRequest>,
    ) -> Result<Response<UpdateQuotaResponse>, Status> {
        let (principal, origin, request) = principal(request)?;
        answer(&origin, async {
            let (tenant, change) = convert::quota::update(request)?;
            let quota = update_quota(&self.0, &principal, tenant, change).await?;
            let state = convert::quota::state(quota.state());
            Ok(UpdateQuotaResponse { quota: Some(convert::quota::quota(&quota)), quota_state: Some(state) })
        })
        .await
    }

    async fn get_usage(
        &self,
        request: Request<GetUsageRequest>,
    ) -> Result<Response<GetUsageResponse>, Status> {
        let (principal, origin, request) = principal(request)?;
        answer(&origin, async {
            let usage = get_usage(&self.0, &principal, convert::quota::tenant(&request.tenant_id)?).await?;
            Ok(convert::quota::usage(usage))
        })
        .await
    }
}
