//! Clients that stall, drip, send byte by byte, disappear at any point, and flood the service with resets.

use std::{net::SocketAddr, time::Duration};

use futures::{
    SinkExt, StreamExt,
    channel::mpsc,
    future::join_all,
    stream::{self, BoxStream},
};
use strongroom::proto::v1::{UploadFileRequest, UploadSpec, file_service_client::FileServiceClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, Request, transport::Endpoint};

use crate::{
    harness::{
        PART, Service, chunk, pattern, reason, service_test, service_test_with, spec, spec_message,
        upload_messages,
    },
    proxy::{Fault, Protocol, Proxy, Upstream},
};

/// Uploads this stream, which must be ended as too slow and leave nothing.
async fn stalls(s: &Service, messages: BoxStream<'static, UploadFileRequest>) -> String {
    let mut files = s.alice().files;
    let ended = tokio::time::timeout(Duration::from_secs(60), files.upload_file(messages)).await;
    let status = ended.expect("the service ends it").unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "UPLOAD_STALLED"), "{status:?}");
    s.assert_nothing_is_left().await;
    status.message().to_owned()
}

#[test]
fn a_client_that_stalls_is_ended_by_the_idle_timeout_wherever_it_was() {
    service_test_with(
        |config| config.uploads.idle_timeout_seconds = 1,
        |s| async move {
            s.alice().quota().await.unwrap();
            let told = UploadSpec { size_bytes: Some(3 * PART as i64), ..spec("a") };
            let whole = upload_messages(told, &pattern(3 * PART), PART);
            // Before the spec, after it, in the middle of the bytes, and with the finish sent but the stream left open.
            let stalled = [0, 1, 3, whole.len()].map(|count| {
                let sent = stream::iter(whole[..count].to_vec());
                stalls(&s, sent.chain(stream::pending()).boxed())
            });
            for message in join_all(stalled).await {
                assert!(message.contains("no message for 1 seconds"), "{message}");
            }
        },
    );
}

#[test]
fn a_client_that_drips_is_ended_by_the_rate_limit_although_it_is_never_silent() {
    let strict = |config: &mut strongroom::config::Config| {
        (config.uploads.rate_grace_seconds, config.uploads.rate_min_bytes_per_second) = (1, 1024);
    };
    service_test_with(strict, |s| async move {
        s.alice().quota().await.unwrap();
        // A drip is made of time: one byte every tenth of a second, until the service has enough of it.
        let ticks = stream::unfold(tokio::time::interval(Duration::from_millis(100)), |mut clock| async {
            clock.tick().await;
            Some(((), clock))
        });
        let drops = ticks.enumerate().map(|(offset, ())| chunk(offset, b"x"));
        // What came fast at first does not pay for dripping later.
        let flood = pattern(PART);
        let begun = stream::iter([spec_message(spec("a")), chunk(0, &flood)]);
        let later = drops.map(move |message| moved_by(PART, message));
        let message = stalls(&s, begun.chain(later).boxed()).await;
        assert!(message.contains("fewer than 1024 bytes per second"), "{message}");
    });
}

fn moved_by(by: usize, mut message: UploadFileRequest) -> UploadFileRequest {
    use strongroom::proto::v1::upload_file_request::Message;
    if let Some(Message::Chunk(chunk)) = &mut message.message {
        chunk.offset += by as i64;
    }
    message
}

#[test]
fn clients_that_send_byte_by_byte_make_the_right_file_within_the_byte_budget() {
    service_test_with(
        |config| config.uploads.byte_budget_bytes = 2 * PART,
        |s| async move {
            let data = pattern(3_000);
            let open: Vec<_> = (0..8)
                .map(|n| {
                    let (sender, stream) = mpsc::unbounded();
                    let mut files = s.alice().files;
                    let answer = tokio::spawn(async move { files.upload_file(stream).await });
                    let mut messages = upload_messages(spec(&format!("{n}")), &data, 1);
                    let finish = messages.pop().unwrap();
                    messages.into_iter().for_each(|message| sender.unbounded_send(message).unwrap());
                    (sender, finish, answer)
                })
                .collect();
            s.until("exactly their bytes are held", || async {
                s.metric("strongroom_byte_budget_used_bytes") as usize == 8 * data.len()
            })
            .await;
            for (sender, finish, answer) in open {
                sender.unbounded_send(finish).unwrap();
                drop(sender);
                let file = answer.await.unwrap().unwrap().into_inner().file.unwrap();
                assert_eq!(s.alice().read(&file.id).await.unwrap(), data);
            }
        },
    );
}

/// Starts an upload, sends these messages, waits until the service has received so many bytes, and disappears.
async fn disappear_after(s: &Service, messages: Vec<UploadFileRequest>, bytes: usize) {
    let received = s.metric("strongroom_uploaded_bytes");
    let (mut sender, stream) = mpsc::channel(1);
    let mut files = s.alice().files;
    let call = tokio::spawn(async move { files.upload_file(stream).await.map(|_| ()) });
    for message in messages {
        sender.send(message).await.unwrap();
    }
    let expected = received + bytes as u64;
    s.until("the bytes arrive", || async { s.metric("strongroom_uploaded_bytes") >= expected }).await;
    call.abort();
    let _ = call.await;
}

