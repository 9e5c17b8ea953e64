//! The adapter of `TenantService`: each RPC decodes the request, calls a use case and encodes the response.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{OperatorCall, extract_operator, respond},
    convert::{erasure, quota, tenant},
    status::status,
};
use crate::{
    app::{App, tenants},
    proto::admin::v1::{self, tenant_service_server::TenantService},
};

pub(super) struct Tenants(pub(super) Arc<App>);

#[async_trait]
impl TenantService for Tenants {
    async fn create_tenant(
        &self,
        request: Request<v1::CreateTenantRequest>,
    ) -> Result<Response<v1::CreateTenantResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let created =
                tenants::create_tenant(&self.0, &operator, tenant::create_request_from_proto(request)?)
                    .await?;
            Ok(v1::CreateTenantResponse { tenant: Some(tenant::to_proto(created)) })
        })
        .await
    }

    async fn get_tenant(
        &self,
        request: Request<v1::GetTenantRequest>,
    ) -> Result<Response<v1::GetTenantResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let id = tenant::parse_tenant_id(&request.tenant_id)?;
            let record = tenants::get_tenant(&self.0, &operator, id).await?;
            Ok(v1::GetTenantResponse { tenant: Some(tenant::to_proto(record)) })
        })
        .await
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let after = tenant::parse_page_token(&request.page_token)?;
            let listed = tenants::list_tenants(&self.0, &operator, request.page_size, after).await?;
            Ok(v1::ListTenantsResponse {
                tenants: listed.tenants.into_iter().map(tenant::to_proto).collect(),
                next_page_token: listed.next.map(|id| id.to_string()).unwrap_or_default(),
            })
        })
        .await
    }

    async fn update_tenant(
        &self,
        request: Request<v1::UpdateTenantRequest>,
    ) -> Result<Response<v1::UpdateTenantResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let request = tenant::update_request_from_proto(request)?;
            let updated = tenants::update_tenant(&self.0, &operator, request.tenant, request.update).await?;
            let quota = Some(quota::to_proto(&updated.quota));
            Ok(v1::UpdateTenantResponse { tenant: Some(tenant::to_proto(updated.tenant)), quota })
        })
        .await
    }

    async fn suspend_tenant(
        &self,
        request: Request<v1::SuspendTenantRequest>,
    ) -> Result<Response<v1::SuspendTenantResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let ids = tenant::parse_tenant_change(&request.tenant_id, &request.request_id)?;
            let record =
                tenants::suspend_tenant(&self.0, &operator, ids.tenant, request.reason, ids.request).await?;
            Ok(v1::SuspendTenantResponse { tenant: Some(tenant::to_proto(record)) })
        })
        .await
    }

    async fn resume_tenant(
        &self,
        request: Request<v1::ResumeTenantRequest>,
    ) -> Result<Response<v1::ResumeTenantResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let ids = tenant::parse_tenant_change(&request.tenant_id, &request.request_id)?;
            let record = tenants::resume_tenant(&self.0, &operator, ids.tenant, ids.request).await?;
            Ok(v1::ResumeTenantResponse { tenant: Some(tenant::to_proto(record)) })
        })
        .await
    }

    async fn delete_tenant(
        &self,
        request: Request<v1::DeleteTenantRequest>,
    ) -> Result<Response<v1::DeleteTenantResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let ids = tenant::parse_tenant_change(&request.tenant_id, &request.request_id)?;
            let deleted =
                tenants::delete_tenant(&self.0, &operator, ids.tenant, request.dry_run, ids.request).await?;
            let plan = Some(tenant::deletion_plan_to_proto(&deleted.plan));
            Ok(v1::DeleteTenantResponse { tenant: Some(tenant::to_proto(deleted.tenant)), plan })
        })
        .await
    }

    async fn reclaim_tenant(
        &self,
        request: Request<v1::ReclaimTenantRequest>,
    ) -> Result<Response<v1::ReclaimTenantResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let ids = tenant::parse_tenant_change(&request.tenant_id, &request.request_id)?;
            let reclaimed = tenants::reclaim_tenant(&self.0, &operator, ids.tenant, ids.request).await?;
            Ok(erasure::reclaimed_to_proto(reclaimed))
        })
        .await
    }

    async fn request_erasure(
        &self,
        request: Request<v1::RequestErasureRequest>,
    ) -> Result<Response<v1::RequestErasureResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let request = erasure::request_from_proto(request)?;
            let requested = tenants::request_erasure(&self.0, &operator, request).await?;
            Ok(v1::RequestErasureResponse { erasure: Some(erasure::to_proto(requested)) })
        })
        .await
    }

    async fn approve_erasure(
        &self,
        request: Request<v1::ApproveErasureRequest>,
    ) -> Result<Response<v1::ApproveErasureResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let ids = erasure::approval_from_proto(&request)?;
            let approved =
                tenants::approve_erasure(&self.0, &operator, ids.tenant, ids.erasure, ids.request).await?;
            Ok(v1::ApproveErasureResponse { erasure: Some(erasure::to_proto(approved)) })
        })
        .await
    }

    async fn list_erasures(
        &self,
        request: Request<v1::ListErasuresRequest>,
    ) -> Result<Response<v1::ListErasuresResponse>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        respond(&operator.origin, async {
            let id = tenant::parse_tenant_id(&request.tenant_id)?;
            let listed = tenants::list_erasures(&self.0, &operator, id).await?;
            Ok(v1::ListErasuresResponse { erasures: listed.into_iter().map(erasure::to_proto).collect() })
        })
        .await
    }

    type ExportTenantStream = Pin<Box<dyn Stream<Item = Result<v1::ExportTenantResponse, Status>> + Send>>;

    async fn export_tenant(
        &self,
        request: Request<v1::ExportTenantRequest>,
    ) -> Result<Response<Self::ExportTenantStream>, Status> {
        let OperatorCall { operator, request } = extract_operator(request).await?;
        let call_id = operator.origin.call_id.clone();
        respond(&operator.origin, async {
            let id = tenant::parse_tenant_id(&request.tenant_id)?;
            let records = tenants::export_tenant(&self.0, &operator, id).await?;
            let responses = records.map(move |record| {
                record.map(tenant::export_record_to_proto).map_err(|error| status(&error, &call_id))
            });
            Ok(responses.boxed() as Self::ExportTenantStream)
        })
        .await
    }
}
