//! Tests of deadlines, with a paused clock.

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use tonic::Code;
use tonic_types::StatusExt;

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
    let Config { mut deadlines, uploads, .. } = Config::defaults().unwrap();
    deadlines.download_seconds = download_seconds;
    Deadline { deadlines, part_pace: PaceLimits::of_upload(&uploads), drain: Drain::default() }
}

fn with_timeout(path: &str, timeout: &str) -> Request<Body> {
    let mut request = request(path);
    request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

/// Returns a response that sends a byte every second and does not end.
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

/// Reads a body to its end. Returns its number of bytes and the code of its trailers.
async fn read_to_end(response: Response<Body>) -> (usize, Option<Code>) {
    let collected = response.into_body().collect().await.unwrap();
    let code = collected.trailers().and_then(Status::from_header_map).map(|status| status.code());
    (collected.to_bytes().len(), code)
}

#[tokio::test(start_paused = true)]
async fn stream_ends_at_its_deadline() {
    let response = call(&layer(5), request(DOWNLOAD), dripping).await;
    assert!(status(&response).is_none());
    let (bytes, code) = read_to_end(response).await;
    assert!((4..=5).contains(&bytes), "{bytes}");
    assert_eq!(code, Some(Code::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn stream_ends_at_the_deadline_of_the_caller() {
    let response = call(&layer(0), with_timeout(DOWNLOAD, "2500m"), dripping).await;
    assert_eq!(read_to_end(response).await, (2, Some(Code::DeadlineExceeded)));
}

#[tokio::test(start_paused = true)]
async fn sooner_deadline_applies() {
    let started = Instant::now();
    let response = call(&layer(0), with_timeout(GET, "2S"), silent).await;
    assert_eq!(status(&response).unwrap().code(), Code::DeadlineExceeded);
    assert!(started.elapsed() <= Duration::from_secs(2));

    let started = Instant::now();
    let response = call(&layer(0), with_timeout(GET, "1H"), silent).await;
    assert_eq!(status(&response).unwrap().code(), Code::DeadlineExceeded);
    assert!(started.elapsed() < Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn upload_has_only_the_deadline_of_the_caller() {
    let a_day = Duration::from_secs(86_400);
    let layer = layer(0);
    assert!(tokio::time::timeout(a_day, call(&layer, request(UPLOAD), silent)).await.is_err());
    let response = call(&layer, with_timeout(UPLOAD, "3M"), silent).await;
    assert_eq!(status(&response).unwrap().code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn watch_ends_when_the_drain_begins() {
    let layer = layer(0);
    let response = call(&layer, request(WATCH), dripping).await;
    layer.drain.started.cancel();
    assert_eq!(read_to_end(response).await, (0, Some(Code::Unavailable)));
}

#[tokio::test(start_paused = true)]
async fn every_call_ends_with_the_drain() {
    for path in [GET, UPLOAD] {
        let layer = layer(0);
        let drain = layer.drain.clone();
        let ended = async {
            drain.started.cancel();
            sleep(Duration::from_secs(1)).await;
            drain.expired.cancel();
        };
        let (response, ()) = tokio::join!(call(&layer, request(path), silent), ended);
        let status = status(&response).unwrap();
        assert_eq!(status.code(), Code::Unavailable, "{path}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "SHUTTING_DOWN");
        assert!(status.get_details_retry_info().is_some());
    }
    let layer = layer(0);
    let response = call(&layer, request(DOWNLOAD), dripping).await;
    layer.drain.started.cancel();
    layer.drain.expired.cancel();
    assert_eq!(read_to_end(response).await, (0, Some(Code::Unavailable)));
}

#[test]
fn malformed_timeouts_are_ignored() {
    let read = |text: &str| caller_timeout(with_timeout(GET, text).headers());
    assert_eq!(read("100m"), Some(Duration::from_millis(95)));
    for text in ["", "S", "1", "1x", "-1S", "123456789S", "1 S"] {
        assert_eq!(read(text), None, "{text:?}");
    }
    assert!(read("99999999H").is_some());
}

/// Sends a part of which some bytes arrive every second, and returns the status of the response and its time. The
/// service responds after `response_time`.
async fn send_part(bytes_per_second: usize, response_time: Duration) -> (Option<Status>, Duration) {
    let pieces = futures::stream::iter((0..120).map(move |_| Bytes::from(vec![7; bytes_per_second])));
    let frames = futures::StreamExt::then(pieces, |piece| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, Status>(Frame::data(piece))
    });
    let request = request(PART_METHOD).map(|_| Body::new(StreamBody::new(frames)));
    let start = Instant::now();
    let respond = move |request: Request<Body>| async move {
        request.into_body().collect().await.unwrap();
        tokio::time::sleep(response_time).await;
        Response::new(Body::empty())
    };
    let response = call(&layer(0), request, respond).await;
    (status(&response), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn slow_but_steady_part_is_received() {
    let (status, time) = send_part(1_200, Duration::from_secs(9)).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(time, Duration::from_secs(129));
}

#[tokio::test(start_paused = true)]
async fn part_below_the_minimum_rate_ends_with_both_rates() {
    let (status, time) = send_part(600, Duration::ZERO).await;
    let status = status.unwrap();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (Code::Aborted, "UPLOAD_STALLED"));
    assert!(status.message().contains(" bytes per second; the minimum is 1024 bytes per second"), "{status}");
    assert_eq!(time, Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn deadline_of_a_part_starts_when_it_has_arrived() {
    let (status, time) = send_part(1_200, Duration::from_secs(3_600)).await;
    assert_eq!(status.unwrap().code(), Code::DeadlineExceeded);
    assert_eq!(time, Duration::from_secs(130));
}
