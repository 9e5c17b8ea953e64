//! One URL, and the bytes behind it. Its query may be a secret: it is in no error and in no log.

use futures::{StreamExt, stream};
use reqwest::{
    Client, Response, StatusCode,
    header::{
        ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING,
    },
};
use tokio::time::timeout;
use url::Url;

use super::opened::Opened;
use crate::{
    app::{
        Error, Unfetched,
        outgoing::{client_to, said},
    },
    config::import_source::WebPlace,
    domain::{outgoing_address::check_url, violations::Violations},
};

/// A URL that this source may fetch. What its name resolves to is looked at with every request.
pub(super) fn checked(web: &WebPlace, text: &str) -> Result<Url, Violations> {
    let wrong = |why: &str| Violations::one("item.url", why);
    let mut url = check_url(text, web.allow_private_addresses).map_err(wrong)?;
    if !url.host().is_some_and(|host| web.names(&host)) {
        return Err(wrong("must have one of the hosts that this source names"));
    }
    // Nobody is ever asked for it.
    url.set_fragment(None);
    Ok(url)
}

/// Asks for a URL, and answers as soon as its answer begins.
///
/// # Errors
/// `NotFetched`; later failures arrive in the body.
pub(super) async fn fetch(web: &WebPlace, url: &Url) -> Result<Opened, Error> {
    let asked = timeout(web.request_timeout(), ask(web, url)).await;
    let answer =
        asked.map_err(|_| failed(format!("no answer within {} seconds", web.request_timeout_seconds)))??;
    let status = answer.status();
    if status != StatusCode::OK {
        let hint = if status.is_redirection() {
            "; redirects are not followed, give the URL that it leads to"
        } else {
            ""
        };
        let kind = match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Unfetched::Gone,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Unfetched::Away,
            status if status.is_server_error() => Unfetched::Away,
            _ => Unfetched::Refused,
        };
        return Err(Error::NotFetched { kind, why: format!("it answered {status}{hint}") });
    }
    let header = |name: HeaderName| answer.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) =
        header(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return Err(refused(format!("its bytes came in an encoding that nobody asked for ({encoding:.20})")));
    }
    let size_bytes = header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    // Where the end of the connection is the end of the body, nothing tells half of it from all of it: so it is with every
    // transfer encoding but this one.
    let in_chunks = header(TRANSFER_ENCODING).map(|encoding| encoding.eq_ignore_ascii_case("chunked"));
    if in_chunks == Some(false) || (size_bytes.is_none() && in_chunks.is_none()) {
        return Err(refused("its answer says neither how long it is nor where it ends".to_owned()));
    }
    let mime_type = header(CONTENT_TYPE).unwrap_or_default().to_owned();
    let pieces = Pieces { answer, size_bytes, received_bytes: 0 };
    let body = stream::try_unfold(pieces, Pieces::next).boxed();
    Ok(Opened { size_bytes, mime_type, body })
}

async fn ask(web: &WebPlace, url: &Url) -> Result<Response, Error> {
    // Over HTTP/1.1 the headers say how the body ends.
    let builder = Client::builder()
        .http1_only()
        .connect_timeout(web.connect_timeout())
        .read_timeout(web.request_timeout());
    let client = client_to(url, web.allow_private_addresses, builder).await.map_err(failed)?;
    let sent = client.get(url.clone()).header(ACCEPT_ENCODING, "identity").send().await;
    sent.map_err(|error| failed(said(&error)))
}

fn failed(why: String) -> Error {
    Error::NotFetched { kind: Unfetched::Away, why }
}

fn refused(why: String) -> Error {
    Error::NotFetched { kind: Unfetched::Refused, why }
}

struct Pieces {
    answer: Response,
    size_bytes: Option<u64>,
    received_bytes: u64,
}

impl Pieces {
    async fn next(mut self) -> Result<Option<(bytes::Bytes, Self)>, Error> {
        match self.answer.chunk().await {
            Ok(Some(piece)) => {
                self.received_bytes += piece.len() as u64;
                Ok(Some((piece, self)))
            }
            Ok(None) if self.size_bytes.is_none_or(|size| size == self.received_bytes) => Ok(None),
            Ok(None) => Err(self.broke("fewer bytes came than were announced")),
            Err(error) => Err(self.broke(&said(&error))),
        }
    }

    fn broke(&self, why: &str) -> Error {
        failed(format!("its body broke off after {} bytes: {why}", self.received_bytes))
    }
}
