//! Gives each call an id: the one that the caller or its proxy sent, or a new UUID.
//!
//! The id is in every log line and every error of the call, and is returned in the header `call-id`. It
//! identifies one attempt; the caller's `request_id` identifies one operation across all of its attempts.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;

use super::{Around, Inner, Next};
use crate::{
    domain::{caller::Origin, clock::IdSource},
    grpc::client_address::{ClientAddress, TrustedProxies},
};

const HEADER: HeaderName = HeaderName::from_static("call-id");

/// The header in which proxies (Envoy, nginx) send the same id.
const PROXY_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is accepted from outside, in characters.
const LENGTH_MAX: usize = 64;

/// Adds the [`Origin`] and the [`ClientAddress`] to the extensions of a request.
#[derive(Clone)]
pub(in crate::grpc) struct CallId {
    pub(in crate::grpc) ids: Arc<dyn IdSource>,
    /// The proxies whose header names the address of the client.
    pub(in crate::grpc) proxies: TrustedProxies,
}

impl Around for CallId {
    async fn around<S: Inner>(&self, mut request: Request<Body>, next: Next<S>) -> Response<Body> {
        let call_id = sent_id(request.headers()).unwrap_or_else(|| self.ids.uuid().to_string());
        let header = HeaderValue::from_str(&call_id);
        let address = self.proxies.client_of(&request);
        if let Some(address) = address {
            request.extensions_mut().insert(address);
        }
        let address = address.map(|ClientAddress(address)| address.to_string()).unwrap_or_default();
        request.extensions_mut().insert(Origin { call_id, address });
        let mut response = next.run(request).await;
        if let Ok(header) = header {
            response.headers_mut().insert(HEADER, header);
        }
        response
    }
}

fn sent_id(headers: &HeaderMap) -> Option<String> {
    let id = |name| headers.get(name).and_then(safe_text).map(str::to_owned);
    id(HEADER).or_else(|| id(PROXY_HEADER))
}

/// The text of an id that is safe in a log line, in a header and in an error.
fn safe_text(value: &HeaderValue) -> Option<&str> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let text = value.to_str().ok()?;
    ((1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_safe)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        domain::clock::SystemIds,
        grpc::{
            call::request_origin,
            layers::testing::{call, request},
        },
    };

    async fn call_id(sent: &[(HeaderName, &str)]) -> String {
        let proxies = TrustedProxies::new(&Config::defaults().unwrap().server);
        let layer = CallId { ids: Arc::new(SystemIds), proxies };
        let mut request = request("/any");
        for (name, value) in sent {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let response = call(&layer, request, |request| async move {
            let seen = request_origin(request.extensions()).call_id;
            Response::builder().header("seen", seen).body(Body::empty()).unwrap()
        })
        .await;
        assert_eq!(response.headers()["seen"], response.headers()[HEADER]);
        response.headers()[HEADER].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn safe_id_is_kept_and_any_other_replaced() {
        assert_eq!(call_id(&[(HEADER, "call_42.a-b")]).await, "call_42.a-b");
        assert_eq!(call_id(&[(PROXY_HEADER, "from-envoy")]).await, "from-envoy");
        assert_eq!(call_id(&[(HEADER, "mine"), (PROXY_HEADER, "from-envoy")]).await, "mine");
        let long = "a".repeat(LENGTH_MAX + 1);
        for unsafe_id in ["", "a b", "a\"b", &long] {
            let id = call_id(&[(HEADER, unsafe_id)]).await;
            assert!(id.parse::<uuid::Uuid>().is_ok(), "{unsafe_id:?}: {id}");
        }
        assert!(call_id(&[]).await.parse::<uuid::Uuid>().is_ok());
    }
}
