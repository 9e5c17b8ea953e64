//! Tests of the guarantees in the module documentation, against a fake server.

use std::{io, sync::Arc, sync::atomic::AtomicU64, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    Client, ClientError, ClientOptions, Code,
    fake_service::{FakeServer, download_messages},
};
use crate::proto::v1::{upload_file_request::Message, *};

fn spec(name: &str) -> UploadSpec {
    UploadSpec { name: name.to_owned(), ..UploadSpec::default() }
}

fn refusal(code: Code, reason: &str, more: impl FnOnce(&mut ErrorDetails)) -> Status {
    let metadata = [("limit_bytes", "10"), ("call_id", "c-7")].map(|(key, value)| (key.into(), value.into()));
    let mut details = ErrorDetails::with_error_info(reason, "strongroom", metadata);
    more(&mut details);
    Status::with_error_details(code, format!("refused as {reason}"), details)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// A reader whose reads fail.
struct FailingReader;

impl AsyncRead for FailingReader {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(io::Error::other("disk failed")))
    }
}

#[tokio::test]
async fn upload_sends_spec_gapless_chunks_and_finish() {
    let mut server = FakeServer::start().await;
    let data = bytes(2 * 1024 * 1024 + 17);
    let progress = Arc::new(AtomicU64::new(0));
    let reported = Arc::clone(&progress);
    let client = server.connect().await;
    let report = move |read_bytes| reported.store(read_bytes, Ordering::Relaxed);
    let response = client.upload_reader(spec("a.bin"), io::Cursor::new(data.clone()), report).await.unwrap();

    let file = response.file.unwrap();
    assert_eq!(file.sha256[..], Sha256::digest(&data)[..]);
    assert_eq!(file.size_bytes.unsigned_abs(), progress.load(Ordering::Relaxed));
    assert_eq!(server.script.lock().unwrap().authorization.as_deref(), Some("Bearer alice"));

    let messages = server.uploads.recv().await.unwrap();
    let mut received = Vec::new();
    for message in &messages[1..messages.len() - 1] {
        let Message::Chunk(chunk) = message else { panic!("{message:?} is between the chunks") };
        assert_eq!(chunk.offset.unsigned_abs(), received.len() as u64);
        assert_eq!(chunk.crc32c, Some(crc_fast::crc32_iscsi(&chunk.data)));
        received.extend_from_slice(&chunk.data);
    }
    assert_eq!(received, data);
    assert!(matches!(messages.first(), Some(Message::Spec(spec)) if spec.name == "a.bin"));
    assert!(matches!(messages.last(), Some(Message::Finish(_))));
    assert_eq!(messages.len(), 5, "chunks of 1 MiB");
}

#[tokio::test]
async fn empty_source_becomes_an_empty_file() {
    let server = FakeServer::start().await;
    let client = server.connect().await;
    let response = client.upload_reader(spec("empty"), tokio::io::empty(), |_| {}).await.unwrap();
    assert_eq!(response.file.unwrap().sha256[..], Sha256::digest(b"")[..]);
}

#[tokio::test]
async fn failed_source_sends_no_finish() {
    let mut server = FakeServer::start().await;
    let source = io::Cursor::new(bytes(3 * 1024 * 1024)).chain(FailingReader);
    let error = server.connect().await.upload_reader(spec("a.bin"), source, |_| {}).await.unwrap_err();

    assert!(matches!(&error, ClientError::Source(error) if error.to_string() == "disk failed"), "{error:?}");
    let messages = server.uploads.recv().await.unwrap();
    assert!(!messages.iter().any(|message| matches!(message, Message::Finish(_))));
}

#[tokio::test]
async fn dropped_upload_sends_no_finish() {
    let mut server = FakeServer::start().await;
    let client = server.connect().await;
    let (mut writer, reader) = tokio::io::duplex(64);
    let upload = tokio::spawn(async move { client.upload_reader(spec("a.bin"), reader, |_| {}).await });
    tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes(2 * 1024 * 1024)).await.unwrap();
    upload.abort();
    assert!(upload.await.unwrap_err().is_cancelled());

    let messages = server.uploads.recv().await.unwrap();
    assert!(!messages.iter().any(|message| matches!(message, Message::Finish(_))));
    assert!(matches!(messages.first(), Some(Message::Spec(_))));
}

