//! The promises of the module doc, against a server of scripted answers.

use std::{io, sync::Arc, sync::atomic::AtomicU64, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    Client, ClientError, ClientOptions, Code,
    fake_service::{FakeServer, download_of},
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

/// Fails every read.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(io::Error::other("the disk is gone")))
    }
}

#[tokio::test]
async fn an_upload_is_a_spec_gapless_chunks_and_a_finish() {
    let mut server = FakeServer::start().await;
    let data = bytes(2 * 1024 * 1024 + 17);
    let progress = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&progress);
    let answer = server
        .client()
        .await
        .upload(spec("a.bin"), io::Cursor::new(data.clone()), move |sent| seen.store(sent, Ordering::Relaxed))
        .await
        .unwrap();

    let file = answer.file.unwrap();
    assert_eq!(file.sha256[..], Sha256::digest(&data)[..]);
    assert_eq!(file.size_bytes.unsigned_abs(), progress.load(Ordering::Relaxed));
    assert_eq!(server.script.lock().unwrap().authorization.as_deref(), Some("Bearer alice"));

    let messages = server.uploads.recv().await.unwrap();
    let mut received = Vec::new();
    for message in &messages[1..messages.len() - 1] {
        let Message::Chunk(chunk) = message else { panic!("{message:?} stands between the chunks") };
        assert_eq!(chunk.offset.unsigned_abs(), received.len() as u64);
        assert_eq!(chunk.crc32c, Some(crc_fast::crc32_iscsi(&chunk.data)));
        received.extend_from_slice(&chunk.data);
    }
    assert_eq!(received, data);
    assert!(matches!(messages.first(), Some(Message::Spec(spec)) if spec.name == "a.bin"));
    assert!(matches!(messages.last(), Some(Message::Finish(_))));
    assert_eq!(messages.len(), 5, "1 MiB a chunk");
}

#[tokio::test]
async fn an_empty_source_is_an_empty_file() {
    let server = FakeServer::start().await;
    let answer = server.client().await.upload(spec("empty"), tokio::io::empty(), |_| {}).await.unwrap();
    assert_eq!(answer.file.unwrap().sha256[..], Sha256::digest(b"")[..]);
}

#[tokio::test]
async fn a_source_that_fails_never_looks_finished() {
    let mut server = FakeServer::start().await;
    let source = io::Cursor::new(bytes(3 * 1024 * 1024)).chain(Broken);
    let error = server.client().await.upload(spec("a.bin"), source, |_| {}).await.unwrap_err();

    assert!(
        matches!(&error, ClientError::Source(error) if error.to_string() == "the disk is gone"),
        "{error:?}"
    );
    let messages = server.uploads.recv().await.unwrap();
    assert!(!messages.iter().any(|message| matches!(message, Message::Finish(_))));
}

#[tokio::test]
async fn an_upload_that_is_dropped_never_looks_finished() {
    let mut server = FakeServer::start().await;
    let client = server.client().await;
    let (mut writer, reader) = tokio::io::duplex(64);
    let upload = tokio::spawn(async move { client.upload(spec("a.bin"), reader, |_| {}).await });
    tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes(2 * 1024 * 1024)).await.unwrap();
    upload.abort();
    assert!(upload.await.unwrap_err().is_cancelled());

    let messages = server.uploads.recv().await.unwrap();
    assert!(!messages.iter().any(|message| matches!(message, Message::Finish(_))));
    assert!(matches!(messages.first(), Some(Message::Spec(_))));
}

#[tokio::test]
async fn an_early_refusal_comes_back_with_its_reason_while_the_source_still_has_bytes() {
    let server = FakeServer::start().await;
    server.refuse(refusal(Code::InvalidArgument, "INVALID_FIELD", |details| {
        details.add_bad_request_violation("spec.name", "is empty");
        details.add_bad_request_violation("spec.tags", "are 60");
    }));
    let error = server.client().await.upload(spec(""), tokio::io::repeat(7), |_| {}).await.unwrap_err();

    let rejection = error.rejection().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!((rejection.code, rejection.reason), (Code::InvalidArgument, ErrorReason::InvalidField));
    assert_eq!(rejection.metadata["limit_bytes"], "10");
    assert_eq!(
        error.to_string(),
        "refused as INVALID_FIELD; spec.name: is empty; spec.tags: are 60 (call id c-7)"
    );
}

