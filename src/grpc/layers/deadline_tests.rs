//! Deadlines under a paused clock.

use http_body_util::{BodyExt, StreamBody};
use tonic::Code;

use super::*;
use crate::{
    config::Config,
    grpc::layers::testing::{call, request, status},
};

const DOWNLOAD: &str = "/strongroom.v1.FileService/DownloadFile";
const UPLOAD: &str = "/strongroom.v1.FileService/UploadFile";
const GET: &str = "/strongroom.v1.FileService/GetFile";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

fn layer(download_seconds: u64) -> Deadline {
    let mut deadlines = Config::defaults().unwrap().deadlines;
    deadlines.download_seconds = download_seconds;
    Deadline { deadlines, draining: CancellationToken::new() }
}

fn with_timeout(path: &str, timeout: &str) -> Request<Body> {
    let mut request = request(path);
    request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

/// An answer that sends a byte every second, for ever.
async fn dripping(_: Request<Body>) -> Response<Body> {
    let frames = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, Status>(Frame::data(Bytes::from_static(b"."))), ()))
    });
    Response::new(Body::new(StreamBody::new(frames)))
}

async fn silent(_: Request<Body>) -> Response<Body> {
    std::future::pending().await
}

/// What a body carried, and the code that it ended with.
async fn drained(response: Response<Body>) -> (usize, Option<Code>) {
    let collected = response.into_body().collect().await.unwrap();
    let code = collected.trailers().and_then(Status::from_header_map).map(|status| status.code());
    (collected.to_bytes().len(), code)
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_ended_in_the_middle_when_its_deadline_passes() {
    let response = call(&layer(5), request(DOWNLOAD), dripping).await;
    assert!(status(&response).is_none());
    let (bytes, code) = drained(response).await;
    assert!((4..=5).contains(&bytes), "{bytes}");
    assert_eq!(code, Some(Code::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_ends_a_stream_that_has_none_of_its_own() {
    let response = call(&layer(0), with_timeout(DOWNLOAD, "2500m"), dripping).await;
    assert_eq!(drained(response).await, (2, Some(Code::DeadlineExceeded)));
}

#[tokio::test(start_paused = true)]
async fn the_sooner_of_the_two_deadlines_holds() {
    let began = Instant::now();
    let response = call(&layer(0), with_timeout(GET, "2S"), silent).await;
    assert_eq!(status(&response).unwrap().code(), Code::DeadlineExceeded);
    assert!(began.elapsed() <= Duration::from_secs(2));

    let began = Instant::now();
    let response = call(&layer(0), with_timeout(GET, "1H"), silent).await;
    assert_eq!(status(&response).unwrap().code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn an_upload_has_the_callers_deadline_and_no_other() {
    let a_day = Duration::from_secs(86_400);
    let layer = layer(0);
    assert!(tokio::time::timeout(a_day, call(&layer, request(UPLOAD), silent)).await.is_err());
    let response = call(&layer, with_timeout(UPLOAD, "3M"), silent).await;
    assert_eq!(status(&response).unwrap().code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_when_the_process_does() {
    let layer = layer(0);
    let response = call(&layer, request(WATCH), dripping).await;
    layer.draining.cancel();
    assert_eq!(drained(response).await, (0, Some(Code::Unavailable)));
}

#[test]
fn malformed_timeouts_are_none() {
    let read = |text: &str| callers(with_timeout(GET, text).headers());
    assert_eq!(read("100m"), Some(Duration::from_millis(95)));
    for text in ["", "S", "1", "1x", "-1S", "123456789S", "1 S"] {
        assert_eq!(read(text), None, "{text:?}");
    }
    assert!(read("99999999H").is_some());
}