#[tokio::test]
async fn early_refusal_is_returned_while_the_source_has_bytes() {
    let server = FakeServer::start().await;
    server.refuse_next_call(refusal(Code::InvalidArgument, "INVALID_FIELD", |details| {
        details.add_bad_request_violation("spec.name", "is empty");
        details.add_bad_request_violation("spec.tags", "are 60");
    }));
    let error =
        server.connect().await.upload_reader(spec(""), tokio::io::repeat(7), |_| {}).await.unwrap_err();

    let rejection = error.rejection().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!((rejection.code, rejection.reason), (Code::InvalidArgument, ErrorReason::InvalidField));
    assert_eq!(rejection.metadata["limit_bytes"], "10");
    assert_eq!(
        error.to_string(),
        "refused as INVALID_FIELD; spec.name: is empty; spec.tags: are 60 (call id c-7)"
    );
}

#[tokio::test]
async fn file_upload_is_retried_with_the_same_request_id() {
    let mut server = FakeServer::start().await;
    server.refuse_next_call(refusal(Code::Unavailable, "SHUTTING_DOWN", |details| {
        details.set_retry_info(Some(Duration::from_millis(1)));
    }));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.bin");
    std::fs::write(&path, bytes(100)).unwrap();
    server.connect().await.upload_file(&path, spec("a.bin"), |_| {}).await.unwrap();

    let messages = server.uploads.recv().await.unwrap();
    let Some(Message::Spec(spec)) = messages.first() else { panic!("{messages:?}") };
    assert_eq!(spec.size_bytes, Some(100));
    assert_eq!(spec.request_id.len(), 36);
    assert_eq!(server.script.lock().unwrap().call_count, 2);
}

#[tokio::test]
async fn whole_download_is_verified_and_written() {
    let server = FakeServer::start().await;
    let data = bytes(100_000);
    server.script_download(download_messages("a.bin", &data, 4_096));
    let mut copy = Vec::new();
    let header =
        server.connect().await.download_to(DownloadFileRequest::default(), &mut copy, |_| {}).await.unwrap();
    assert_eq!(copy, data);
    assert_eq!(header.file.unwrap().name, "a.bin");
}

/// Downloads ten valid chunks that `damage` has changed, and returns the error of the client.
async fn download_damaged(damage: impl FnOnce(&mut Vec<DownloadFileResponse>)) -> String {
    let server = FakeServer::start().await;
    let mut messages = download_messages("a.bin", &bytes(1_000), 100);
    damage(&mut messages);
    server.script_download(messages);
    let download = server.connect().await.open_download(DownloadFileRequest::default()).await;
    let error = match download {
        Ok(download) => download.into_stream().try_collect::<Vec<Bytes>>().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, ClientError::Corrupted { .. }), "{error:?}");
    error.to_string()
}

fn chunk(message: &mut DownloadFileResponse) -> &mut DownloadChunk {
    let Some(download_file_response::Message::Chunk(chunk)) = &mut message.message else {
        panic!("not a chunk")
    };
    chunk
}

fn header(message: &mut DownloadFileResponse) -> &mut DownloadHeader {
    let Some(download_file_response::Message::Header(header)) = &mut message.message else {
        panic!("not a header")
    };
    header
}

#[tokio::test]
async fn damaged_download_is_detected() {
    let problem = download_damaged(|messages| chunk(&mut messages[5]).data = Bytes::from(vec![0; 100])).await;
    assert!(problem.contains("chunk at offset 400 has CRC32C"), "{problem}");

    let problem =
        download_damaged(|messages| header(&mut messages[0]).sha256 = Bytes::from(vec![0; 32])).await;
    assert!(problem.contains("SHA-256 is"), "{problem}");

    let problem = download_damaged(|messages| header(&mut messages[0]).sha256 = Bytes::new()).await;
    assert!(problem.contains("SHA-256 is"), "{problem}");

    let problem = download_damaged(|messages| drop(messages.remove(3))).await;
    assert!(problem.contains("chunk has offset 300; 200 was expected"), "{problem}");

    let problem = download_damaged(|messages| drop(messages.pop())).await;
    assert!(problem.contains("stream ended at offset 900; 1000 was expected"), "{problem}");

    let problem =
        download_damaged(|messages| header(&mut messages[0]).range.as_mut().unwrap().length = 950).await;
    assert!(problem.contains("has 100 bytes; the range ends at 950"), "{problem}");

    let problem =
        download_damaged(|messages| header(&mut messages[0]).range.as_mut().unwrap().offset = i64::MAX).await;
    assert!(problem.contains("invalid range"), "{problem}");

    let problem = download_damaged(|messages| drop(messages.remove(0))).await;
    assert!(problem.contains("does not begin with a header"), "{problem}");
}

