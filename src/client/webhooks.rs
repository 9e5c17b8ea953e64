//! Calls to `WebhookService`: endpoints that events are sent to.

use super::{connection::Client, error::ClientError, randomness::fill_request_id};
use crate::proto::v1::{
    CreateWebhookRequest, CreateWebhookResponse, DeleteWebhookRequest, DeleteWebhookResponse,
    GetWebhookRequest, GetWebhookResponse, ListWebhookDeliveriesRequest, ListWebhookDeliveriesResponse,
    ListWebhooksRequest, ListWebhooksResponse, RedeliverWebhookRequest, RedeliverWebhookResponse,
    RotateWebhookSecretRequest, RotateWebhookSecretResponse, UpdateWebhookRequest, UpdateWebhookResponse,
};

impl Client {
    /// Creates a webhook. Only this response contains its secret. Safe to retry: a missing request id is
    /// generated.
    pub async fn create_webhook(
        &self,
        mut request: CreateWebhookRequest,
    ) -> Result<CreateWebhookResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.webhooks.create_webhook(request).await }).await
    }

    /// Returns one webhook.
    pub async fn get_webhook(&self, request: GetWebhookRequest) -> Result<GetWebhookResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.webhooks.get_webhook(request).await }).await
    }

    /// Returns one page of webhooks.
    pub async fn list_webhooks(
        &self,
        request: ListWebhooksRequest,
    ) -> Result<ListWebhooksResponse, ClientError> {
        self.call(request, |mut api, request| async move { api.webhooks.list_webhooks(request).await }).await
    }

    /// Updates a webhook. Safe to retry: a missing request id is generated.
    pub async fn update_webhook(
        &self,
        mut request: UpdateWebhookRequest,
    ) -> Result<UpdateWebhookResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.webhooks.update_webhook(request).await }).await
    }

    /// Deletes a webhook. Safe to retry: a missing request id is generated.
    pub async fn delete_webhook(
        &self,
        mut request: DeleteWebhookRequest,
    ) -> Result<DeleteWebhookResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.webhooks.delete_webhook(request).await }).await
    }

    /// Replaces the secret of a webhook. Safe to retry: a missing request id is generated.
    pub async fn rotate_webhook_secret(
        &self,
        mut request: RotateWebhookSecretRequest,
    ) -> Result<RotateWebhookSecretResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(
            request,
            |mut api, request| async move { api.webhooks.rotate_webhook_secret(request).await },
        )
        .await
    }

    /// Returns one page of failed deliveries.
    pub async fn list_webhook_deliveries(
        &self,
        request: ListWebhookDeliveriesRequest,
    ) -> Result<ListWebhookDeliveriesResponse, ClientError> {
        self.call(
            request,
            |mut api, request| async move { api.webhooks.list_webhook_deliveries(request).await },
        )
        .await
    }

    /// Sends a dead delivery again. Safe to retry: a missing request id is generated.
    pub async fn redeliver_webhook(
        &self,
        mut request: RedeliverWebhookRequest,
    ) -> Result<RedeliverWebhookResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut api, request| async move { api.webhooks.redeliver_webhook(request).await })
            .await
    }
}
