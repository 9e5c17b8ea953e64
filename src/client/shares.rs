//! Calls to `ShareService`: access to single files.

use super::{connection::Client, error::ClientError, randomness::fill_request_id};
use crate::proto::v1::{
    CheckAccessRequest, CheckAccessResponse, CreateShareRequest, CreateShareResponse, GetShareRequest,
    GetShareResponse, GrantAccessRequest, GrantAccessResponse, ListGrantsRequest, ListGrantsResponse,
    ListSharesRequest, ListSharesResponse, RevokeAccessRequest, RevokeAccessResponse, RevokeShareRequest,
    RevokeShareResponse, RotateShareTokenRequest, RotateShareTokenResponse, UpdateShareRequest,
    UpdateShareResponse,
};

impl Client {
    /// Shares a file. Only this response contains the token of a link. Safe to retry: a missing request id is
    /// generated.
    pub async fn create_share(
        &self,
        mut request: CreateShareRequest,
    ) -> Result<CreateShareResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.shares.create_share(request).await }).await
    }

    /// Returns one share.
    pub async fn get_share(&self, request: GetShareRequest) -> Result<GetShareResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.shares.get_share(request).await }).await
    }

    /// Returns one page of shares.
    pub async fn list_shares(&self, request: ListSharesRequest) -> Result<ListSharesResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.shares.list_shares(request).await }).await
    }

    /// Updates the terms of a share. Safe to retry: a missing request id is generated.
    pub async fn update_share(
        &self,
        mut request: UpdateShareRequest,
    ) -> Result<UpdateShareResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.shares.update_share(request).await }).await
    }

    /// Revokes a share. Safe to retry: a missing request id is generated.
    pub async fn revoke_share(
        &self,
        mut request: RevokeShareRequest,
    ) -> Result<RevokeShareResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.shares.revoke_share(request).await }).await
    }

    /// Replaces the token of a link. Safe to retry: a missing request id is generated.
    pub async fn rotate_share_token(
        &self,
        mut request: RotateShareTokenRequest,
    ) -> Result<RotateShareTokenResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.shares.rotate_share_token(request).await })
            .await
    }

    /// Gives a user or a group a permission on a file. Safe to retry: a missing request id is generated.
    pub async fn grant_access(
        &self,
        mut request: GrantAccessRequest,
    ) -> Result<GrantAccessResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.shares.grant_access(request).await }).await
    }

    /// Revokes the permission of a user or a group on a file. Safe to retry: a missing request id is generated.
    pub async fn revoke_access(
        &self,
        mut request: RevokeAccessRequest,
    ) -> Result<RevokeAccessResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.shares.revoke_access(request).await }).await
    }

    /// Returns one page of the grants of a file.
    pub async fn list_grants(&self, request: ListGrantsRequest) -> Result<ListGrantsResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.shares.list_grants(request).await }).await
    }

    /// Reports whether a caller may perform an operation on a file.
    pub async fn check_access(
        &self,
        request: CheckAccessRequest,
    ) -> Result<CheckAccessResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.shares.check_access(request).await }).await
    }
}
