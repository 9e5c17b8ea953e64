//! Tests of the messages of an upload stream.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{FutureExt, stream};
use tonic_types::StatusExt;

use super::*;
use crate::{
    config::Config,
    proto::{
        codec::{DecodeGuard, Held},
        struct_limits::StructLimits,
        v1::{UploadChunk, UploadFinish},
        wire::{Refusal, Weight},
    },
};

const CHUNK_MAX: usize = 10;
const LIMITS: StreamLimits = StreamLimits { chunk_size_max_bytes: CHUNK_MAX, message_bytes_max: 100 };

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

fn message(message: Message) -> Result<v1::UploadFileRequest, Status> {
    Ok(v1::UploadFileRequest { message: Some(message) })
}

fn chunk(length: usize) -> Result<v1::UploadFileRequest, Status> {
    let data = Bytes::from(vec![7; length]);
    message(Message::Chunk(UploadChunk { offset: 0, data, crc32c: Some(1) }))
}

fn messages(
    sent: Vec<Result<v1::UploadFileRequest, Status>>,
) -> Messages<stream::Iter<std::vec::IntoIter<Result<v1::UploadFileRequest, Status>>>> {
    Messages::new(stream::iter(sent), LIMITS, "c-1".to_owned())
}

fn spec() -> Result<v1::UploadFileRequest, Status> {
    message(Message::Spec(v1::UploadSpec { name: "notes.txt".into(), ..v1::UploadSpec::default() }))
}

#[tokio::test]
async fn messages_are_converted_for_the_use_case() {
    let finish = message(Message::Finish(UploadFinish { size_bytes: 5, sha256: None }));
    let sent = vec![chunk(5), spec(), Ok(v1::UploadFileRequest::default()), finish];
    let received: Vec<UploadMessage> = messages(sent).collect().await;
    assert!(
        matches!(&received[0], UploadMessage::Chunk { offset: 0, data, crc32c: Some(1) } if data.len() == 5)
    );
    assert!(matches!(received[1], UploadMessage::OutOfOrder(UploadStreamOrder::SpecRepeated)));
    assert!(matches!(received[2], UploadMessage::OutOfOrder(UploadStreamOrder::MessageEmpty)));
    assert!(matches!(received[3], UploadMessage::Finish { size_bytes: 5, sha256: None }));
}

#[tokio::test]
async fn broken_stream_has_ended() {
    let mut broken = messages(vec![chunk(1), Err(Status::cancelled("")), chunk(1)]);
    assert_eq!((&mut broken).count().await, 1);
    assert_eq!(reason(&broken.status_for(&UploadError::NotFinished.into())), "UPLOAD_NOT_FINISHED");
}

#[tokio::test]
async fn too_large_chunk_ends_the_stream() {
    let mut too_large = messages(vec![chunk(CHUNK_MAX), chunk(CHUNK_MAX + 1), chunk(1)]);
    assert_eq!((&mut too_large).count().await, 1);
    let status = too_large.status_for(&UploadError::NotFinished.into());
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "chunk.data");
}

#[tokio::test]
async fn transport_fault_is_returned() {
    for (sent, expected) in [
        (Status::internal("failed to decode"), "MALFORMED_MESSAGE"),
        (status::status(&Error::Overloaded(Workload::Messages), "c-1"), "OVERLOADED"),
    ] {
        for unfinished in [UploadError::NotFinished, UploadError::Paused { persisted_size_bytes: 1 }] {
            let mut broken = messages(vec![chunk(1), Err(sent.clone()), chunk(1)]);
            assert_eq!((&mut broken).count().await, 1);
            assert_eq!(reason(&broken.status_for(&unfinished.into())), expected);
        }
    }
}

#[tokio::test]
async fn draining_stops_at_its_byte_limit() {
    let mut sent = messages((0..10).map(|_| chunk(4)).collect());
    sent.drain(9).await;
    assert_eq!(sent.count().await, 7);
}

#[tokio::test(start_paused = true)]
async fn draining_stops_when_the_client_is_silent() {
    let start = Instant::now();
    let mut silent = Messages::new(stream::pending(), LIMITS, "c-1".to_owned());
    silent.drain(1000).await;
    assert_eq!(start.elapsed(), DRAIN_SILENCE);
}

#[tokio::test(start_paused = true)]
async fn stream_keeps_its_slot_while_it_is_drained() {
    let config = UploadsConfig { streams_max: 1, ..Config::defaults().unwrap().uploads };
    let uploads = UploadStreams::new(config, 100);
    let open = || uploads.open_stream(stream::pending(), Holder::of_name(&"acme"), "c-1");
    let mut first = open().unwrap();
    // The result is known, and the client does not end its stream.
    let mut draining = Box::pin(first.drain(1_000));
    assert!((&mut draining).now_or_never().is_none());
    assert!(matches!(open().err(), Some(Error::Overloaded(Workload::Uploads))));
    draining.await;
    drop(first);
    assert!(open().is_ok());
}

#[tokio::test(start_paused = true)]
async fn first_message_is_a_spec_or_an_upload_id_in_time() {
    let uploads = UploadStreams::new(Config::defaults().unwrap().uploads, 100);
    let first = uploads.receive_first_message(&mut messages(vec![spec()])).await.unwrap();
    assert!(matches!(first, FirstMessage::Spec(spec) if spec.name == "notes.txt"));
    let sent = vec![message(Message::UploadId("u".into()))];
    let first = uploads.receive_first_message(&mut messages(sent)).await.unwrap();
    assert!(matches!(first, FirstMessage::UploadId(id) if id == "u"));
    let error = uploads.receive_first_message(&mut messages(vec![chunk(1)])).await.unwrap_err();
    assert!(matches!(error, Error::Upload(UploadError::StreamOrder(UploadStreamOrder::SpecNotFirst))));
    let error = uploads.receive_first_message(&mut messages(vec![])).await.unwrap_err();
    assert!(matches!(error, Error::Upload(UploadError::NotFinished)));
    let error = uploads
        .receive_first_message(&mut Messages::new(stream::pending(), LIMITS, "c-1".to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Upload(UploadError::Stalled(_))));
}

/// Counts the messages whose space was taken over.
#[derive(Default)]
struct CountingGuard(AtomicUsize);

impl DecodeGuard for CountingGuard {
    fn struct_limits(&self) -> &StructLimits {
        &convert::structs::LIMITS
    }

    fn admit(&self, _: Result<Weight, Refusal>) -> Result<(), Status> {
        Ok(())
    }

    fn take_space(&self) -> Option<Held> {
        self.0.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[tokio::test]
async fn silent_stream_holds_no_decoded_message() {
    let uploads = UploadStreams::new(Config::defaults().unwrap().uploads, 100);
    for first in [spec(), message(Message::UploadId("u".into())), chunk(1)] {
        let guard = Arc::new(CountingGuard::default());
        let mut messages = messages(vec![first]);
        let received = uploads.receive_first_message(&mut messages);
        let _received = codec::guarded(Arc::<CountingGuard>::clone(&guard), received).await;
        assert_eq!(guard.0.load(Ordering::Relaxed), 1);
    }
    let guard = Arc::new(CountingGuard::default());
    let mut repeated = messages(vec![spec()]);
    codec::guarded(Arc::<CountingGuard>::clone(&guard), repeated.next()).await.unwrap();
    assert_eq!(guard.0.load(Ordering::Relaxed), 1, "the stream is drained without it");
}
