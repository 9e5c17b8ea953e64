//! Clients that stall, send slowly, send one byte per message, disappear at any point, or flood the service
//! with resets.

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

/// Uploads a stream, and checks that the service aborts it with `UPLOAD_STALLED` and stores nothing. Returns
/// the message.
async fn expect_stalled(s: &Service, messages: BoxStream<'static, UploadFileRequest>) -> String {
    let mut files = s.alice().files;
    let result = tokio::time::timeout(Duration::from_secs(60), files.upload_file(messages)).await;
    let status = result.expect("the service did not abort the upload within 60 s").unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "UPLOAD_STALLED"), "{status:?}");
    s.assert_nothing_is_left().await;
    status.message().to_owned()
}

#[test]
fn idle_timeout_aborts_stalled_upload_at_any_point() {
    service_test_with(
        |config| {
            config.uploads.idle_timeout_seconds = 1;
            config.uploads.first_message_seconds = 1;
        },
        |s| async move {
            s.alice().quota().await.unwrap();
            let declared = UploadSpec { size_bytes: Some(3 * PART as i64), ..spec("a") };
            let whole = upload_messages(declared, &pattern(3 * PART), PART);
            // Stall before the spec, after the spec, in the middle of the bytes, and after the finish with
            // the stream open.
            let stalled = [0, 1, 3, whole.len()].map(|count| {
                let sent = stream::iter(whole[..count].to_vec());
                expect_stalled(&s, sent.chain(stream::pending()).boxed())
            });
            for message in join_all(stalled).await {
                assert!(message.contains("received no bytes for 1 seconds"), "{message}");
            }
        },
    );
}

#[test]
fn minimum_rate_aborts_slow_upload() {
    let set_minimum_rate = |config: &mut strongroom::config::Config| {
        (config.uploads.rate_grace_seconds, config.uploads.rate_min_bytes_per_second) = (1, 1024);
    };
    service_test_with(set_minimum_rate, |s| async move {
        s.alice().quota().await.unwrap();
        // Send one byte every 100 ms, until the service aborts the upload.
        let ticks = stream::unfold(tokio::time::interval(Duration::from_millis(100)), |mut clock| async {
            clock.tick().await;
            Some(((), clock))
        });
        let single_bytes = ticks.enumerate().map(|(offset, ())| chunk(offset, b"x"));
        // A fast start does not compensate for slow bytes after it.
        let first_part = pattern(PART);
        let fast = stream::iter([spec_message(spec("a")), chunk(0, &first_part)]);
        let slow = single_bytes.map(move |message| shift_offset(PART, message));
        let message = expect_stalled(&s, fast.chain(slow).boxed()).await;
        assert!(message.contains("the minimum is 1024 bytes per second"), "{message}");
    });
}

fn shift_offset(by: usize, mut message: UploadFileRequest) -> UploadFileRequest {
    use strongroom::proto::v1::upload_file_request::Message;
    if let Some(Message::Chunk(chunk)) = &mut message.message {
        chunk.offset += by as i64;
    }
    message
}

#[test]
fn single_byte_chunks_are_stored_within_byte_budget() {
    service_test_with(
        |config| config.uploads.byte_budget_bytes = 2 * PART,
        |s| async move {
            let data = pattern(3_000);
            let open: Vec<_> = (0..8)
                .map(|n| {
                    let (sender, stream) = mpsc::unbounded();
                    let mut files = s.alice().files;
                    let response = tokio::spawn(async move { files.upload_file(stream).await });
                    let mut messages = upload_messages(spec(&format!("{n}")), &data, 1);
                    let finish = messages.pop().unwrap();
                    messages.into_iter().for_each(|message| sender.unbounded_send(message).unwrap());
                    (sender, finish, response)
                })
                .collect();
            s.wait_until("exactly the sent bytes are buffered", || async {
                s.read_metric("strongroom_byte_budget_used_bytes") as usize == 8 * data.len()
            })
            .await;
            for (sender, finish, response) in open {
                sender.unbounded_send(finish).unwrap();
                drop(sender);
                let file = response.await.unwrap().unwrap().into_inner().file.unwrap();
                assert_eq!(s.alice().read(&file.id).await.unwrap(), data);
            }
        },
    );
}

/// Starts an upload, sends `messages`, waits until the service has received `bytes`, and cancels the call.
async fn cancel_after(s: &Service, messages: Vec<UploadFileRequest>, bytes: usize) {
    let received = s.read_metric("strongroom_uploaded_bytes");
    let (mut sender, stream) = mpsc::channel(1);
    let mut files = s.alice().files;
    let call = tokio::spawn(async move { files.upload_file(stream).await.map(|_| ()) });
    for message in messages {
        sender.send(message).await.unwrap();
    }
    let expected = received + bytes as u64;
    s.wait_until("the bytes arrive", || async { s.read_metric("strongroom_uploaded_bytes") >= expected })
        .await;
    call.abort();
    let _ = call.await;
}

