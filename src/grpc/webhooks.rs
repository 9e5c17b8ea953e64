//! `WebhookService`: decode, call the use case, encode.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::{
    call::{answer, caller},
    convert::webhook::{self, shown},
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

/// The adapter of the webhook service.
pub(super) struct Webhooks(pub(super) Arc<App>);

#[async_trait]
impl WebhookService for Webhooks {
    async fn create_webhook(
        &self,
        request: Request<CreateWebhookRequest>,
    ) -> Result<Response<CreateWebhookResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (change, request_id) = webhook::create(request)?;
            let made = create_webhook(&self.0, &caller, change, request_id).await?;
            let secret = made.secret.text().to_owned();
            Ok(CreateWebhookResponse { webhook: Some(shown(made.webhook)), secret })
        })
        .await
    }

    async fn get_webhook(
        &self,
        request: Request<GetWebhookRequest>,
    ) -> Result<Response<GetWebhookResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let found = get_webhook(&self.0, &caller, webhook::named(&request.webhook_id)?).await?;
            Ok(GetWebhookResponse { webhook: Some(shown(found)) })
        })
        .await
    }

    async fn list_webhooks(
        &self,
        request: Request<ListWebhooksRequest>,
    ) -> Result<Response<ListWebhooksResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let listed = list_webhooks(&self.0, &caller, request.page_size, &request.page_token).await?;
            Ok(ListWebhooksResponse {
                webhooks: listed.webhooks.into_iter().map(shown).collect(),
                next_page_token: listed.next_page_token,
            })
        })
        .await
    }

    async fn update_webhook(
        &self,
        request: Request<UpdateWebhookRequest>,
    ) -> Result<Response<UpdateWebhookResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let updated = update_webhook(&self.0, &caller, webhook::update(request)?).await?;
            Ok(UpdateWebhookResponse { webhook: Some(shown(updated)) })
        })
        .await
    }

    async fn delete_webhook(
        &self,
        request: Request<DeleteWebhookRequest>,
    ) -> Result<Response<DeleteWebhookResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (id, request_id) = webhook::change(&request.webhook_id, &request.request_id)?;
            delete_webhook(&self.0, &caller, id, request_id).await?;
            Ok(DeleteWebhookResponse {})
        })
        .await
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<RotateWebhookSecretRequest>,
    ) -> Result<Response<RotateWebhookSecretResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (id, request_id) = webhook::change(&request.webhook_id, &request.request_id)?;
            let made = rotate_webhook_secret(&self.0, &caller, id, request_id).await?;
            let secret = made.secret.text().to_owned();
            Ok(RotateWebhookSecretResponse { webhook: Some(shown(made.webhook)), secret })
        })
        .await
    }

    async fn list_webhook_deliveries(
        &self,
        request: Request<ListWebhookDeliveriesRequest>,
    ) -> Result<Response<ListWebhookDeliveriesResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let id = webhook::named(&request.webhook_id)?;
            let which = (request.page_size, request.page_token.as_str());
            let page = deliveries::list_failed_deliveries(&self.0, &caller, id, which).await?;
            Ok(ListWebhookDeliveriesResponse {
                deliveries: page.deliveries.into_iter().map(webhook::delivery).collect(),
                next_page_token: page.next_page_token,
            })
        })
        .await
    }

    async fn redeliver_webhook(
        &self,
        request: Request<RedeliverWebhookRequest>,
    ) -> Result<Response<RedeliverWebhookResponse>, Status> {
        let (caller, request) = caller(request)?;
        answer(&caller.origin, async {
            let (which, request_id) = webhook::redelivery(&request)?;
            deliveries::redeliver_event(&self.0, &caller, which, request_id).await?;
            Ok(RedeliverWebhookResponse {})
        })
        .await
    }
}