#[tokio::test]
async fn a_file_is_sent_again_with_the_same_request_id_when_the_server_was_away() {
    let mut server = FakeServer::start().await;
    server.refuse(refusal(Code::Unavailable, "SHUTTING_DOWN", |details| {
        details.set_retry_info(Some(Duration::from_millis(1)));
    }));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.bin");
    std::fs::write(&path, bytes(100)).unwrap();
    server.client().await.upload_file(&path, spec("a.bin"), |_| {}).await.unwrap();

    let messages = server.uploads.recv().await.unwrap();
    let Some(Message::Spec(sent)) = messages.first() else { panic!("{messages:?}") };
    assert_eq!(sent.size_bytes, Some(100));
    assert_eq!(sent.request_id.len(), 36);
    assert_eq!(server.script.lock().unwrap().calls, 2);
}

#[tokio::test]
async fn a_whole_download_is_checked_and_handed_over() {
    let server = FakeServer::start().await;
    let data = bytes(100_000);
    server.will_send(download_of("a.bin", &data, 4_096));
    let mut copy = Vec::new();
    let header =
        server.client().await.download_to(DownloadFileRequest::default(), &mut copy, |_| {}).await.unwrap();
    assert_eq!(copy, data);
    assert_eq!(header.file.unwrap().name, "a.bin");
}

/// Downloads what `spoil` made of ten good chunks, and returns what the client says about it.
async fn spoiled(spoil: impl FnOnce(&mut Vec<DownloadFileResponse>)) -> String {
    let server = FakeServer::start().await;
    let mut messages = download_of("a.bin", &bytes(1_000), 100);
    spoil(&mut messages);
    server.will_send(messages);
    let download = server.client().await.download(DownloadFileRequest::default()).await;
    let error = match download {
        Ok(download) => download.into_stream().try_collect::<Vec<Bytes>>().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, ClientError::Corrupted { .. }), "{error:?}");
    error.to_string()
}

fn chunk(message: &mut DownloadFileResponse) -> &mut DownloadChunk {
    let Some(download_file_response::Message::Chunk(chunk)) = &mut message.message else {
        panic!("no chunk")
    };
    chunk
}

fn header(message: &mut DownloadFileResponse) -> &mut DownloadHeader {
    let Some(download_file_response::Message::Header(header)) = &mut message.message else {
        panic!("no header")
    };
    header
}

#[tokio::test]
async fn a_damaged_download_never_passes_for_whole() {
    let said = spoiled(|messages| chunk(&mut messages[5]).data = Bytes::from(vec![0; 100])).await;
    assert!(said.contains("the chunk at offset 400 has CRC32C"), "{said}");

    let said = spoiled(|messages| header(&mut messages[0]).sha256 = Bytes::from(vec![0; 32])).await;
    assert!(said.contains("its SHA-256 is"), "{said}");

    let said = spoiled(|messages| header(&mut messages[0]).sha256 = Bytes::new()).await;
    assert!(said.contains("its SHA-256 is"), "{said}");

    let said = spoiled(|messages| drop(messages.remove(3))).await;
    assert!(said.contains("bytes of offset 300 came where 200 was due"), "{said}");

    let said = spoiled(|messages| drop(messages.pop())).await;
    assert!(said.contains("it ended at offset 900 instead of 1000"), "{said}");

    let said = spoiled(|messages| header(&mut messages[0]).range.as_mut().unwrap().length = 950).await;
    assert!(said.contains("more bytes came than the range has"), "{said}");

    let said = spoiled(|messages| header(&mut messages[0]).range.as_mut().unwrap().offset = i64::MAX).await;
    assert!(said.contains("impossible range"), "{said}");

    let said = spoiled(|messages| drop(messages.remove(0))).await;
    assert!(said.contains("does not begin with a header"), "{said}");
}

