//! The adapter of `TenantService`: each RPC decodes the request, calls a use case and encodes the response.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{extract_operator, respond},
    convert::{quota, tenant},
    status::status,
};
use crate::{
    app::{
        App,
        tenants::{
            create::create_tenant, delete::delete_tenant, export::export_tenant, get::get_tenant,
            list::list_tenants, resume::resume_tenant, suspend::suspend_tenant, update::update_tenant,
        },
    },
    proto::admin::v1::{
        CreateTenantRequest, CreateTenantResponse, DeleteTenantRequest, DeleteTenantResponse,
        ExportTenantRequest, ExportTenantResponse, GetTenantRequest, GetTenantResponse, ListTenantsRequest,
        ListTenantsResponse, ResumeTenantRequest, ResumeTenantResponse, SuspendTenantRequest,
        SuspendTenantResponse, UpdateTenantRequest, UpdateTenantResponse,
        tenant_service_server::TenantService,
    },
};

pub(super) struct Tenants(pub(super) Arc<App>);

#[async_trait]
impl TenantService for Tenants {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        let (operator, request) = extract_operator(request)?;
        respond(&operator.origin, async {
            let created =
                create_tenant(&self.0, &operator, tenant::create_request_from_proto(request)?).await?;
            Ok(CreateTenantResponse { tenant: Some(tenant::to_proto(created)) })
        })
        .await
    }

    async fn get_tenant(
        &self,
        request: Request<GetTenantRequest>,
    ) -> Result<Response<GetTenantResponse>, Status> {
        let (operator, request) = extract_operator(request)?;
        respond(&operator.origin, async {
            let (id, _) = tenant::parse_tenant_change(&request.tenant_id, "")?;
            let record = get_tenant(&self.0, &operator, id).await?;
            Ok(GetTenantResponse { tenant: Some(tenant::to_proto(record)) })
        })
        .await
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let (operator, request) = extract_operator(request)?;
        respond(&operator.origin, async {
            let after = tenant::parse_page_token(&request.page_token)?;
            let listed = list_tenants(&self.0, &operator, request.page_size, after).await?;
            Ok(ListTenantsResponse {
                tenants: listed.tenants.into_iter().map(tenant::to_proto).collect(),
                next_page_token: listed.next.map(|id| id.to_string()).unwrap_or_default(),
            })
        })
        .await
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        let (operator, request) = extract_operator(request)?;
        respond(&operator.origin, async {
            let (id, change) = tenant::update_request_from_proto(request)?;
            let updated = update_tenant(&self.0, &operator, id, change).await?;
            let quota = Some(quota::to_proto(&updated.quota));
            Ok(UpdateTenantResponse { tenant: Some(tenant::to_proto(updated.tenant)), quota })
        })
        .await
    }

    async fn suspend_tenant(
        &self,
        request: Request<SuspendTenantRequest>,
    ) -> Result<Response<SuspendTenantResponse>, Status> {
        let (operator, request) = extract_operator(request)?;
        respond(&operator.origin, async {
            let (id, request_id) = tenant::parse_tenant_change(&request.tenant_id, &request.request_id)?;
            let record = suspend_tenant(&self.0, &operator, id, request.reason, request_id).await?;
            Ok(SuspendTenantResponse { tenant: Some(tenant::to_proto(record)) })
        })
        .await
    }

    async fn resume_tenant(
        &self,
        request: Request<ResumeTenantRequest>,
    ) -> Result<Response<ResumeTenantResponse>, Status> {
        let (operator, request) = extract_operator(request)?;
        respond(&operator.origin, async {
            let (id, request_id) = tenant::parse_tenant_change(&request.tenant_id, &request.request_id)?;
            let record = resume_tenant(&self.0, &operator, id, request_id).await?;
            Ok(ResumeTenantResponse { tenant: Some(tenant::to_proto(record)) })
        })
        .await
    }

    async fn delete_tenant(
        &self,
        request: Request<DeleteTenantRequest>,
    ) -> Result<Response<DeleteTenantResponse>, Status> {
        let (operator, request) = extract_operator(request)?;
        respond(&operator.origin, async {
            let (id, request_id) = tenant::parse_tenant_change(&request.tenant_id, &request.request_id)?;
            let deleted = delete_tenant(&self.0, &operator, id, request.dry_run, request_id).await?;
            let plan = Some(tenant::deletion_plan_to_proto(&deleted.plan));
            Ok(DeleteTenantResponse { tenant: Some(tenant::to_proto(deleted.tenant)), plan })
        })
        .await
    }

    type ExportTenantStream = Pin<Box<dyn Stream<Item = Result<ExportTenantResponse, Status>> + Send>>;

    async fn export_tenant(
        &self,
        request: Request<ExportTenantRequest>,
    ) -> Result<Response<Self::ExportTenantStream>, Status> {
        let (operator, request) = extract_operator(request)?;
        let call_id = operator.origin.call_id.clone();
        respond(&operator.origin, async {
            let (id, _) = tenant::parse_tenant_change(&request.tenant_id, "")?;
            let records = export_tenant(&self.0, &operator, id).await?;
            let responses = records.map(move |record| {
                record.map(tenant::export_record_to_proto).map_err(|error| status(&error, &call_id))
            });
            Ok(responses.boxed() as Self::ExportTenantStream)
        })
        .await
    }
}
