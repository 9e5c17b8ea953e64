//! The adapter of `PolicyService`: each RPC decodes the request, calls a use case and encodes the response.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{CallerCall, extract_caller, respond},
    convert::policy,
};
use crate::{
    app::{App, policies},
    proto::v1::{self, policy_service_server::PolicyService},
};

pub(super) struct Policies(pub(super) Arc<App>);

#[async_trait]
impl PolicyService for Policies {
    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        let CallerCall { caller, .. } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let stored = policies::get_policy(&self.0, &caller).await?;
            Ok(v1::GetPolicyResponse { policy: Some(policy::to_proto(stored)) })
        })
        .await
    }

    async fn create_category(
        &self,
        request: Request<v1::CreateCategoryRequest>,
    ) -> Result<Response<v1::CreateCategoryResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let stored =
                policies::create_category(&self.0, &caller, policy::create_request_from_proto(request)?)
                    .await?;
            Ok(v1::CreateCategoryResponse { policy: Some(policy::to_proto(stored)) })
        })
        .await
    }

    async fn update_category(
        &self,
        request: Request<v1::UpdateCategoryRequest>,
    ) -> Result<Response<v1::UpdateCategoryResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let stored =
                policies::update_category(&self.0, &caller, policy::update_request_from_proto(request)?)
                    .await?;
            Ok(v1::UpdateCategoryResponse { policy: Some(policy::to_proto(stored)) })
        })
        .await
    }

    async fn delete_category(
        &self,
        request: Request<v1::DeleteCategoryRequest>,
    ) -> Result<Response<v1::DeleteCategoryResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let stored =
                policies::delete_category(&self.0, &caller, policy::delete_request_from_proto(request)?)
                    .await?;
            Ok(v1::DeleteCategoryResponse { policy: Some(policy::to_proto(stored)) })
        })
        .await
    }
}