#[tokio::test]
async fn range_is_accepted_without_a_digest() {
    let server = FakeServer::start().await;
    let mut messages = download_messages("a.bin", &bytes(1_000), 100);
    messages.truncate(4);
    messages.remove(1);
    header(&mut messages[0]).range = Some(ContentRange { offset: 100, length: 200, total_bytes: 1_000 });
    server.script_download(messages);
    let mut part = Vec::new();
    server.connect().await.download_to(DownloadFileRequest::default(), &mut part, |_| {}).await.unwrap();
    assert_eq!(part, bytes(1_000)[100..300]);
}

#[tokio::test]
async fn change_is_retried_with_the_same_request_id() {
    let server = FakeServer::start().await;
    server.refuse_next_call(Status::unavailable("restarting"));
    server.refuse_next_call(refusal(Code::Aborted, "REQUEST_IN_PROGRESS", |details| {
        details.set_retry_info(Some(Duration::from_millis(1)));
    }));
    server.connect().await.delete_file(DeleteFileRequest::default()).await.unwrap();

    let script = server.script.lock().unwrap();
    assert_eq!(script.request_ids.len(), 3);
    assert!(script.request_ids.iter().all(|id| *id == script.request_ids[0] && id.len() == 36));
}

#[tokio::test]
async fn permanent_error_is_not_retried() {
    let server = FakeServer::start().await;
    let client = server.connect().await;
    let retry_in_an_hour = |details: &mut ErrorDetails| {
        details.set_retry_info(Some(Duration::from_secs(3_600)));
    };
    for status in [
        refusal(Code::NotFound, "NOT_FOUND", |_| {}),
        refusal(Code::ResourceExhausted, "QUOTA_BYTES_EXCEEDED", |_| {}),
        refusal(Code::Unavailable, "DATABASE_UNAVAILABLE", retry_in_an_hour),
    ] {
        let code = status.code();
        server.refuse_next_call(status);
        let error = client.get_file(GetFileRequest::default()).await.unwrap_err();
        assert_eq!(error.rejection().map(|rejection| rejection.code), Some(code), "{error:?}");
    }
    assert_eq!(server.script.lock().unwrap().call_count, 3);
}

#[tokio::test]
async fn unavailable_server_is_tried_three_times() {
    let server = FakeServer::start().await;
    for _ in 0..5 {
        server.refuse_next_call(Status::unavailable("restarting"));
    }
    let error = server.connect().await.get_quota(GetQuotaRequest::default()).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().code, Code::Unavailable);
    assert_eq!(server.script.lock().unwrap().call_count, 3);
}

#[tokio::test]
async fn list_of_all_files_reads_empty_pages_too() {
    let server = FakeServer::start().await;
    let file = |id: &str| File { id: id.to_owned(), ..File::default() };
    server.script.lock().unwrap().pages = vec![vec![file("1"), file("2")], vec![], vec![file("3")]];
    let client = server.connect().await;
    let files: Vec<File> = client.list_all_files(ListFilesRequest::default()).try_collect().await.unwrap();
    assert_eq!(files.iter().map(|file| file.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
}

#[tokio::test]
async fn broken_connection_is_a_transport_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        connection.read_u8().await.unwrap();
    });
    let client = Client::connect(ClientOptions::new(endpoint, "alice".into())).await.unwrap();
    let error = client.upload_reader(spec("a.bin"), tokio::io::repeat(7), |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Transport { .. }), "{error:?}");
    server.await.unwrap();
}

#[tokio::test]
async fn invalid_options_are_named() {
    let error = Client::connect(ClientOptions::new("127.0.0.1:1", "alice".into())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "server address is \"127.0.0.1:1\"; it must begin with https:// or http://"
    );
    let error = Client::connect(ClientOptions::new("http://127.0.0.1:1", "a\nb".into())).await.unwrap_err();
    assert_eq!(error.to_string(), "token must be one line of visible ASCII characters");
    let error = Client::connect(ClientOptions::new("http://127.0.0.1:1", "alice".into())).await.unwrap_err();
    assert!(matches!(error, ClientError::Transport { .. }));
    assert!(error.to_string().starts_with("server is unreachable: Connection refused"), "{error}");
}

