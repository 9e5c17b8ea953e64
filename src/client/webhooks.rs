//! Endpoints that events are sent to.

use super::{connection::Client, error::ClientError, randomness::fill_request_id};
use crate::proto::v1::{
    CreateWebhookRequest, CreateWebhookResponse, DeleteWebhookRequest, DeleteWebhookResponse,
    GetWebhookRequest, GetWebhookResponse, ListWebhookDeliveriesRequest, ListWebhookDeliveriesResponse,
    ListWebhooksRequest, ListWebhooksResponse, RedeliverWebhookRequest, RedeliverWebhookResponse,
    RotateWebhookSecretRequest, RotateWebhookSecretResponse, UpdateWebhookRequest, UpdateWebhookResponse,
};

impl Client {
    /// Makes an endpoint; the answer shows its secret, this once. Safe to repeat; a request id is minted where there is none.
    pub async fn create_webhook(
        &self,
        mut request: CreateWebhookRequest,
    ) -> Result<CreateWebhookResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut to, request| async move { to.webhooks.create_webhook(request).await }).await
    }

    /// Returns an endpoint.
    pub async fn get_webhook(&self, request: GetWebhookRequest) -> Result<GetWebhookResponse, ClientError> {
        self.call(request, |mut to, request| async move { to.webhooks.get_webhook(request).await }).await
    }

    /// Returns all endpoints.
    pub async fn list_webhooks(
        &self,
        request: ListWebhooksRequest,
    ) -> Result<ListWebhooksResponse, ClientError> {
        self.call(request, |mut to, request| async move { to.webhooks.list_webhooks(request).await }).await
    }

    /// Changes an endpoint. Safe to repeat; a request id is minted where there is none.
    pub async fn update_webhook(
        &self,
        mut request: UpdateWebhookRequest,
    ) -> Result<UpdateWebhookResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut to, request| async move { to.webhooks.update_webhook(request).await }).await
    }

    /// Removes an endpoint. Safe to repeat; a request id is minted where there is none.
    pub async fn delete_webhook(
        &self,
        mut request: DeleteWebhookRequest,
    ) -> Result<DeleteWebhookResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut to, request| async move { to.webhooks.delete_webhook(request).await }).await
    }

    /// Gives an endpoint another secret. Safe to repeat; a request id is minted where there is none.
    pub async fn rotate_webhook_secret(
        &self,
        mut request: RotateWebhookSecretRequest,
    ) -> Result<RotateWebhookSecretResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut to, request| async move { to.webhooks.rotate_webhook_secret(request).await })
            .await
    }

    /// Returns a page of what could not be delivered.
    pub async fn list_webhook_deliveries(
        &self,
        request: ListWebhookDeliveriesRequest,
    ) -> Result<ListWebhookDeliveriesResponse, ClientError> {
        self.call(
            request,
            |mut to, request| async move { to.webhooks.list_webhook_deliveries(request).await },
        )
        .await
    }

    /// Sends a dead letter once more. Safe to repeat; a request id is minted where there is none.
    pub async fn redeliver_webhook(
        &self,
        mut request: RedeliverWebhookRequest,
    ) -> Result<RedeliverWebhookResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        self.call(request, |mut to, request| async move { to.webhooks.redeliver_webhook(request).await })
            .await
    }
}