#[tokio::test]
async fn a_range_is_taken_without_a_digest() {
    let server = FakeServer::start().await;
    let mut messages = download_of("a.bin", &bytes(1_000), 100);
    messages.truncate(4);
    messages.remove(1);
    header(&mut messages[0]).range = Some(ContentRange { offset: 100, length: 200, total_bytes: 1_000 });
    server.will_send(messages);
    let mut part = Vec::new();
    server.client().await.download_to(DownloadFileRequest::default(), &mut part, |_| {}).await.unwrap();
    assert_eq!(part, bytes(1_000)[100..300]);
}

#[tokio::test]
async fn a_change_is_repeated_under_one_request_id() {
    let server = FakeServer::start().await;
    server.refuse(Status::unavailable("restarting"));
    server.refuse(refusal(Code::Aborted, "REQUEST_IN_PROGRESS", |details| {
        details.set_retry_info(Some(Duration::from_millis(1)));
    }));
    server.client().await.delete_file(DeleteFileRequest::default()).await.unwrap();

    let script = server.script.lock().unwrap();
    assert_eq!(script.request_ids.len(), 3);
    assert!(script.request_ids.iter().all(|id| *id == script.request_ids[0] && id.len() == 36));
}

#[tokio::test]
async fn what_a_repetition_cannot_help_is_not_repeated() {
    let server = FakeServer::start().await;
    let client = server.client().await;
    let long = |details: &mut ErrorDetails| {
        details.set_retry_info(Some(Duration::from_secs(3_600)));
    };
    for status in [
        refusal(Code::NotFound, "NOT_FOUND", |_| {}),
        refusal(Code::ResourceExhausted, "QUOTA_BYTES_EXCEEDED", |_| {}),
        refusal(Code::Unavailable, "DATABASE_UNAVAILABLE", long),
    ] {
        let code = status.code();
        server.refuse(status);
        let error = client.get_file(GetFileRequest::default()).await.unwrap_err();
        assert_eq!(error.rejection().map(|rejection| rejection.code), Some(code), "{error:?}");
    }
    assert_eq!(server.script.lock().unwrap().calls, 3);
}

#[tokio::test]
async fn a_server_that_stays_away_is_given_up_after_three_tries() {
    let server = FakeServer::start().await;
    for _ in 0..5 {
        server.refuse(Status::unavailable("restarting"));
    }
    let error = server.client().await.get_quota(GetQuotaRequest::default()).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().code, Code::Unavailable);
    assert_eq!(server.script.lock().unwrap().calls, 3);
}

#[tokio::test]
async fn a_list_of_everything_walks_all_pages_also_empty_ones() {
    let server = FakeServer::start().await;
    let file = |id: &str| File { id: id.to_owned(), ..File::default() };
    server.script.lock().unwrap().pages = vec![vec![file("1"), file("2")], vec![], vec![file("3")]];
    let client = server.client().await;
    let files: Vec<File> = client.list_all(ListFilesRequest::default()).try_collect().await.unwrap();
    assert_eq!(files.iter().map(|file| file.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_transport_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let hangs_up = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        connection.read_u8().await.unwrap();
    });
    let client = Client::connect(ClientOptions::new(endpoint, "alice".into())).await.unwrap();
    let error = client.upload(spec("a.bin"), tokio::io::repeat(7), |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Transport { .. }), "{error:?}");
    hangs_up.await.unwrap();
}

#[tokio::test]
async fn options_that_make_no_connection_say_what_is_wrong() {
    let said = |error: ClientError| error.to_string();
    let error = Client::connect(ClientOptions::new("127.0.0.1:1", "alice".into())).await.unwrap_err();
    assert_eq!(said(error), "the server's address \"127.0.0.1:1\" must begin with https:// or http://");
    let error = Client::connect(ClientOptions::new("http://127.0.0.1:1", "a\nb".into())).await.unwrap_err();
    assert_eq!(said(error), "the token must be one line of visible ASCII characters");
    let error = Client::connect(ClientOptions::new("http://127.0.0.1:1", "alice".into())).await.unwrap_err();
    assert!(matches!(error, ClientError::Transport { .. }));
    assert!(said(error).starts_with("the server cannot be reached (Connection refused"));
}

