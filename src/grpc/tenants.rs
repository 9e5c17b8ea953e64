//! `TenantService` of the administration: decode, call the use case, encode.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{answer, operator},
    convert::{
        self,
        tenant::{creation, exported, named, page_token, tenant},
    },
    status::status,
};
use crate::{
    app::{
        App,
        tenants::{
            create::create, delete::delete, export::export, get::get, list::list, resume::resume,
            suspend::suspend, update::update,
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

/// The adapter of the tenant service.
pub(super) struct Tenants(pub(super) Arc<App>);

#[async_trait]
impl TenantService for Tenants {
    async fn create_tenant(
        &self,
        request: Request<CreateTenantRequest>,
    ) -> Result<Response<CreateTenantResponse>, Status> {
        let (operator, request) = operator(request)?;
        answer(&operator.origin, async {
            let created = create(&self.0, &operator, creation(request)?).await?;
            Ok(CreateTenantResponse { tenant: Some(tenant(created)) })
        })
        .await
    }

    async fn get_tenant(
        &self,
        request: Request<GetTenantRequest>,
    ) -> Result<Response<GetTenantResponse>, Status> {
        let (operator, request) = operator(request)?;
        answer(&operator.origin, async {
            let (id, _) = named(&request.tenant_id, "")?;
            let record = get(&self.0, &operator, id).await?;
            Ok(GetTenantResponse { tenant: Some(tenant(record)) })
        })
        .await
    }

    async fn list_tenants(
        &self,
        request: Request<ListTenantsRequest>,
    ) -> Result<Response<ListTenantsResponse>, Status> {
        let (operator, request) = operator(request)?;
        answer(&operator.origin, async {
            let after = page_token(&request.page_token)?;
            let listed = list(&self.0, &operator, request.page_size, after).await?;
            Ok(ListTenantsResponse {
                tenants: listed.tenants.into_iter().map(tenant).collect(),
                next_page_token: listed.next.map(|id| id.to_string()).unwrap_or_default(),
            })
        })
        .await
    }

    async fn update_tenant(
        &self,
        request: Request<UpdateTenantRequest>,
    ) -> Result<Response<UpdateTenantResponse>, Status> {
        let (operator, request) = operator(request)?;
        answer(&operator.origin, async {
            let (id, change) = convert::tenant::update(&request)?;
            let updated = update(&self.0, &operator, id, change).await?;
            let quota = Some(convert::quota::quota(&updated.quota));
            Ok(UpdateTenantResponse { tenant: Some(tenant(updated.tenant)), quota })
        })
        .await
    }

    async fn suspend_tenant(
        &self,
        request: Request<SuspendTenantRequest>,
    ) -> Result<Response<SuspendTenantResponse>, Status> {
        let (operator, request) = operator(request)?;
        answer(&operator.origin, async {
            let (id, request_id) = named(&request.tenant_id, &request.request_id)?;
            let record = suspend(&self.0, &operator, id, (request.reason, request_id)).await?;
            Ok(SuspendTenantResponse { tenant: Some(tenant(record)) })
        })
        .await
    }

    async fn resume_tenant(
        &self,
        request: Request<ResumeTenantRequest>,
    ) -> Result<Response<ResumeTenantResponse>, Status> {
        let (operator, request) = operator(request)?;
        answer(&operator.origin, async {
            let (id, request_id) = named(&request.tenant_id, &request.request_id)?;
            let record = resume(&self.0, &operator, id, request_id).await?;
            Ok(ResumeTenantResponse { tenant: Some(tenant(record)) })
        })
        .await
    }

    async fn delete_tenant(
        &self,
        request: Request<DeleteTenantRequest>,
    ) -> Result<Response<DeleteTenantResponse>, Status> {
        let (operator, request) = operator(request)?;
        answer(&operator.origin, async {
            let (id, request_id) = named(&request.tenant_id, &request.request_id)?;
            let deleted = delete(&self.0, &operator, id, (request.dry_run, request_id)).await?;
            let plan = Some(convert::tenant::plan(&deleted.plan));
            Ok(DeleteTenantResponse { tenant: Some(tenant(deleted.tenant)), plan })
        })
        .await
    }

    type ExportTenantStream = Pin<Box<dyn Stream<Item = Result<ExportTenantResponse, Status>> + Send>>;

    async fn export_tenant(
        &self,
        request: Request<ExportTenantRequest>,
    ) -> Result<Response<Self::ExportTenantStream>, Status> {
        let (operator, request) = operator(request)?;
        let call_id = operator.origin.call_id.clone();
        answer(&operator.origin, async {
            let (id, _) = named(&request.tenant_id, "")?;
            let records = export(&self.0, &operator, id).await?;
            let told =
                records.map(move |record| record.map(exported).map_err(|error| status(&error, &call_id)));
            Ok(told.boxed() as Self::ExportTenantStream)
        })
        .await
    }
}
