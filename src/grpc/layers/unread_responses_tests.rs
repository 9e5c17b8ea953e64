//! Tests of unread responses, with a paused clock.

use http_body_util::StreamBody;
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::{
    config::Config,
    grpc::layers::testing::{call, request, status},
};

const LIST: &str = "/strongroom.v1.FileService/ListFiles";
const UPDATE: &str = "/strongroom.v1.FileService/UpdateFile";

/// Space for two responses of this size.
const LARGE: usize = 3 * PIECE_BYTES;

fn layer() -> UnreadResponses {
    let mut config = Config::defaults().unwrap().server;
    config.unread_responses_max_bytes = 2 * LARGE;
    (config.response_idle_seconds, config.response_write_seconds) = (10, 25);
    UnreadResponses::new(&config)
}

async fn respond(layer: &UnreadResponses, path: &str, length: usize) -> Response<Body> {
    call(layer, request(path), move |_| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames =
            [Ok::<_, Status>(Frame::data(Bytes::from(vec![7; length]))), Ok(Frame::trailers(trailers))];
        Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))))
    })
    .await
}

fn free_bytes(layer: &UnreadResponses) -> usize {
    layer.space.available_permits() * UNIT_BYTES
}

#[tokio::test(start_paused = true)]
async fn response_is_sent_whole_with_its_trailers() {
    let layer = layer();
    for length in [0, 5, PIECE_BYTES, PIECE_BYTES + 1, LARGE] {
        let collected = respond(&layer, LIST, length).await.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), vec![7; length]);
    }
    assert_eq!(free_bytes(&layer), 2 * LARGE);
}

#[tokio::test(start_paused = true)]
async fn unread_response_releases_its_memory() {
    let layer = layer();
    let mut body = respond(&layer, LIST, LARGE).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(free_bytes(&layer), LARGE);
    // The transport does not poll the body while the client does not read.
    tokio::time::advance(Duration::from_secs(9)).await;
    tokio::task::yield_now().await;
    assert_eq!(free_bytes(&layer), LARGE);
    // The first piece was progress; the next check finds none. The checks start when their task first runs.
    tokio::time::sleep(Duration::from_secs(22)).await;
    assert_eq!(free_bytes(&layer), 2 * LARGE);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::DeadlineExceeded);
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn slow_client_ends_at_the_deadline() {
    let layer = layer();
    let mut body = respond(&layer, LIST, 2 * LARGE).await.into_body();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert!(body.frame().await.unwrap().unwrap().is_data());
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
}

#[tokio::test(start_paused = true)]
async fn read_without_space_is_refused_and_a_change_is_not() {
    let layer = layer();
    let unread = [respond(&layer, LIST, LARGE).await, respond(&layer, LIST, LARGE).await];
    let refused = status(&respond(&layer, LIST, LARGE).await).unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.get_details_error_info().unwrap().metadata["resource"], "responses");
    assert!(refused.get_details_retry_info().is_some());
    let small = respond(&layer, LIST, PIECE_BYTES).await;
    assert!(status(&small).is_none(), "a small response needs no space");
    let changed = respond(&layer, UPDATE, LARGE).await.into_body().collect().await.unwrap();
    assert_eq!(changed.to_bytes().len(), LARGE);
    drop(unread);
    assert_eq!(free_bytes(&layer), 2 * LARGE);
}