#[tokio::test]
async fn rejects_frame_size_outside_the_range_of_http2() {
    for frame_size_bytes_max in [16_383, 16_777_216] {
        let options = ClientOptions::new("http://127.0.0.1:1", "token".into());
        let error = Client::connect(ClientOptions { frame_size_bytes_max, ..options }).await.unwrap_err();
        assert!(matches!(error, ClientError::Options { .. }), "{error:?}");
    }
}

fn upload(id: &str, persisted: usize) -> Upload {
    let persisted_size_bytes = i64::try_from(persisted).unwrap();
    Upload { id: id.to_owned(), persisted_size_bytes, ..Upload::default() }
}

/// Creates a file with `size` bytes and returns it with its content.
fn create_file(size: usize) -> (tempfile::NamedTempFile, Vec<u8>) {
    let (file, data) = (tempfile::NamedTempFile::new().unwrap(), bytes(size));
    std::fs::write(file.path(), &data).unwrap();
    (file, data)
}

#[tokio::test]
async fn resumed_upload_sends_only_the_missing_bytes() {
    let mut server = FakeServer::start().await;
    let (file, data) = create_file(3000);
    server.script.lock().unwrap().upload = Some(upload("u1", 1000));
    let on_created = |upload: &Upload| panic!("{upload:?} was created");
    let client = server.connect().await;
    let id = Some("u1".to_owned());
    let response = client.upload_resumable(file.path(), spec("a.bin"), id, on_created, |_| {}).await.unwrap();
    assert_eq!(response.file.unwrap().sha256[..], Sha256::digest(&data)[..]);
    let messages = server.uploads.recv().await.unwrap();
    assert!(matches!(&messages[0], Message::UploadId(id) if id == "u1"), "{messages:?}");
    assert!(
        matches!(&messages[1], Message::Chunk(chunk) if chunk.offset == 1000 && chunk.data == data[1000..])
    );
    assert!(matches!(&messages[2], Message::Finish(finish) if finish.size_bytes == 3000));
}

#[tokio::test]
async fn interrupted_upload_resumes_while_it_makes_progress() {
    let server = FakeServer::start().await;
    let (file, _) = create_file(3000);
    server.script.lock().unwrap().upload = Some(upload("u1", 0));
    let client = server.connect().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        server.refuse_next_call(Status::unavailable("restarting"));
    }
    // The creation is retried, then the stream.
    let on_created = |upload: &Upload| ids.push(upload.id.clone());
    client.upload_resumable(file.path(), spec("a.bin"), None, on_created, |_| {}).await.unwrap();
    assert_eq!(ids, ["u1"]);

    for _ in 0..1000 {
        server.refuse_next_call(Status::unavailable("unreachable"));
    }
    let error = client.upload_resumable(file.path(), spec("a.bin"), None, |_| {}, |_| {}).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().code, Code::Unavailable);
}

#[tokio::test]
async fn shortened_file_is_not_resumed() {
    let server = FakeServer::start().await;
    let (file, _) = create_file(10);
    server.script.lock().unwrap().upload = Some(upload("u1", 1000));
    let id = Some("u1".to_owned());
    let client = server.connect().await;
    let error = client.upload_resumable(file.path(), spec("a.bin"), id, |_| {}, |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Source(_)), "{error:?}");
}

#[tokio::test]
async fn broken_watch_resumes_after_the_last_message() {
    let server = FakeServer::start().await;
    let message = |cursor: &str| WatchFilesResponse { message: None, cursor: cursor.to_owned() };
    let unavailable = || Status::new(Code::Unavailable, "");
    server.script.lock().unwrap().watches = [
        vec![Ok(message("1")), Ok(message("2")), Err(unavailable())],
        vec![],
        vec![Ok(message("3")), Err(Status::new(Code::FailedPrecondition, "too old"))],
    ]
    .into();
    let request = WatchFilesRequest { cursor: "0".to_owned(), filter: None };
    let messages: Vec<_> = server.connect().await.watch_files(request).collect().await;
    let cursors: Vec<String> = messages.iter().flatten().map(|message| message.cursor.clone()).collect();
    assert_eq!(cursors, ["1", "2", "3"]);
    let last = messages.last().unwrap().as_ref().unwrap_err();
    assert_eq!(last.rejection().unwrap().code, Code::FailedPrecondition);
    assert_eq!(messages.len(), 4);
    assert_eq!(server.script.lock().unwrap().cursors, ["0", "2", "2"]);
}
