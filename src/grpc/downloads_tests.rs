//! Tests of download streams, with a list of pieces in place of the store.

use bytes::Bytes;
use futures::stream;
use tonic::Code;

use super::*;
use crate::{
    config::Config,
    domain::{
        caller::{Actor, ActorKind, Role, Tenant, TenantKind, TenantState},
        ids::TenantId,
        policy::Policy,
        rate_limits::RequestLimits,
    },
    proto::v1::{ContentRange, DownloadFileResponse, DownloadHeader, download_file_response::Message},
};

const CHUNK: usize = 4;

fn downloads(streams_max: usize) -> Downloads {
    let mut config = Config::defaults().unwrap().downloads;
    (config.chunk_size_bytes, config.chunks_in_flight_max, config.streams_max) = (CHUNK, 1, streams_max);
    Downloads::new(config, Metrics::for_tests().unwrap())
}

fn caller() -> Caller {
    let tenant = Tenant {
        id: TenantId::from_uuid(uuid::Uuid::nil()),
        kind: TenantKind::Organization,
        state: TenantState::Active,
        is_read_only: false,
        rate_limits: RequestLimits::default(),
        policy: Policy::preset("general").unwrap(),
    };
    Caller {
        tenant: Arc::new(tenant),
        actor: Actor { kind: ActorKind::User, id: "alice".to_owned() },
        role: Role::Member,
        groups: Vec::new(),
        scopes: Vec::new(),
        origin: Origin::default(),
        first_call: None,
    }
}

fn download(length: u64, bytes: BoxStream<'static, Result<Bytes, Error>>) -> StreamedBytes {
    let bytes = bytes.map(|piece| piece.map(DownloadPiece::from)).boxed();
    StreamedBytes { range: 2..2 + length, bytes }
}

fn header() -> DownloadFileResponse {
    let range = Some(ContentRange { offset: 2, length: 7, total_bytes: 100 });
    DownloadFileResponse {
        message: Some(Message::Header(DownloadHeader { range, ..DownloadHeader::default() })),
    }
}

fn start_download(
    downloads: &Downloads,
    length: u64,
    pieces: Vec<Result<Bytes, Error>>,
) -> DownloadStream<DownloadFileResponse> {
    let origin = Origin::default();
    let slot = downloads.acquire_slot(&caller()).unwrap();
    downloads.start_sending(slot, header(), download(length, stream::iter(pieces).boxed()), &origin)
}

fn piece(text: &'static [u8]) -> Result<Bytes, Error> {
    Ok(Bytes::from_static(text))
}

#[tokio::test]
async fn header_precedes_chunks_with_offset_and_checksum() {
    let downloads = downloads(1);
    let sent: Vec<_> = start_download(&downloads, 7, vec![piece(b"abcdef"), piece(b"g")]).collect().await;
    let messages: Vec<Message> = sent.into_iter().map(|sent| sent.unwrap().message.unwrap()).collect();
    let Message::Header(header) = &messages[0] else { panic!("not a header") };
    let range = header.range.unwrap();
    assert_eq!((range.offset, range.length, range.total_bytes), (2, 7, 100));
    let chunks: Vec<(i64, &[u8], u32)> = messages[1..]
        .iter()
        .map(|message| match message {
            Message::Chunk(chunk) => (chunk.offset, chunk.data.as_ref(), chunk.crc32c),
            Message::Header(_) => panic!("second header"),
        })
        .collect();
    assert_eq!(
        chunks.iter().map(|chunk| (chunk.0, chunk.1)).collect::<Vec<_>>(),
        [(2, &b"abcd"[..]), (6, b"ef"), (8, b"g")]
    );
    assert!(chunks.iter().all(|chunk| chunk.2 != 0));
    assert!(downloads.metrics.render().unwrap().contains("strongroom_downloaded_bytes_total 7"));
}

#[tokio::test]
async fn store_error_or_wrong_length_ends_the_stream_with_an_error() {
    for pieces in
        [vec![piece(b"ab"), Err(Error::ObjectMissing)], vec![piece(b"ab")], vec![piece(b"abcdefghi")]]
    {
        let sent: Vec<_> = start_download(&downloads(1), 7, pieces).collect().await;
        assert_eq!(sent.last().unwrap().as_ref().unwrap_err().code(), Code::DataLoss);
    }
}

#[tokio::test]
async fn panic_while_reading_ends_the_stream_with_an_error() {
    let panicking = stream::poll_fn(|_| panic!("the adapter panicked")).boxed();
    let downloads = downloads(1);
    let slot = downloads.acquire_slot(&caller()).unwrap();
    let sent: Vec<_> =
        downloads.start_sending(slot, header(), download(7, panicking), &Origin::default()).collect().await;
    assert_eq!(sent.last().unwrap().as_ref().unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn download_beyond_the_limit_is_refused_immediately() {
    let downloads = downloads(1);
    let _running = downloads.acquire_slot(&caller()).unwrap();
    let Err(refused) = downloads.acquire_slot(&caller()) else { panic!("accepted") };
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn disconnected_client_stops_the_reading() {
    let downloads = downloads(1);
    let slot = downloads.acquire_slot(&caller()).unwrap();
    let (reading, stopped) = oneshot::channel::<()>();
    let forever = stream::pending().chain(stream::once(async move {
        drop(reading);
        piece(b"")
    }));
    let stream = downloads.start_sending(slot, header(), download(7, forever.boxed()), &Origin::default());
    drop(stream);
    assert!(stopped.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn idle_client_loses_its_slot_and_queued_chunks() {
    let downloads = downloads(1);
    let stream = start_download(&downloads, 7, vec![piece(b"abcd"), piece(b"efg")]);
    let wait_max = Duration::from_secs(3_600);
    let _slot = downloads.slots.acquire(Holder::of_caller(&caller()), 1, wait_max).await.unwrap();
    let sent: Vec<_> = stream.collect().await;
    assert_eq!(sent.len(), 2, "the header and the error");
    assert_eq!(sent[1].as_ref().unwrap_err().code(), Code::DeadlineExceeded);
}