#[test]
fn a_client_that_cancels_after_any_message_leaves_nothing() {
    service_test(|s| async move {
        // So that the tenant is there.
        s.alice().quota().await.unwrap();
        for size in [10, PART, 3 * PART + 1] {
            for size_bytes in [None, Some(size as i64)] {
                let told = UploadSpec { size_bytes, ..spec("a") };
                let whole = upload_messages(told, &pattern(size), 30_000);
                // Up to the last byte, but before the finish.
                for count in 1..whole.len() {
                    let bytes = size.min((count - 1) * 30_000);
                    disappear_after(&s, whole[..count].to_vec(), bytes).await;
                    s.assert_nothing_is_left().await;
                }
            }
        }
    });
}

#[test]
fn a_client_that_cancels_after_its_finish_has_a_whole_file_or_none() {
    service_test(|s| async move {
        for size in [10, 3 * PART] {
            let messages = upload_messages(spec("a"), &pattern(size), 30_000);
            disappear_after(&s, messages, size).await;
        }
        s.stopped().await;
        let damaged = "SELECT count(*) FROM files f WHERE NOT EXISTS (SELECT FROM versions v
                       WHERE v.tenant_id = f.tenant_id AND v.file_id = f.id)";
        assert_eq!(s.owner.number(damaged).await, 0);
    });
}

/// Positions that differ from run to run of the loop, and are the same in every run of the test.
fn positions(below: usize, count: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    })
    .take(count)
}

#[test]
fn a_connection_that_breaks_at_any_byte_leaves_a_whole_file_or_none() {
    const CUTS: usize = 60;
    let size = 3 * PART + 500;
    service_test(|s| async move {
        s.alice().quota().await.unwrap();
        let service: SocketAddr = s.address.strip_prefix("http://").unwrap().parse().unwrap();
        let mut acknowledged = 0;
        // The bytes, and what HTTP/2 puts around them.
        for after_bytes in positions(size + size / 20, CUTS) {
            let proxy = Proxy::start(Protocol::Raw, Upstream::Tcp(service));
            proxy.strike(0..1, Fault::Cut { after_bytes }, |_| true);
            let messages = upload_messages(spec("a"), &pattern(size), 10_000);
            let uploaded = upload_through(&proxy, &s, messages).await;
            acknowledged += i64::from(uploaded);
            let reserved = "SELECT sum(reserved_bytes + reserved_file_count) FROM quotas";
            s.until("clean up", || async {
                s.owner.number(reserved).await == 0
                    && s.owner.number("SELECT count(*) FROM uploads WHERE state = 1").await == 0
                    && s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
            })
            .await;
        }
        s.stopped().await;
        let files = s.owner.number("SELECT count(*) FROM files").await;
        assert!(files >= acknowledged, "{files} files, {acknowledged} acknowledged");
        assert!(files < CUTS as i64 / 4, "most were cut before their end: {files} files");
    });
}

/// Whether the upload was acknowledged.
async fn upload_through(proxy: &Proxy, s: &Service, messages: Vec<UploadFileRequest>) -> bool {
    let endpoint = Endpoint::from_shared(format!("http://{}", proxy.address())).unwrap();
    let Ok(channel) = endpoint.connect().await else { return false };
    let mut request = Request::new(stream::iter(messages));
    let bearer = format!("Bearer {}", s.alice().token).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    FileServiceClient::new(channel).upload_file(request).await.is_ok()
}

/// The beginning of a connection: the preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of an upload, in the plainest form of HPACK.
fn upload_headers() -> Vec<u8> {
    const END_HEADERS_OF_A_POST_BY_HTTP: [u8; 2] = [0x83, 0x86];
    let text = |index: &[u8], value: &str| [index, &[value.len() as u8], value.as_bytes()].concat();
    [
        END_HEADERS_OF_A_POST_BY_HTTP.to_vec(),
        text(&[0x04], "/strongroom.v1.FileService/UploadFile"),
        text(&[0x01], "localhost"),
        text(&[0x0F, 0x10], "application/grpc"),
    ]
    .concat()
}

/// Opens streams and resets each at once, all in one breath; answers why the connection was closed.
async fn flood(service: SocketAddr, streams: u32) -> u32 {
    const END_HEADERS: u8 = 4;
    let mut connection = TcpStream::connect(service).await.unwrap();
    let mut bytes = PREFACE.to_vec();
    for stream in (0..streams).map(|n| 2 * n + 1) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &upload_headers()));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    let (mut from_service, mut to_service) = connection.split();
    // The service may close before it has taken all.
    let sent = async { drop(to_service.write_all(&bytes).await) };
    let closed = async {
        loop {
            let mut head = [0; 9];
            from_service.read_exact(&mut head).await.expect("a GOAWAY before the end");
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            from_service.read_exact(&mut payload).await.unwrap();
            if head[3] == GOAWAY {
                return u32::from_be_bytes(payload[4..8].try_into().unwrap());
            }
        }
    };
    tokio::join!(sent, closed).1
}

#[test]
fn a_client_that_floods_resets_is_shown_the_door_while_others_are_answered() {
    service_test(|s| async move {
        let service: SocketAddr = s.address.strip_prefix("http://").unwrap().parse().unwrap();
        let alice = s.alice();
        alice.quota().await.unwrap();
        let floods = join_all((0..8).map(|_| flood(service, 2_000)));
        let others = async {
            for _ in 0..40 {
                alice.quota().await.unwrap();
            }
            alice.upload(spec("a"), b"bytes").await.unwrap();
        };
        let (reasons, ()) = tokio::join!(floods, others);
        assert_eq!(reasons, [ENHANCE_YOUR_CALM; 8]);
        alice.upload(spec("b"), b"bytes").await.unwrap();
    });
}
