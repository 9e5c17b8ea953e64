//! The gRPC adapter of `WebhookService`: each RPC decodes the request, calls a use case and encodes the
//! response.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{CallerCall, extract_caller, respond},
    convert::webhook::{self, RedeliverRequest},
};
use crate::{
    app::{App, webhooks},
    proto::v1::{self, webhook_service_server::WebhookService},
};

pub(super) struct Webhooks(pub(super) Arc<App>);

#[async_trait]
impl WebhookService for Webhooks {
    async fn create_webhook(
        &self,
        request: Request<v1::CreateWebhookRequest>,
    ) -> Result<Response<v1::CreateWebhookResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let request = webhook::create_request_from_proto(request)?;
            let created =
                webhooks::create_webhook(&self.0, &caller, request.change, request.request_id).await?;
            let secret = created.secret.text().to_owned();
            Ok(v1::CreateWebhookResponse { webhook: Some(webhook::to_proto(created.webhook)), secret })
        })
        .await
    }

    async fn get_webhook(
        &self,
        request: Request<v1::GetWebhookRequest>,
    ) -> Result<Response<v1::GetWebhookResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let id = webhook::parse_webhook_id(&request.webhook_id)?;
            let stored = webhooks::get_webhook(&self.0, &caller, id).await?;
            Ok(v1::GetWebhookResponse { webhook: Some(webhook::to_proto(stored)) })
        })
        .await
    }

    async fn list_webhooks(
        &self,
        request: Request<v1::ListWebhooksRequest>,
    ) -> Result<Response<v1::ListWebhooksResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let listed =
                webhooks::list_webhooks(&self.0, &caller, request.page_size, &request.page_token).await?;
            Ok(v1::ListWebhooksResponse {
                webhooks: listed.webhooks.into_iter().map(webhook::to_proto).collect(),
                next_page_token: listed.next_page_token,
            })
        })
        .await
    }

    async fn update_webhook(
        &self,
        request: Request<v1::UpdateWebhookRequest>,
    ) -> Result<Response<v1::UpdateWebhookResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let updated =
                webhooks::update_webhook(&self.0, &caller, webhook::update_request_from_proto(request)?)
                    .await?;
            Ok(v1::UpdateWebhookResponse { webhook: Some(webhook::to_proto(updated)) })
        })
        .await
    }

    async fn delete_webhook(
        &self,
        request: Request<v1::DeleteWebhookRequest>,
    ) -> Result<Response<v1::DeleteWebhookResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let ids = webhook::parse_webhook_change(&request.webhook_id, &request.request_id)?;
            webhooks::delete_webhook(&self.0, &caller, ids.webhook, ids.request).await?;
            Ok(v1::DeleteWebhookResponse {})
        })
        .await
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<v1::RotateWebhookSecretRequest>,
    ) -> Result<Response<v1::RotateWebhookSecretResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let ids = webhook::parse_webhook_change(&request.webhook_id, &request.request_id)?;
            let rotated = webhooks::rotate_webhook_secret(&self.0, &caller, ids.webhook, ids.request).await?;
            let secret = rotated.secret.text().to_owned();
            Ok(v1::RotateWebhookSecretResponse { webhook: Some(webhook::to_proto(rotated.webhook)), secret })
        })
        .await
    }

    async fn list_webhook_deliveries(
        &self,
        request: Request<v1::ListWebhookDeliveriesRequest>,
    ) -> Result<Response<v1::ListWebhookDeliveriesResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let id = webhook::parse_webhook_id(&request.webhook_id)?;
            let (page_size, page_token) = (request.page_size, request.page_token.as_str());
            let page = webhooks::list_failed_deliveries(&self.0, &caller, id, page_size, page_token).await?;
            Ok(v1::ListWebhookDeliveriesResponse {
                deliveries: page.deliveries.into_iter().map(webhook::delivery_to_proto).collect(),
                next_page_token: page.next_page_token,
            })
        })
        .await
    }

    async fn redeliver_webhook(
        &self,
        request: Request<v1::RedeliverWebhookRequest>,
    ) -> Result<Response<v1::RedeliverWebhookResponse>, Status> {
        let CallerCall { caller, request } = extract_caller(request).await?;
        respond(&caller.origin, async {
            let RedeliverRequest { ids, position } = webhook::redeliver_request_from_proto(&request)?;
            webhooks::redeliver_event(&self.0, &caller, ids.webhook, position, ids.request).await?;
            Ok(v1::RedeliverWebhookResponse {})
        })
        .await
    }
}
