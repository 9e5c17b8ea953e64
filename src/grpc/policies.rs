//! The adapter of `PolicyService`: each RPC decodes the request, calls a use case and encodes the response.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{extract_caller, respond},
    convert::policy,
};
use crate::{
    app::{
        App,
        policies::{
            create_category::create_category, delete_category::delete_category, get::get_policy,
            update_category::update_category,
        },
    },
    proto::v1::{
        CreateCategoryRequest, CreateCategoryResponse, DeleteCategoryRequest, DeleteCategoryResponse,
        GetPolicyRequest, GetPolicyResponse, UpdateCategoryRequest, UpdateCategoryResponse,
        policy_service_server::PolicyService,
    },
};

pub(super) struct Policies(pub(super) Arc<App>);

#[async_trait]
impl PolicyService for Policies {
    async fn get_policy(
        &self,
        request: Request<GetPolicyRequest>,
    ) -> Result<Response<GetPolicyResponse>, Status> {
        let (caller, _) = extract_caller(request)?;
        respond(&caller.origin, async {
            let stored = get_policy(&self.0, &caller).await?;
            Ok(GetPolicyResponse { policy: Some(policy::to_proto(stored)) })
        })
        .await
    }

    async fn create_category(
        &self,
        request: Request<CreateCategoryRequest>,
    ) -> Result<Response<CreateCategoryResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let stored =
                create_category(&self.0, &caller, policy::create_request_from_proto(request)?).await?;
            Ok(CreateCategoryResponse { policy: Some(policy::to_proto(stored)) })
        })
        .await
    }

    async fn update_category(
        &self,
        request: Request<UpdateCategoryRequest>,
    ) -> Result<Response<UpdateCategoryResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let stored =
                update_category(&self.0, &caller, policy::update_request_from_proto(request)?).await?;
            Ok(UpdateCategoryResponse { policy: Some(policy::to_proto(stored)) })
        })
        .await
    }

    async fn delete_category(
        &self,
        request: Request<DeleteCategoryRequest>,
    ) -> Result<Response<DeleteCategoryResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let stored =
                delete_category(&self.0, &caller, policy::delete_request_from_proto(request)?).await?;
            Ok(DeleteCategoryResponse { policy: Some(policy::to_proto(stored)) })
        })
        .await
    }
}
