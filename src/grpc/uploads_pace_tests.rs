//! Tests of the pace of uploads, with a paused clock: from the bytes on the wire through the layer that counts them
//! and the decoding of messages to the error of the client.

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use tokio::time::sleep;
use tonic::{Streaming, body::Body, codec::Codec as _};
use tonic_types::StatusExt;
use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::{
    admission::Holder,
    config::Config,
    grpc::{
        layers::{AroundLayer, ArrivalLimits, MessageBudget},
        message_limits::MessageLimits,
    },
    proto::{
        codec::GuardedCodec,
        v1::{UploadChunk, UploadFinish},
    },
};

/// More than arrives within a time limit at the rates of these tests.
const SPEC_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 2 * 1024 * 1024;

fn frame(message: Message) -> Vec<u8> {
    let bytes = v1::UploadFileRequest { message: Some(message) }.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap();
    [&[0], length.to_be_bytes().as_slice(), &bytes].concat()
}

fn spec(bytes: usize) -> Vec<u8> {
    frame(Message::Spec(v1::UploadSpec { description: "x".repeat(bytes), ..v1::UploadSpec::default() }))
}

fn chunk() -> Vec<u8> {
    let data = Bytes::from(vec![7; CHUNK_BYTES]);
    frame(Message::Chunk(UploadChunk { offset: 0, data, crc32c: None }))
}

/// Receives an upload as the adapter does, without storing it. Returns the size of its chunks.
async fn receive(request: http::Request<Body>, config: &UploadsConfig) -> Result<usize, Error> {
    let (head, body) = request.into_parts();
    let decoder = GuardedCodec::<v1::UploadFileResponse, v1::UploadFileRequest>::default().decoder();
    let stream = Streaming::new_request(decoder, body, None, Some(2 * CHUNK_BYTES));
    let limits = StreamLimits {
        chunk_size_max_bytes: config.chunk_size_max_bytes,
        message_bytes_max: 2 * CHUNK_BYTES,
    };
    let mut messages = Messages::new(stream, limits, "c-1".to_owned());
    messages.arrivals = head.extensions.get::<Arrivals>().cloned().unwrap();
    let uploads = UploadStreams::new(config.clone(), 2 * CHUNK_BYTES);
    uploads.receive_first_message(&mut messages).await?;
    let mut pace = PaceMonitor::new(PaceLimits::of_upload(config));
    let mut received_bytes = 0;
    loop {
        let next = pace
            .wait(received_bytes as u64, |context| (messages.poll_next_unpin(context), messages.arrived()));
        match next.await.map_err(UploadError::Stalled)? {
            Some(UploadMessage::Chunk { data, .. }) => received_bytes += data.len(),
            Some(_) => {}
            None => return Ok(received_bytes),
        }
    }
}

/// Sends an upload of which some bytes arrive every second. Returns the error, if there is one, and the time.
async fn upload(bytes: Vec<u8>, bytes_per_second: usize) -> (Option<Status>, Duration) {
    let config = Config::defaults().unwrap();
    let limits = MessageLimits::new(&config);
    let layer = AroundLayer(MessageBudget::new(4, limits, ArrivalLimits::new(&config)));
    let pieces: Vec<Bytes> = bytes.chunks(bytes_per_second).map(Bytes::copy_from_slice).collect();
    let frames = stream::iter(pieces).then(|piece| async {
        sleep(Duration::from_secs(1)).await;
        Ok::<_, Status>(Frame::data(piece))
    });
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let config = config.uploads.clone();
        async move {
            let response = match receive(request, &config).await {
                Ok(received) => {
                    assert_eq!(received, CHUNK_BYTES);
                    http::Response::new(Body::empty())
                }
                Err(error) => status::status(&error, "c-1").into_http(),
            };
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut request = http::Request::new(Body::new(StreamBody::new(frames)));
    *request.uri_mut() = "/strongroom.v1.FileService/UploadFile".parse().unwrap();
    request.extensions_mut().insert(Holder::of_name(&"acme"));
    let start = Instant::now();
    let response = layer.layer(service).oneshot(request).await.unwrap();
    (Status::from_header_map(response.headers()), start.elapsed())
}

/// Checks that an upload was ended because of its rate, which the error names.
fn assert_too_slow(status: Option<Status>, rates: std::ops::RangeInclusive<u64>) {
    let status = status.unwrap();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str()), (tonic::Code::Aborted, "UPLOAD_STALLED"));
    assert_eq!(info.metadata["rate_min_bytes_per_second"], "1024");
    let rate = &info.metadata["rate_bytes_per_second"];
    assert!(rates.contains(&rate.parse().unwrap()), "{rate}");
    assert!(status.message().contains(&format!("{rate} bytes per second; the minimum is 1024")), "{status}");
}

#[tokio::test(start_paused = true)]
async fn slow_but_steady_upload_is_received() {
    let finish = frame(Message::Finish(UploadFinish { size_bytes: 0, sha256: None }));
    let (status, time) = upload([spec(SPEC_BYTES), chunk(), finish].concat(), 1_200).await;
    assert!(status.is_none(), "{status:?}");
    assert!(time > Duration::from_secs(1_800), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn upload_below_the_minimum_rate_ends_with_both_rates() {
    let (status, time) = upload([spec(10), chunk()].concat(), 600).await;
    // The first message arrived after one second.
    assert_eq!(time, Duration::from_secs(61));
    assert_too_slow(status, 590..=620);
}

#[tokio::test(start_paused = true)]
async fn first_message_must_arrive_at_the_minimum_rate() {
    let (status, time) = upload(spec(SPEC_BYTES), 600).await;
    assert_eq!(time, Duration::from_secs(10));
    assert_too_slow(status, 530..=600);
}
