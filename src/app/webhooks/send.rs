//! Sends one message to one endpoint outside private networks.

use std::time::Duration;

use chrono::DateTime;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use reqwest::{Client, Response};
use tokio::time::timeout;

use super::message::Message;
use crate::{
    app::outgoing::{build_client, describe_error},
    config::WebhooksConfig,
    domain::{clock::Timestamp, outgoing_address::check_url},
};

/// The maximum length of a stored error, in characters.
const ERROR_CHARACTERS_MAX: usize = 300;

/// A failed attempt to send a message.
#[derive(Debug)]
pub(super) struct SendFailure {
    /// A description of the failure. It names no address inside this service's network.
    pub(super) error: String,
    pub(super) advice: EndpointAdvice,
}

/// The request of an endpoint that rejected a message, to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndpointAdvice {
    /// None: the usual pause applies.
    None,
    /// To wait at least this long before the next attempt.
    RetryAfter(Duration),
    /// To send no more messages.
    Gone,
}

/// Sends a message. `now` is the time from which an endpoint's date is counted.
///
/// # Errors
/// Returns a description of the failure unless the endpoint returns a 2xx status.
pub(super) async fn send_message(
    config: &WebhooksConfig,
    url: &str,
    message: &Message,
    now: Timestamp,
) -> Result<(), SendFailure> {
    let sent = timeout(config.timeout(), send_request(config, url, message)).await;
    let (error, advice) = match sent {
        Ok(Ok(response)) if response.status().is_success() => return Ok(()),
        Ok(Ok(response)) => {
            let error = format!("the endpoint returned {}", response.status());
            (error, read_advice(config, response.status(), response.headers(), now))
        }
        Ok(Err(error)) => (error, EndpointAdvice::None),
        Err(_) => (format!("no response within {} seconds", config.timeout_seconds), EndpointAdvice::None),
    };
    Err(SendFailure { error: error.chars().take(ERROR_CHARACTERS_MAX).collect(), advice })
}

/// Returns the response. Its body is not read: it is irrelevant and may be endless.
async fn send_request(config: &WebhooksConfig, url: &str, message: &Message) -> Result<Response, String> {
    let url =
        check_url(url, config.allow_private_addresses).map_err(|problem| format!("the URL {problem}"))?;
    let builder = Client::builder().timeout(config.timeout());
    let client = build_client(&url, config.allow_private_addresses, builder).await?;
    let sent = client
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", message.timestamp_seconds.to_string())
        .header("webhook-signature", &message.signature)
        .body(message.body.clone())
        .send();
    sent.await.map_err(|error| describe_error(&error))
}

/// Reads the request of the endpoint: status 410, or a `Retry-After` with status 429 or 503.
fn read_advice(
    config: &WebhooksConfig,
    status: StatusCode,
    headers: &HeaderMap,
    now: Timestamp,
) -> EndpointAdvice {
    match status {
        StatusCode::GONE => EndpointAdvice::Gone,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let sent = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let pause = sent.and_then(|text| parse_retry_after(text, now));
            let longest = Duration::from_secs(config.retry_after_max_seconds);
            pause.map_or(EndpointAdvice::None, |pause| EndpointAdvice::RetryAfter(pause.min(longest)))
        }
        _ => EndpointAdvice::None,
    }
}

/// Parses the value of `Retry-After`: a number of seconds or a date. A date in the past is no pause.
fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some((date.to_utc() - now).to_std().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_timestamp(784_111_777, 0).unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse_retry_after(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