#[test]
fn upload_cancelled_before_finish_stores_nothing() {
    service_test(|s| async move {
        // Create the tenant.
        s.alice().quota().await.unwrap();
        for size in [10, PART, 3 * PART + 1] {
            for size_bytes in [None, Some(size as i64)] {
                let declared = UploadSpec { size_bytes, ..spec("a") };
                let whole = upload_messages(declared, &pattern(size), 30_000);
                // Cancel after every message before the finish.
                for count in 1..whole.len() {
                    let bytes = size.min((count - 1) * 30_000);
                    cancel_after(&s, whole[..count].to_vec(), bytes).await;
                    s.assert_nothing_is_left().await;
                }
            }
        }
    });
}

#[test]
fn upload_cancelled_after_finish_is_complete_or_absent() {
    service_test(|s| async move {
        for size in [10, 3 * PART] {
            let messages = upload_messages(spec("a"), &pattern(size), 30_000);
            cancel_after(&s, messages, size).await;
        }
        s.stop().await;
        let damaged = "SELECT count(*) FROM files f WHERE NOT EXISTS (SELECT FROM versions v
                       WHERE v.tenant_id = f.tenant_id AND v.file_id = f.id)";
        assert_eq!(s.superuser.query_number(damaged).await, 0);
    });
}

/// Returns pseudo-random positions, which are the same in every run of the test.
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
fn broken_connection_leaves_complete_file_or_none() {
    const CUTS: usize = 60;
    let size = 3 * PART + 500;
    service_test(|s| async move {
        s.alice().quota().await.unwrap();
        let service: SocketAddr = s.address.strip_prefix("http://").unwrap().parse().unwrap();
        let mut acknowledged = 0;
        // The range includes the HTTP/2 framing.
        for after_bytes in positions(size + size / 20, CUTS) {
            let proxy = Proxy::start(Protocol::Raw, Upstream::Tcp(service));
            proxy.inject(0..1, Fault::CutRequest { after_bytes }, |_| true);
            let messages = upload_messages(spec("a"), &pattern(size), 10_000);
            let uploaded = upload_through(&proxy, &s, messages).await;
            acknowledged += i64::from(uploaded);
            let reserved = "SELECT sum(reserved_bytes + reserved_file_count) FROM quotas";
            s.wait_until("clean up", || async {
                s.superuser.query_number(reserved).await == 0
                    && s.superuser
                        .query_number("SELECT count(*) FROM uploads WHERE state = {upload_state.open}")
                        .await
                        == 0
                    && s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
            })
            .await;
        }
        s.stop().await;
        let files = s.superuser.query_number("SELECT count(*) FROM files").await;
        assert!(files >= acknowledged, "{files} files, {acknowledged} acknowledged");
        assert!(files < CUTS as i64 / 4, "too few connections broke before the end: {files} files");
    });
}

/// Uploads through the proxy. Returns whether the upload was acknowledged.
async fn upload_through(proxy: &Proxy, s: &Service, messages: Vec<UploadFileRequest>) -> bool {
    let endpoint = Endpoint::from_shared(format!("http://{}", proxy.address())).unwrap();
    let Ok(channel) = endpoint.connect().await else { return false };
    let mut request = Request::new(stream::iter(messages));
    let bearer = format!("Bearer {}", s.alice().token).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    FileServiceClient::new(channel).upload_file(request).await.is_ok()
}

/// The HTTP/2 connection preface and an empty SETTINGS frame.
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

/// Returns the HPACK-encoded headers of an upload, without indexing or Huffman coding.
fn upload_headers() -> Vec<u8> {
    /// The indexed fields `:method: POST` and `:scheme: http`.
    const METHOD_AND_SCHEME: [u8; 2] = [0x83, 0x86];
    let text = |index: &[u8], value: &str| [index, &[value.len() as u8], value.as_bytes()].concat();
    [
        METHOD_AND_SCHEME.to_vec(),
        text(&[0x04], "/strongroom.v1.FileService/UploadFile"),
        text(&[0x01], "localhost"),
        text(&[0x0F, 0x10], "application/grpc"),
    ]
    .concat()
}

/// Opens streams and resets each immediately. Returns the error code of the GOAWAY frame.
async fn flood_resets(service: SocketAddr, streams: u32) -> u32 {
    const END_HEADERS: u8 = 4;
    let mut connection = TcpStream::connect(service).await.unwrap();
    let mut bytes = PREFACE.to_vec();
    for stream in (0..streams).map(|n| 2 * n + 1) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &upload_headers()));
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    let (mut from_service, mut to_service) = connection.split();
    // The service may close the connection before it has read everything.
    let sent = async { drop(to_service.write_all(&bytes).await) };
    let closed = async {
        loop {
            let mut head = [0; 9];
            from_service.read_exact(&mut head).await.expect("the connection was closed without GOAWAY");
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
fn client_that_floods_resets_is_disconnected() {
    service_test(|s| async move {
        let service: SocketAddr = s.address.strip_prefix("http://").unwrap().parse().unwrap();
        let alice = s.alice();
        alice.quota().await.unwrap();
        let floods = join_all((0..8).map(|_| flood_resets(service, 2_000)));
        let other_calls = async {
            for _ in 0..40 {
                alice.quota().await.unwrap();
            }
            alice.upload(spec("a"), b"bytes").await.unwrap();
        };
        let (error_codes, ()) = tokio::join!(floods, other_calls);
        assert_eq!(error_codes, [ENHANCE_YOUR_CALM; 8]);
        alice.upload(spec("b"), b"bytes").await.unwrap();
    });
}
