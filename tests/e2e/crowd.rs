//! A crowd of clients that each try to take the memory of the service, and small calls of another tenant.

use bytes::Bytes;
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures::future::join_all;
use http_body_util::{BodyExt, Full};
use prost::Message as _;
use secrecy::{ExposeSecret, SecretString};
use strongroom::proto::v1::{
    EntityRef, FileFilter, FileView, ListFilesRequest, ListFilesResponse, UploadFileRequest, UploadSpec,
    file_service_client::FileServiceClient, upload_file_request::Message,
};
use tokio::{sync::watch, task::JoinSet};
use tonic::{
    Code, Status,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::Service as _;

use crate::{
    concurrent_uploads::{SlowUpload, WAIT_MAX, run_small_calls},
    server::{Server, Site, WHOLE_MACHINE, connect},
};

const LIST: &str = "/strongroom.v1.FileService/ListFiles";
const UPLOAD: &str = "/strongroom.v1.FileService/UploadFile";

const UNREAD_LISTS: usize = 30;
const LARGE_SPECS: usize = 40;
const SLOW_UPLOADS: usize = 1_000;
const CONNECTIONS: usize = 12;

/// The connections of the lists that are not read. The server closes them.
const UNREAD_CONNECTIONS: usize = 4;

/// The number of files with large records, and of files that a list with a rare prefix looks at.
const LARGE_FILES: usize = 1_000;
const SCANNED_FILES: usize = 20_000;

/// Configures a server for a small machine.
fn small_server_command(site: &Site) -> tokio::process::Command {
    let mut command = site.command(&["serve", "--with-worker"]);
    for (key, value) in [
        ("SERVER__CONNECTIONS_MAX", 64),
        ("SERVER__REQUESTS_MAX", 1_200),
        ("SERVER__UNREAD_RESPONSES_MAX_BYTES", 16 << 20),
        ("SERVER__RESPONSE_IDLE_SECONDS", 1),
        ("SERVER__HTTP2__STREAM_WINDOW_BYTES", 64 * 1024),
        ("UPLOADS__BYTE_BUDGET_BYTES", 32 << 20),
        ("UPLOADS__PART_SIZE_BYTES", 5 << 20),
        ("UPLOADS__DECODE_PERMITS", 8),
        ("DOWNLOADS__STREAMS_MAX", 4),
        ("DATABASE__POOL_SIZE_MAX", 4),
        // The crowd delays messages, and a busy machine even more.
        ("UPLOADS__FIRST_MESSAGE_SECONDS", 600),
    ] {
        command.env(format!("STRONGROOM_{key}"), value.to_string());
    }
    command
}

/// SQL that copies a file with other names, and with metadata of this many bytes.
fn copy_file_sql(file_id: &str, name: &str, count: usize, metadata_bytes: usize) -> String {
    format!(
        "INSERT INTO files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
            description, metadata, visibility, version, content_state, scan_status, mime_type, declared_mime_type,
            media_kind, size_bytes, sha256, create_time, update_time)
         SELECT tenant_id, gen_random_uuid(), owner_id, created_by, updated_by, '{name}' || n, original_name, category,
            title, repeat('d', 4096), jsonb_build_object('k', repeat('m', {metadata_bytes})), visibility, version,
            content_state, scan_status, mime_type, declared_mime_type, media_kind, size_bytes, sha256,
            create_time, update_time
         FROM files CROSS JOIN generate_series(1, {count}) AS n WHERE id = '{file_id}'"
    )
}

/// Sends a message as a raw call. Returns the response, whose body is not read.
async fn call(channel: &Channel, token: &SecretString, path: &str, message: &[u8]) -> http::Response<Body> {
    try_call(channel, token, path, message).await.unwrap()
}

/// Sends a message as a raw call, on a connection that the server may close.
async fn try_call(
    channel: &Channel,
    token: &SecretString,
    path: &str,
    message: &[u8],
) -> Result<http::Response<Body>, tonic::transport::Error> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let framed = [&[0], length.as_slice(), message].concat();
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", token.expose_secret()))
        .body(Body::new(Full::new(Bytes::from(framed))))
        .unwrap();
    let mut channel = channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context)).await?;
    channel.call(request).await
}

/// Reads a whole response: its message, or its status.
async fn read(response: http::Response<Body>) -> Result<Bytes, Status> {
    if let Some(status) =
        Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
    {
        return Err(status);
    }
    let collected = response.into_body().collect().await?;
    let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
    if status.code() == Code::Ok { Ok(collected.to_bytes().slice(5..)) } else { Err(status) }
}

fn list_request(prefix: &str) -> Vec<u8> {
    let filter = FileFilter { name_prefix: prefix.to_owned(), ..FileFilter::default() };
    let request = ListFilesRequest {
        page_size: 1_000,
        view: FileView::Full.into(),
        filter: (!prefix.is_empty()).then_some(filter),
        ..ListFilesRequest::default()
    };
    request.encode_to_vec()
}

