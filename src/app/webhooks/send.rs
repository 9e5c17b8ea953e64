//! Sends one message to one endpoint outside private networks.

use reqwest::Client;
use tokio::time::timeout;

use super::message::Message;
use crate::{
    app::outgoing::{build_client, describe_error},
    config::WebhooksConfig,
    domain::outgoing_address::check_url,
};

/// The maximum length of a stored error, in characters.
const ERROR_CHARACTERS_MAX: usize = 300;

/// Sends a message.
///
/// # Errors
/// Returns a description of the failure unless the endpoint returns a 2xx status.
pub(super) async fn send_message(
    config: &WebhooksConfig,
    url: &str,
    message: &Message,
) -> Result<(), String> {
    let sent = timeout(config.timeout(), send_request(config, url, message)).await;
    let error = match sent {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => format!("no response within {} seconds", config.timeout_seconds),
    };
    Err(error.chars().take(ERROR_CHARACTERS_MAX).collect())
}

async fn send_request(config: &WebhooksConfig, url: &str, message: &Message) -> Result<(), String> {
    let url =
        check_url(url, config.allow_private_addresses).map_err(|problem| format!("the URL {problem}"))?;
    let builder = Client::builder().timeout(config.timeout());
    let client = build_client(&url, config.allow_private_addresses, builder).await?;
    let response = client
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", message.timestamp_seconds.to_string())
        .header("webhook-signature", &message.signature)
        .body(message.body.clone())
        .send()
        .await
        .map_err(|error| describe_error(&error))?;
    // The body of the response is not read: it is irrelevant and may be endless.
    if response.status().is_success() {
        Ok(())
    } else {
        Err(format!("the endpoint returned {}", response.status()))
    }
}
