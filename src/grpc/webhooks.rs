//! The gRPC adapter of `WebhookService`: each RPC decodes the request, calls a use case and encodes the
//! response.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{extract_caller, respond},
    convert::webhook,
};
use crate::{
    app::{
        App,
        webhooks::{
            create::create_webhook,
            delete::delete_webhook,
            deliveries,
            get::{get_webhook, list_webhooks},
            rotate_secret::rotate_webhook_secret,
            update::update_webhook,
        },
    },
    proto::v1::{
        CreateWebhookRequest, CreateWebhookResponse, DeleteWebhookRequest, DeleteWebhookResponse,
        GetWebhookRequest, GetWebhookResponse, ListWebhookDeliveriesRequest, ListWebhookDeliveriesResponse,
        ListWebhooksRequest, ListWebhooksResponse, RedeliverWebhookRequest, RedeliverWebhookResponse,
        RotateWebhookSecretRequest, RotateWebhookSecretResponse, UpdateWebhookRequest, UpdateWebhookResponse,
        webhook_service_server::WebhookService,
    },
};

pub(super) struct Webhooks(pub(super) Arc<App>);

#[async_trait]
impl WebhookService for Webhooks {
    async fn create_webhook(
        &self,
        request: Request<CreateWebhookRequest>,
    ) -> Result<Response<CreateWebhookResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let (change, request_id) = webhook::create_request_from_proto(request)?;
            let created = create_webhook(&self.0, &caller, change, request_id).await?;
            let secret = created.secret.text().to_owned();
            Ok(CreateWebhookResponse { webhook: Some(webhook::to_proto(created.webhook)), secret })
        })
        .await
    }

    async fn get_webhook(
        &self,
        request: Request<GetWebhookRequest>,
    ) -> Result<Response<GetWebhookResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let id = webhook::parse_webhook_id(&request.webhook_id)?;
            let stored = get_webhook(&self.0, &caller, id).await?;
            Ok(GetWebhookResponse { webhook: Some(webhook::to_proto(stored)) })
        })
        .await
    }

    async fn list_webhooks(
        &self,
        request: Request<ListWebhooksRequest>,
    ) -> Result<Response<ListWebhooksResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let listed = list_webhooks(&self.0, &caller, request.page_size, &request.page_token).await?;
            Ok(ListWebhooksResponse {
                webhooks: listed.webhooks.into_iter().map(webhook::to_proto).collect(),
                next_page_token: listed.next_page_token,
            })
        })
        .await
    }

    async fn update_webhook(
        &self,
        request: Request<UpdateWebhookRequest>,
    ) -> Result<Response<UpdateWebhookResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let updated =
                update_webhook(&self.0, &caller, webhook::update_request_from_proto(request)?).await?;
            Ok(UpdateWebhookResponse { webhook: Some(webhook::to_proto(updated)) })
        })
        .await
    }

    async fn delete_webhook(
        &self,
        request: Request<DeleteWebhookRequest>,
    ) -> Result<Response<DeleteWebhookResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let (id, request_id) = webhook::parse_webhook_change(&request.webhook_id, &request.request_id)?;
            delete_webhook(&self.0, &caller, id, request_id).await?;
            Ok(DeleteWebhookResponse {})
        })
        .await
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<RotateWebhookSecretRequest>,
    ) -> Result<Response<RotateWebhookSecretResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let (id, request_id) = webhook::parse_webhook_change(&request.webhook_id, &request.request_id)?;
            let rotated = rotate_webhook_secret(&self.0, &caller, id, request_id).await?;
            let secret = rotated.secret.text().to_owned();
            Ok(RotateWebhookSecretResponse { webhook: Some(webhook::to_proto(rotated.webhook)), secret })
        })
        .await
    }

    async fn list_webhook_deliveries(
        &self,
        request: Request<ListWebhookDeliveriesRequest>,
    ) -> Result<Response<ListWebhookDeliveriesResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let id = webhook::parse_webhook_id(&request.webhook_id)?;
            let (page_size, page_token) = (request.page_size, request.page_token.as_str());
            let page =
                deliveries::list_failed_deliveries(&self.0, &caller, id, page_size, page_token).await?;
            Ok(ListWebhookDeliveriesResponse {
                deliveries: page.deliveries.into_iter().map(webhook::delivery_to_proto).collect(),
                next_page_token: page.next_page_token,
            })
        })
        .await
    }

    async fn redeliver_webhook(
        &self,
        request: Request<RedeliverWebhookRequest>,
    ) -> Result<Response<RedeliverWebhookResponse>, Status> {
        let (caller, request) = extract_caller(request)?;
        respond(&caller.origin, async {
            let ((id, position), request_id) = webhook::redeliver_request_from_proto(&request)?;
            deliveries::redeliver_event(&self.0, &caller, id, position, request_id).await?;
            Ok(RedeliverWebhookResponse {})
        })
        .await
    }
}
