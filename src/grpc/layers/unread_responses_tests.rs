//! Tests of unread responses, with a paused clock.

use http_body_util::StreamBody;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::server::Connected};
use tonic_types::StatusExt;

use super::*;
use crate::{
    admission::peers::{PeerLimits, Peers},
    config::Config,
    grpc::layers::testing::{call, request, status},
};

const LIST: &str = "/strongroom.v1.FileService/ListFiles";
const UPDATE: &str = "/strongroom.v1.FileService/UpdateFile";
const LIST_TENANTS: &str = "/strongroom.admin.v1.TenantService/ListTenants";

const LARGE: usize = LARGEST_BYTES;

fn layer() -> UnreadResponses {
    let mut config = Config::defaults().unwrap();
    let server = &mut config.server;
    server.unread_responses_max_bytes = 8 * LARGE;
    (server.response_idle_seconds, server.response_write_seconds) = (10, 25);
    UnreadResponses::new(&config)
}

fn request_of(holder: Holder, path: &str) -> Request<Body> {
    let mut request = request(path);
    request.extensions_mut().insert(holder);
    request
}

/// A request of a tenant.
fn by(tenant: &str, path: &str) -> Request<Body> {
    request_of(Holder::of_name(&tenant), path)
}

async fn respond(layer: &UnreadResponses, request: Request<Body>, length: usize) -> Response<Body> {
    call(layer, request, move |_| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames =
            [Ok::<_, Status>(Frame::data(Bytes::from(vec![7; length]))), Ok(Frame::trailers(trailers))];
        Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))))
    })
    .await
}

/// Responses to lists until one is refused.
async fn list_unread(layer: &UnreadResponses, tenant: &str) -> (Vec<Response<Body>>, Status) {
    let mut unread = Vec::new();
    while unread.len() < 100 {
        let response = respond(layer, by(tenant, LIST), LARGE).await;
        match status(&response) {
            Some(refused) => return (unread, refused),
            None => unread.push(response),
        }
    }
    panic!("no response was refused");
}

#[tokio::test(start_paused = true)]
async fn response_is_sent_whole_with_its_trailers() {
    let layer = layer();
    for length in [0, 5, PIECE_BYTES, PIECE_BYTES + 1, LARGE] {
        let response = respond(&layer, by("acme", LIST), length).await;
        // Otherwise the transport adds a content-length.
        assert_eq!(response.body().size_hint().exact(), None);
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), vec![7; length]);
    }
    assert_eq!(layer.space.taken_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn last_byte_of_a_large_response_is_sent_alone() {
    let mut body = respond(&layer(), by("acme", LIST), PIECE_BYTES + 5_000).await.into_body();
    let mut lengths = Vec::new();
    while let Ok(data) = body.frame().await.unwrap().unwrap().into_data() {
        lengths.push(data.len());
    }
    assert_eq!(lengths, [PIECE_BYTES, 4_999, 1]);
}

#[tokio::test]
async fn response_without_a_body_stays_one() {
    let respond = |_| std::future::ready(Status::not_found("").into_http());
    let response = call(&layer(), by("acme", LIST), respond).await;
    assert_eq!(status(&response).unwrap().code(), Code::NotFound);
    assert!(response.body().is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn unread_response_releases_its_memory() {
    let layer = layer();
    let mut body = respond(&layer, by("acme", LIST), LARGE).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(layer.space.taken_bytes(), LARGE);
    // The transport does not poll the body while the client does not read.
    tokio::time::advance(Duration::from_secs(9)).await;
    tokio::task::yield_now().await;
    assert_eq!(layer.space.taken_bytes(), LARGE);
    // The first piece was progress; the next check finds none. The checks start when their task first runs.
    tokio::time::sleep(Duration::from_secs(22)).await;
    assert_eq!(layer.space.taken_bytes(), 0);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::DeadlineExceeded);
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn slow_client_ends_at_the_deadline() {
    let layer = layer();
    let mut body = respond(&layer, by("acme", LIST), LARGE).await.into_body();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert!(body.frame().await.unwrap().unwrap().is_data());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
}

#[tokio::test]
async fn connection_is_closed_if_its_client_reads_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    let peers =
        Peers::new(PeerLimits { connections_max: 9, per_address_max: 9, trusted: Vec::new(), shares: None });
    tokio::time::pause();
    for (trusted, length, is_closed) in
        [(vec![], 5, true), (vec![], LARGE, true), (vec!["127.0.0.0/8".parse().unwrap()], LARGE, false)]
    {
        let connection = peers.admit(address.ip(), &CancellationToken::new()).await.unwrap();
        let layer = UnreadResponses { trusted: trusted.into(), ..layer() };
        let request = || {
            let mut request = by("acme", LIST);
            let info = PeerInfo { tcp: client.connect_info(), peer: connection.peer().clone() };
            request.extensions_mut().insert(info);
            request
        };
        respond(&layer, request(), length).await.into_body().collect().await.unwrap();
        let mut body = respond(&layer, request(), length).await.into_body();
        // The transport takes the first piece and then waits for its client.
        body.frame().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert!(!connection.close().is_cancelled(), "the client can still read the error");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(connection.close().is_cancelled(), is_closed, "{length} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn read_without_space_is_refused_and_a_change_is_not() {
    let layer = layer();
    let (unread, refused) = list_unread(&layer, "globex").await;
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.get_details_error_info().unwrap().metadata["resource"], "responses");
    assert!(refused.get_details_retry_info().is_some());
    let small = respond(&layer, by("globex", LIST), PIECE_BYTES).await;
    assert!(status(&small).is_none(), "a small response needs no space");
    let changed = respond(&layer, by("globex", UPDATE), LARGE).await.into_body().collect().await.unwrap();
    assert_eq!(changed.to_bytes().len(), LARGE);
    drop(unread);
    assert_eq!(layer.space.taken_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn unread_responses_of_a_tenant_do_not_refuse_others() {
    let layer = layer();
    let (unread, _) = list_unread(&layer, "globex").await;
    assert_eq!(unread.len(), 6);
    let (others, _) = list_unread(&layer, "acme").await;
    assert_eq!(others.len(), 1);
    let operator = respond(&layer, request_of(Holder::PLATFORM, LIST_TENANTS), LARGE).await;
    assert!(status(&operator).is_none());
}
