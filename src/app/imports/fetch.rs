//! Fetches the object at a URL. The query of a URL may contain a secret and appears in no error and no log.

use futures::{StreamExt, stream};
use reqwest::{
    Client, Response, StatusCode,
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING,
    },
};
use tokio::time::timeout;
use url::Url;

use super::object_stream::ObjectStream;
use crate::{
    app::{
        Error,
        imports::{FetchFailure, ImportError},
        outgoing::{build_client, describe_error},
    },
    config::import_source::WebSource,
    domain::{outgoing_address::check_url, violations::Violations},
};

/// Parses a URL that this source may fetch. The addresses of its host are checked with each request.
pub(super) fn parse_source_url(web: &WebSource, text: &str) -> Result<Url, Violations> {
    let invalid_url = |problem: &str| Violations::one("item.url", problem);
    let mut url = check_url(text, web.allow_private_addresses).map_err(invalid_url)?;
    if !url.host().is_some_and(|host| web.allows_host(&host)) {
        return Err(invalid_url("must have one of the hosts that the source allows"));
    }
    // A fragment is never sent.
    url.set_fragment(None);
    Ok(url)
}

/// Sends a request and returns when the response headers have arrived.
///
/// # Errors
/// Returns `FetchFailed`. Later failures are errors of the body stream.
pub(super) async fn fetch_object(web: &WebSource, url: &Url) -> Result<ObjectStream, Error> {
    let response = timeout(web.request_timeout(), send_request(web, url)).await;
    let response = response.map_err(|_| {
        unavailable_error(format!("no response within {} seconds", web.request_timeout_seconds))
    })??;
    let status = response.status();
    if status != StatusCode::OK {
        let hint =
            if status.is_redirection() { "; redirects are not followed: use the target URL" } else { "" };
        let kind = match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => FetchFailure::Gone,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => FetchFailure::Unavailable,
            status if status.is_server_error() => FetchFailure::Unavailable,
            _ => FetchFailure::Refused,
        };
        return Err(
            ImportError::FetchFailed { kind, reason: format!("the server returned {status}{hint}") }.into()
        );
    }
    let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) =
        header(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return Err(refused_error(format!(
            "the response has the content encoding {encoding:.20}, which was not requested"
        )));
    }
    let size_bytes = header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    // If the end of the connection is the end of the body, a truncated body looks complete. This applies to
    // every transfer encoding except `chunked`.
    let is_chunked = header(TRANSFER_ENCODING).map(|encoding| encoding.eq_ignore_ascii_case("chunked"));
    if is_chunked == Some(false) || (size_bytes.is_none() && is_chunked.is_none()) {
        return Err(refused_error(
            "the response has neither a content length nor chunked encoding".to_owned(),
        ));
    }
    let mime_type = header(CONTENT_TYPE).unwrap_or_default().to_owned();
    let pieces = BodyChunks { response, size_bytes, received_bytes: 0 };
    let body = stream::try_unfold(pieces, BodyChunks::next).boxed();
    Ok(ObjectStream { size_bytes, mime_type, body })
}

async fn send_request(web: &WebSource, url: &Url) -> Result<Response, Error> {
    // With HTTP/1.1 the headers determine how the body ends.
    let builder = Client::builder()
        .http1_only()
        .connect_timeout(web.connect_timeout())
        .read_timeout(web.request_timeout());
    let client = build_client(url, web.allow_private_addresses, builder).await.map_err(unavailable_error)?;
    let sent = client.get(url.clone()).header(ACCEPT_ENCODING, "identity").send().await;
    sent.map_err(|error| unavailable_error(describe_error(&error)))
}

fn unavailable_error(reason: String) -> Error {
    ImportError::FetchFailed { kind: FetchFailure::Unavailable, reason }.into()
}

fn refused_error(reason: String) -> Error {
    ImportError::FetchFailed { kind: FetchFailure::Refused, reason }.into()
}

struct BodyChunks {
    response: Response,
    size_bytes: Option<u64>,
    received_bytes: u64,
}

impl BodyChunks {
    async fn next(mut self) -> Result<Option<(bytes::Bytes, Self)>, Error> {
        match self.response.chunk().await {
            Ok(Some(piece)) => {
                self.received_bytes += piece.len() as u64;
                Ok(Some((piece, self)))
            }
            Ok(None) if self.size_bytes.is_none_or(|size| size == self.received_bytes) => Ok(None),
            Ok(None) => Err(self.body_error("the connection closed early")),
            Err(error) => Err(self.body_error(&describe_error(&error))),
        }
    }

    fn body_error(&self, cause: &str) -> Error {
        unavailable_error(format!("the body ended after {} bytes: {cause}", self.received_bytes))
    }
}
