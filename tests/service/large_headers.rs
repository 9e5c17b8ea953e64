//! A request whose headers are too large does not end the connection, which a proxy shares between callers.
//! `docs/operations.md` has the limits of HTTP/2 beyond that of the service.

use http::StatusCode;
use strongroom::proto::v1::GetServiceInfoRequest;
use tonic::{
    Code, Request, Status,
    body::Body,
    transport::{Channel, Endpoint, Error},
};
use tower::Service as _;

use crate::harness::{reason, service_test, spec};

/// The size of the headers. A proxy in front of the service accepts 60 KiB (Envoy) or more.
const HEADER_BYTES: usize = 80 * 1024;

#[test]
fn large_headers_leave_other_streams_of_the_connection() {
    service_test(|s| async move {
        // All callers of a test share one connection.
        let mut watcher = s.alice().watch_files().await;
        for _ in 0..10 {
            let mut request = Request::new(GetServiceInfoRequest {});
            request.metadata_mut().insert("x-padding", "x".repeat(HEADER_BYTES).parse().unwrap());
            let refused = s.bob().service_info.clone().get_service_info(request).await.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
            );
        }
        s.alice().upload(spec("a"), b"a").await.unwrap();
        watcher.next_event().await;
    });
}

/// The limit of HTTP/2: eight times `server.http2.header_list_size_max_bytes`.
const HTTP2_BYTES_MAX: usize = 8 * 16 * 1024;

/// Sends a request with headers of this size. Returns the response as it is, without a gRPC status that a client
/// derives from it.
async fn send_headers(channel: &Channel, bytes: usize) -> Result<http::Response<Body>, Error> {
    let request = http::Request::post("/strongroom.v1.ServiceInfoService/GetServiceInfo")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-padding", "x".repeat(bytes))
        .body(Body::empty())
        .unwrap();
    let mut channel = channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context)).await?;
    channel.call(request).await
}

#[test]
fn headers_beyond_the_limit_of_http2_get_a_bare_431() {
    service_test(|s| async move {
        let mut watcher = s.alice().watch_files().await;
        for bytes in [HTTP2_BYTES_MAX, HTTP2_BYTES_MAX * 3 / 2] {
            let refused = send_headers(&s.channel, bytes).await.unwrap();
            assert_eq!(refused.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            // The HTTP/2 library responds by itself, so there is nothing that a gRPC client can act on.
            assert!(Status::from_header_map(refused.headers()).is_none());
            assert!(!refused.headers().contains_key("call-id"));
        }
        s.alice().upload(spec("a"), b"a").await.unwrap();
        watcher.next_event().await;
    });
}

#[test]
fn headers_beyond_four_times_that_limit_end_the_connection() {
    service_test(|s| async move {
        let mut watcher = s.alice().watch_files().await;
        let other = Endpoint::from_shared(s.address.clone()).unwrap().connect().await.unwrap();
        send_headers(&other, 5 * HTTP2_BYTES_MAX).await.unwrap_err();
        // Only a connection of its own ends.
        s.alice().upload(spec("a"), b"a").await.unwrap();
        watcher.next_event().await;
    });
}