/// A spec with a million empty attachments, in 2 MB.
fn large_spec() -> Vec<u8> {
    let one = UploadSpec { attachments: vec![EntityRef::default()], ..UploadSpec::default() }.encode_to_vec();
    let spec = one.repeat(1_000_000);
    let mut message = vec![0x0A];
    prost::encoding::encode_varint(spec.len() as u64, &mut message);
    message.extend(spec);
    let small = UploadFileRequest { message: Some(Message::Spec(UploadSpec::default())) }.encode_to_vec();
    assert_eq!(small[0], message[0], "the spec is field 1");
    message
}

/// Sends large specs at the same time, and checks that all of them are refused.
async fn send_large_specs(channels: &[Channel], token: &SecretString) {
    let mut specs = JoinSet::new();
    for number in 0..LARGE_SPECS {
        let (channel, token) = (channels[number % CONNECTIONS].clone(), token.clone());
        specs.spawn(async move { read(call(&channel, &token, UPLOAD, &large_spec()).await).await });
    }
    while let Some(refused) = specs.join_next().await {
        let code = refused.unwrap().unwrap_err().code();
        // Some do not even find space to be received.
        assert!(matches!(code, Code::InvalidArgument | Code::ResourceExhausted), "{code:?}");
    }
}

/// Lists large files until a list is not refused, because others that were not read have released their space.
async fn list_large_files(channel: &Channel, token: &SecretString) -> ListFilesResponse {
    let listed = tokio::time::timeout(WAIT_MAX, async {
        loop {
            // The server also closes the connection if this client is slow.
            if let Ok(response) = try_call(channel, token, LIST, &list_request("large")).await
                && let Ok(message) = read(response).await
            {
                return ListFilesResponse::decode(message).unwrap();
            }
        }
    });
    listed.await.expect("unread responses were not dropped")
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_crowd_stays_within_memory_bound() {
    let _machine = WHOLE_MACHINE.lock().await;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let site = Site::new("crowd").await;
    let server = Server::start(small_server_command(&site)).await;
    let spec = |name: &str| UploadSpec { name: name.into(), ..UploadSpec::default() };
    let alice = site.client(&server, "alice").await;
    let file = alice.upload_reader(spec("first"), b"bytes".as_slice(), |_| {}).await.unwrap().file.unwrap();
    let mut superuser = AsyncPgConnection::establish(&site.database.superuser_url()).await.unwrap();
    for sql in [
        copy_file_sql(&file.id, "large", LARGE_FILES, 64 << 10),
        copy_file_sql(&file.id, "scanned", SCANNED_FILES, 16 << 10),
        "ANALYZE".to_owned(),
    ] {
        superuser.batch_execute(&sql).await.unwrap();
    }
    let bob = connect(&server.grpc, site.identity.token("bob", "globex", "member")).await;
    let small = bob.upload_reader(spec("small"), b"bytes".as_slice(), |_| {}).await.unwrap().file.unwrap();
    let (stop, stopped) = watch::channel(false);
    let calls = tokio::spawn(run_small_calls(bob, small.id, stopped));

    let token = site.identity.token("alice", "acme", "member");
    // A client with a small window, so that a response that it does not read stays in the server.
    let endpoint = Endpoint::from_shared(server.grpc.clone()).unwrap().initial_stream_window_size(65_535);
    let mut channels: Vec<Channel> =
        join_all((0..CONNECTIONS + UNREAD_CONNECTIONS).map(|_| endpoint.connect()))
            .await
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
    let unread_channels = channels.split_off(CONNECTIONS);
    let channel = |number: usize| channels[number % CONNECTIONS].clone();
    let (mut slow_uploads, slow_responses): (Vec<_>, Vec<_>) = (0..SLOW_UPLOADS)
        .map(|number| {
            let files = FileServiceClient::new(channel(number));
            SlowUpload::start(files, &token, format!("slow{number}"))
        })
        .unzip();
    slow_uploads.iter_mut().for_each(SlowUpload::send_chunk);

    let mut unread = JoinSet::new();
    for number in 0..UNREAD_LISTS {
        let (channel, token) = (unread_channels[number % UNREAD_CONNECTIONS].clone(), token.clone());
        unread.spawn(async move { try_call(&channel, &token, LIST, &list_request("large")).await });
    }
    // None of its 20,000 files matches, so the page is empty and has a token to continue.
    if let Ok(response) = try_call(&channels[0], &token, LIST, &list_request("nothing")).await
        && let Ok(message) = read(response).await
    {
        assert!(ListFilesResponse::decode(message).unwrap().files.is_empty());
    }
    send_large_specs(&channels, &token).await;
    // The responses are held without being read.
    let unread: Vec<_> = unread.join_all().await;
    let listed = list_large_files(&channels[1], &token).await;
    assert!(!listed.files.is_empty() && !listed.next_page_token.is_empty());

    stop.send(true).unwrap();
    assert!(calls.await.unwrap() > 0);
    let (peak, bound) = (server.peak_resident_bytes(), server.memory_bound_bytes);
    eprintln!("the service used {} MiB; its memory bound is {} MiB", peak >> 20, bound >> 20);
    assert!(peak <= bound, "the service used {} MiB; its memory bound is {} MiB", peak >> 20, bound >> 20);
    drop((unread, slow_uploads, slow_responses));
    server.kill().await;
    site.close().await;
}
