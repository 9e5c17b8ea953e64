//! One message to one endpoint, which is in no private network.

use reqwest::Client;
use tokio::time::timeout;

use super::message::Message;
use crate::{
    app::outgoing::{client_to, said},
    config::WebhooksConfig,
    domain::outgoing_address::check_url,
};

/// How much of an error is kept, in characters.
const ERROR_CHARACTERS_MAX: usize = 300;

/// Sends a message; a sentence about what went wrong where it was not taken with a 2xx.
pub(super) async fn send(config: &WebhooksConfig, url: &str, message: &Message) -> Result<(), String> {
    let sent = timeout(config.timeout(), attempt(config, url, message)).await;
    let error = match sent {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => format!("no answer within {} seconds", config.timeout_seconds),
    };
    Err(error.chars().take(ERROR_CHARACTERS_MAX).collect())
}

async fn attempt(config: &WebhooksConfig, url: &str, message: &Message) -> Result<(), String> {
    let url = check_url(url, config.allow_private_addresses).map_err(|why| format!("the URL {why}"))?;
    let builder = Client::builder().timeout(config.timeout());
    let client = client_to(&url, config.allow_private_addresses, builder).await?;
    let answer = client
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", message.timestamp_seconds.to_string())
        .header("webhook-signature", &message.signature)
        .body(message.body.clone())
        .send()
        .await
        .map_err(|error| said(&error))?;
    // The answer's body is nobody's business, and may be endless.
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}
