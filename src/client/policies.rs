//! Calls to `PolicyService`: the policy of a tenant and its categories.

use super::{connection::Client, error::ClientError, randomness::fill_request_id};
use crate::proto::v1::{
    CreateCategoryRequest, CreateCategoryResponse, DeleteCategoryRequest, DeleteCategoryResponse,
    GetPolicyRequest, GetPolicyResponse, UpdateCategoryRequest, UpdateCategoryResponse,
};

impl Client {
    /// Returns the policy of the caller's tenant.
    pub async fn get_policy(&self, request: GetPolicyRequest) -> Result<GetPolicyResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.policies.get_policy(request).await }).await
    }

    /// Creates a category. Safe to retry: a missing request id is generated.
    pub async fn create_category(
        &self,
        mut request: CreateCategoryRequest,
    ) -> Result<CreateCategoryResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.policies.create_category(request).await })
            .await
    }

    /// Updates a category. Safe to retry: a missing request id is generated.
    pub async fn update_category(
        &self,
        mut request: UpdateCategoryRequest,
    ) -> Result<UpdateCategoryResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.policies.update_category(request).await })
            .await
    }

    /// Deletes a category. Safe to retry: a missing request id is generated.
    pub async fn delete_category(
        &self,
        mut request: DeleteCategoryRequest,
    ) -> Result<DeleteCategoryResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.policies.delete_category(request).await })
            .await
    }
}
