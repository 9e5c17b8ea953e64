//! The gRPC adapter of `ShareService`: each RPC decodes the request, calls a use case and encodes the response.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{CallerCall, extract_caller, respond},
    convert::{access_log, grant, share, visit, watch},
    downloads::{DownloadStream, Downloads, StreamedBytes},
    visitor::extract_visitor,
};
use crate::{
    app::{App, access_log::list_access, grants, shares, visitors},
    proto::v1::{self, share_service_server::ShareService},
};

pub(super) struct Shares {
    pub(super) app: Arc<App>,
    pub(super) downloads: Downloads,
}

#[async_trait]
impl ShareService for Shares {
    type DownloadShareStream = DownloadStream<v1::DownloadShareResponse>;

    async fn create_share(
        &self,
        request: Request<v1::CreateShareRequest>,
    ) -> Result<Response<v1::CreateShareResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = share::create_request_from_proto(request)?;
            let created = shares::create_share(&self.app, &caller, request).await?;
            let token = share::token_to_proto(created.token.as_ref());
            Ok(v1::CreateShareResponse { share: Some(share::to_proto(created.share, self.app.now())), token })
        })
        .await
    }

    async fn get_share(
        &self,
        request: Request<v1::GetShareRequest>,
    ) -> Result<Response<v1::GetShareResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let id = share::parse_share_id(&request.share_id)?;
            let stored = shares::get_share(&self.app, &caller, id).await?;
            Ok(v1::GetShareResponse { share: Some(share::to_proto(stored, self.app.now())) })
        })
        .await
    }

    async fn list_shares(
        &self,
        request: Request<v1::ListSharesRequest>,
    ) -> Result<Response<v1::ListSharesResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = share::list_request_from_proto(request)?;
            let page = shares::list_shares(&self.app, &caller, request).await?;
            let now = self.app.now();
            Ok(v1::ListSharesResponse {
                shares: page.shares.into_iter().map(|stored| share::to_proto(stored, now)).collect(),
                next_page_token: page.next_page_token,
            })
        })
        .await
    }

    async fn update_share(
        &self,
        request: Request<v1::UpdateShareRequest>,
    ) -> Result<Response<v1::UpdateShareResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let update = share::update_request_from_proto(request)?;
            let updated = shares::update_share(&self.app, &caller, update).await?;
            Ok(v1::UpdateShareResponse { share: Some(share::to_proto(updated, self.app.now())) })
        })
        .await
    }

    async fn revoke_share(
        &self,
        request: Request<v1::RevokeShareRequest>,
    ) -> Result<Response<v1::RevokeShareResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let ids = share::parse_share_change(&request.share_id, &request.request_id)?;
            let revoked = shares::revoke_share(&self.app, &caller, ids.share, ids.request).await?;
            Ok(v1::RevokeShareResponse { share: Some(share::to_proto(revoked, self.app.now())) })
        })
        .await
    }

    async fn rotate_share_token(
        &self,
        request: Request<v1::RotateShareTokenRequest>,
    ) -> Result<Response<v1::RotateShareTokenResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let ids = share::parse_share_change(&request.share_id, &request.request_id)?;
            let rotated = shares::rotate_share_token(&self.app, &caller, ids.share, ids.request).await?;
            let token = share::token_to_proto(rotated.token.as_ref());
            Ok(v1::RotateShareTokenResponse {
                share: Some(share::to_proto(rotated.share, self.app.now())),
                token,
            })
        })
        .await
    }

    async fn grant_access(
        &self,
        request: Request<v1::GrantAccessRequest>,
    ) -> Result<Response<v1::GrantAccessResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = grant::grant_request_from_proto(request)?;
            let granted = grants::grant_access(&self.app, &caller, request).await?;
            Ok(v1::GrantAccessResponse {
                grant: Some(grant::to_proto(granted.grant)),
                event_position: watch::position_to_proto(granted.event),
            })
        })
        .await
    }

    async fn revoke_access(
        &self,
        request: Request<v1::RevokeAccessRequest>,
    ) -> Result<Response<v1::RevokeAccessResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = grant::revoke_request_from_proto(request)?;
            let revoked = grants::revoke_access(&self.app, &caller, request).await?;
            Ok(v1::RevokeAccessResponse {
                revoked_grant_count: revoked.grant_count,
                event_position: watch::position_to_proto(revoked.event),
            })
        })
        .await
    }

    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let page =
                grants::list_grants(&self.app, &caller, grant::list_request_from_proto(request)?).await?;
            Ok(v1::ListGrantsResponse {
                grants: page.grants.into_iter().map(grant::to_proto).collect(),
                next_page_token: page.next_page_token,
            })
        })
        .await
    }

    async fn check_access(
        &self,
        request: Request<v1::CheckAccessRequest>,
    ) -> Result<Response<v1::CheckAccessResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let question = grant::question_from_proto(request)?;
            let report = grants::check_access(&self.app, &caller, question).await?;
            Ok(grant::report_to_proto(report))
        })
        .await
    }

    async fn list_share_access(
        &self,
        request: Request<v1::ListShareAccessRequest>,
    ) -> Result<Response<v1::ListShareAccessResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = access_log::share_request_from_proto(request)?;
            let page = list_access(&self.app, &caller, request).await?;
            Ok(access_log::share_page_to_proto(page))
        })
        .await
    }

    async fn list_file_access(
        &self,
        request: Request<v1::ListFileAccessRequest>,
    ) -> Result<Response<v1::ListFileAccessResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = access_log::file_request_from_proto(request)?;
            let page = list_access(&self.app, &caller, request).await?;
            Ok(access_log::file_page_to_proto(page))
        })
        .await
    }

    async fn resolve_share(
        &self,
        request: Request<v1::ResolveShareRequest>,
    ) -> Result<Response<v1::ResolveShareResponse>, Status> {
        let (visitor, request) = extract_visitor(request)?;
        let origin = visitor.client.origin.clone();
        respond(&origin, async {
            let request = visit::resolve_from_proto(request)?;
            visitors::resolve_share(&self.app, visitor, request).await.map(visit::resolved_to_proto)
        })
        .await
    }

    async fn download_share(
        &self,
        request: Request<v1::DownloadShareRequest>,
    ) -> Result<Response<Self::DownloadShareStream>, Status> {
        let (visitor, request) = extract_visitor(request)?;
        let visitor = Arc::new(visitor);
        respond(&visitor.client.origin, async {
            let request = visit::download_from_proto(request)?;
            let admitted = visitors::admit_grant(&self.app, &visitor, &request).await?;
            let slot = self.downloads.acquire_slot_of(admitted.holder())?;
            let download =
                visitors::download_share(&self.app, Arc::clone(&visitor), admitted, request).await?;
            let header = visit::header_to_proto(&download);
            let bytes = StreamedBytes { range: download.range, bytes: download.bytes };
            Ok(self.downloads.start_sending(slot, header, bytes, &visitor.client.origin))
        })
        .await
    }
}
