//! Calls to `TenantService`, for operators.

use futures::{Stream, TryStreamExt};

use super::{connection::Client, error::ClientError, randomness::fill_request_id};
use crate::proto::admin::v1::{
    ApproveErasureRequest, ApproveErasureResponse, CreateTenantRequest, CreateTenantResponse,
    DeleteTenantRequest, DeleteTenantResponse, ExportTenantRequest, ExportTenantResponse, GetTenantRequest,
    GetTenantResponse, ListErasuresRequest, ListErasuresResponse, ListTenantsRequest, ListTenantsResponse,
    ReclaimTenantRequest, ReclaimTenantResponse, RequestErasureRequest, RequestErasureResponse,
    ResumeTenantRequest, ResumeTenantResponse, SuspendTenantRequest, SuspendTenantResponse,
    UpdateTenantRequest, UpdateTenantResponse,
};

impl Client {
    /// Creates a tenant. Safe to retry: a missing request id is generated.
    pub async fn create_tenant(
        &self,
        mut request: CreateTenantRequest,
    ) -> Result<CreateTenantResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.tenants.create_tenant(request).await }).await
    }

    /// Returns the record of a tenant.
    pub async fn get_tenant(&self, request: GetTenantRequest) -> Result<GetTenantResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.tenants.get_tenant(request).await }).await
    }

    /// Returns one page of tenants.
    pub async fn list_tenants(
        &self,
        request: ListTenantsRequest,
    ) -> Result<ListTenantsResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.tenants.list_tenants(request).await }).await
    }

    /// Updates the ceilings of a tenant. Safe to retry: a missing request id is generated.
    pub async fn update_tenant(
        &self,
        mut request: UpdateTenantRequest,
    ) -> Result<UpdateTenantResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.tenants.update_tenant(request).await }).await
    }

    /// Suspends a tenant. Safe to retry: a missing request id is generated.
    pub async fn suspend_tenant(
        &self,
        mut request: SuspendTenantRequest,
    ) -> Result<SuspendTenantResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.tenants.suspend_tenant(request).await }).await
    }

    /// Resumes a suspended tenant. Safe to retry: a missing request id is generated.
    pub async fn resume_tenant(
        &self,
        mut request: ResumeTenantRequest,
    ) -> Result<ResumeTenantResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.tenants.resume_tenant(request).await }).await
    }

    /// Starts the deletion of a tenant. Safe to retry: a missing request id is generated.
    pub async fn delete_tenant(
        &self,
        mut request: DeleteTenantRequest,
    ) -> Result<DeleteTenantResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.tenants.delete_tenant(request).await }).await
    }

    /// Makes the objects of purged files due for deletion. Safe to retry: a missing request id is generated.
    pub async fn reclaim_tenant(
        &self,
        mut request: ReclaimTenantRequest,
    ) -> Result<ReclaimTenantResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.tenants.reclaim_tenant(request).await }).await
    }

    /// Requests an erasure. Safe to retry: a missing request id is generated.
    pub async fn request_erasure(
        &self,
        mut request: RequestErasureRequest,
    ) -> Result<RequestErasureResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.tenants.request_erasure(request).await }).await
    }

    /// Approves an erasure that another operator requested. Safe to retry: a missing request id is generated.
    pub async fn approve_erasure(
        &self,
        mut request: ApproveErasureRequest,
    ) -> Result<ApproveErasureResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.tenants.approve_erasure(request).await }).await
    }

    /// Returns the newest erasures of a tenant.
    pub async fn list_erasures(
        &self,
        request: ListErasuresRequest,
    ) -> Result<ListErasuresResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.tenants.list_erasures(request).await }).await
    }

    /// Exports all records of a tenant as a stream. If the stream ends without an error, the export is
    /// complete. The call is not retried.
    pub async fn export_tenant(
        &self,
        request: ExportTenantRequest,
    ) -> Result<impl Stream<Item = Result<ExportTenantResponse, ClientError>> + Send + use<>, ClientError>
    {
        let mut tenants = self.services.tenants.clone();
        let response = tenants.export_tenant(request).await.map_err(ClientError::from_status)?;
        Ok(response.into_inner().map_err(ClientError::from_status))
    }
}