#[tokio::test]
async fn a_frame_size_that_http2_does_not_know_is_refused_before_anything_is_sent() {
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

/// A file on disk, and the bytes in it.
fn file_of(size: usize) -> (tempfile::NamedTempFile, Vec<u8>) {
    let (file, data) = (tempfile::NamedTempFile::new().unwrap(), bytes(size));
    std::fs::write(file.path(), &data).unwrap();
    (file, data)
}

#[tokio::test]
async fn an_upload_that_is_gone_on_with_sends_what_is_missing_and_the_digest_of_the_whole() {
    let mut server = FakeServer::start().await;
    let (file, data) = file_of(3000);
    server.script.lock().unwrap().upload = Some(upload("u1", 1000));
    let created = |upload: &Upload| panic!("{upload:?} was created");
    let client = server.client().await;
    let known = Some("u1".to_owned());
    let answer = client.upload_resumable(file.path(), spec("a.bin"), known, created, |_| {}).await.unwrap();
    assert_eq!(answer.file.unwrap().sha256[..], Sha256::digest(&data)[..]);
    let messages = server.uploads.recv().await.unwrap();
    assert!(matches!(&messages[0], Message::UploadId(id) if id == "u1"), "{messages:?}");
    assert!(
        matches!(&messages[1], Message::Chunk(chunk) if chunk.offset == 1000 && chunk.data == data[1000..])
    );
    assert!(matches!(&messages[2], Message::Finish(finish) if finish.size_bytes == 3000));
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_gone_on_with_until_it_does_not_move_any_more() {
    let server = FakeServer::start().await;
    let (file, _) = file_of(3000);
    server.script.lock().unwrap().upload = Some(upload("u1", 0));
    let client = server.client().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        server.refuse(Status::unavailable("restarting"));
    }
    // The creation is tried again, then the stream.
    let created = |upload: &Upload| ids.push(upload.id.clone());
    client.upload_resumable(file.path(), spec("a.bin"), None, created, |_| {}).await.unwrap();
    assert_eq!(ids, ["u1"]);

    for _ in 0..1000 {
        server.refuse(Status::unavailable("gone"));
    }
    let error = client.upload_resumable(file.path(), spec("a.bin"), None, |_| {}, |_| {}).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().code, Code::Unavailable);
}

#[tokio::test]
async fn a_file_that_became_shorter_is_not_gone_on_with() {
    let server = FakeServer::start().await;
    let (file, _) = file_of(10);
    server.script.lock().unwrap().upload = Some(upload("u1", 1000));
    let known = Some("u1".to_owned());
    let client = server.client().await;
    let error = client.upload_resumable(file.path(), spec("a.bin"), known, |_| {}, |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Source(_)), "{error:?}");
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_behind_the_last_message() {
    let server = FakeServer::start().await;
    let message = |cursor: &str| WatchFilesResponse { message: None, cursor: cursor.to_owned() };
    let away = || Status::new(Code::Unavailable, "");
    server.script.lock().unwrap().watches = [
        vec![Ok(message("1")), Ok(message("2")), Err(away())],
        vec![],
        vec![Ok(message("3")), Err(Status::new(Code::FailedPrecondition, "too old"))],
    ]
    .into();
    let request = WatchFilesRequest { cursor: "0".to_owned(), filter: None };
    let messages: Vec<_> = server.client().await.watch_files(request).collect().await;
    let cursors: Vec<String> = messages.iter().flatten().map(|message| message.cursor.clone()).collect();
    assert_eq!(cursors, ["1", "2", "3"]);
    let end = messages.last().unwrap().as_ref().unwrap_err();
    assert_eq!(end.rejection().unwrap().code, Code::FailedPrecondition, "what no repetition helps is told");
    assert_eq!(messages.len(), 4);
    assert_eq!(server.script.lock().unwrap().cursors, ["0", "2", "2"]);
}
