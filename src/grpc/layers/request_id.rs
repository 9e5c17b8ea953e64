//! Gives each request an id: the one that the caller's proxy gave it, or a fresh one. It stands in every log
//! line and every error, and goes back as the header `x-request-id`.

use std::{net::SocketAddr, sync::Arc};

use http::{Extensions, HeaderName, HeaderValue, Request, Response};
use tonic::{body::Body, transport::server::TcpConnectInfo};

use super::{Around, Inner, Next};
use crate::domain::{caller::Origin, clock::IdSource};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from outside, in characters.
const LENGTH_MAX: usize = 64;

/// Notes a request's [`Origin`] among its extensions.
#[derive(Clone)]
pub(in crate::grpc) struct RequestId(pub(in crate::grpc) Arc<dyn IdSource>);

impl Around for RequestId {
    async fn around<S: Inner>(&self, mut request: Request<Body>, next: Next<S>) -> Response<Body> {
        let given = request.headers().get(HEADER).and_then(sane).map(str::to_owned);
        let request_id = given.unwrap_or_else(|| self.0.uuid().to_string());
        let header = HeaderValue::from_str(&request_id);
        let address = peer(request.extensions()).map(|peer| peer.ip().to_string()).unwrap_or_default();
        request.extensions_mut().insert(Origin { request_id, address });
        let mut response = next.run(request).await;
        if let Ok(header) = header {
            response.headers_mut().insert(HEADER, header);
        }
        response
    }
}

/// The peer of the connection: what a header says about it can be written by anyone.
fn peer(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get::<TcpConnectInfo>()?.remote_addr()
}

/// An id that is safe in a log line, in a header and in an answer.
fn sane(value: &HeaderValue) -> Option<&str> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let text = value.to_str().ok()?;
    ((1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_safe)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::clock::SystemIds,
        grpc::{
            call::request_origin,
            layers::testing::{call, request},
        },
    };

    async fn id(given: Option<&str>) -> String {
        let layer = RequestId(Arc::new(SystemIds));
        let mut request = request("/any");
        if let Some(given) = given {
            request.headers_mut().insert(HEADER, given.parse().unwrap());
        }
        let response = call(&layer, request, |request| async move {
            let seen = request_origin(request.extensions()).request_id;
            Response::builder().header("seen", seen).body(Body::empty()).unwrap()
        })
        .await;
        assert_eq!(response.headers()["seen"], response.headers()[HEADER]);
        response.headers()[HEADER].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_sane_id_is_taken_over_and_anything_else_replaced() {
        assert_eq!(id(Some("req_42.a-b")).await, "req_42.a-b");
        for given in [None, Some(""), Some("a b"), Some("a\"b"), Some(&*"a".repeat(65))] {
            assert!(id(given).await.parse::<uuid::Uuid>().is_ok(), "{given:?}");
        }
    }
}
