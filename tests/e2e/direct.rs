//! Direct uploads to presigned URLs of a real store, and the job that verifies the uploaded bytes.

use std::{collections::HashMap, io::Cursor, time::Duration};

use strongroom::{
    client::Client,
    domain::digest::Digest,
    proto::v1::{
        CancelUploadRequest, CompleteUploadRequest, CompleteUploadResponse, CompletedPart,
        CreateUploadRequest, DirectPart, DirectUpload, DownloadFileRequest, File, FileState, FileStateReason,
        GetFileRequest, GetUploadRequest, UploadSpec,
    },
};

use crate::{
    database::TestDatabase,
    garage::Garage,
    server::{Server, Site},
};

/// The smallest value that `uploads.direct_put_max_bytes` allows.
pub(crate) const PUT_MAX: usize = 5 << 20;

pub(crate) async fn create_direct_site(name: &str, garage: &Garage) -> Site {
    Site::with_database(TestDatabase::create_migrated(name).await)
        .set("STRONGROOM_UPLOADS__DIRECT_PUT_MAX_BYTES", PUT_MAX)
        // Many heartbeats, so that a worker on a busy machine does not lose its job.
        .set("STRONGROOM_WORKER__LEASE_SECONDS", 10)
        .set("STRONGROOM_WORKER__HEARTBEAT_SECONDS", 1)
        .set("STRONGROOM_WORKER__TICK_SECONDS", 1)
        .set("STRONGROOM_WORKER__POLL_MAX_MILLISECONDS", 200)
        .set_all(garage.settings())
}

pub(crate) fn pattern_bytes(size: usize) -> Vec<u8> {
    (0..size).map(|n| u8::try_from((n / 3 + n / 65_521) % 251).unwrap()).collect()
}

pub(crate) fn png_bytes(size: usize) -> Vec<u8> {
    let mut bytes = pattern_bytes(size);
    bytes[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    bytes
}

/// An open direct upload with its presigned URLs.
pub(crate) struct OpenDirectUpload {
    pub(crate) id: String,
    pub(crate) urls: DirectUpload,
}

pub(crate) async fn create_direct_upload(
    client: &Client,
    name: &str,
    size: usize,
    sha256: Option<Digest>,
) -> OpenDirectUpload {
    let sha256 = sha256.map(|digest| digest.as_bytes().to_vec().into());
    create_direct_upload_with(
        client,
        size,
        UploadSpec { name: name.to_owned(), sha256, ..UploadSpec::default() },
    )
    .await
}

async fn create_direct_upload_with(client: &Client, size: usize, spec: UploadSpec) -> OpenDirectUpload {
    let spec = UploadSpec { size_bytes: Some(i64::try_from(size).unwrap()), ..spec };
    let request = CreateUploadRequest { spec: Some(spec), direct: true };
    let created = client.create_upload(request).await.unwrap();
    OpenDirectUpload { id: created.upload.unwrap().id, urls: created.direct.unwrap() }
}

/// Sends a part to its URL. Returns the HTTP status and the etag.
pub(crate) async fn put_part(part: &DirectPart, body: &[u8]) -> (u16, String) {
    // Another test may have installed the provider already.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(part.method, "PUT");
    let headers: HashMap<String, String> = part.headers.clone();
    // The URL signs the length. This client sends none for an empty body.
    let mut request = http.put(&part.url).header("content-length", body.len()).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.send().await.unwrap();
    let etag = response.headers().get("etag").map(|etag| etag.to_str().unwrap().to_owned());
    (response.status().as_u16(), etag.unwrap_or_default())
}

/// Sends all bytes to the URLs of the parts.
pub(crate) async fn send_parts(direct: &OpenDirectUpload, bytes: &[u8]) -> Vec<CompletedPart> {
    let mut parts = Vec::new();
    for part in &direct.urls.parts {
        let offset = usize::try_from(part.offset).unwrap();
        let end = offset + usize::try_from(part.size_bytes).unwrap();
        let (status, etag) = put_part(part, &bytes[offset..end]).await;
        assert_eq!(status, 200);
        parts.push(CompletedPart { number: part.number, etag });
    }
    parts
}

pub(crate) async fn complete_upload(
    client: &Client,
    direct: &OpenDirectUpload,
    parts: &[CompletedPart],
) -> Result<CompleteUploadResponse, String> {
    let request = CompleteUploadRequest {
        upload_id: direct.id.clone(),
        parts: parts.to_vec(),
        ..CompleteUploadRequest::default()
    };
    client.complete_upload(request).await.map_err(|error| format!("{error:?}"))
}

pub(crate) async fn get_file(client: &Client, id: &str) -> File {
    let request = GetFileRequest { file_id: id.to_owned() };
    client.get_file(request).await.unwrap().file.unwrap()
}

/// Waits until the file is no longer PROCESSING.
pub(crate) async fn wait_until_verified(client: &Client, id: &str) -> File {
    let asked = async {
        loop {
            let file = get_file(client, id).await;
            if file.state() != FileState::Processing {
                return file;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("the file was not verified within 60 s")
}

pub(crate) async fn download(client: &Client, id: &str) -> Result<Vec<u8>, String> {
    let mut copy = Vec::new();
    let request = DownloadFileRequest { file_id: id.to_owned(), ..DownloadFileRequest::default() };
    match client.download_to(request, &mut copy, |_| {}).await {
        Ok(_) => Ok(copy),
        Err(error) => Err(format!("{error:?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_upload_is_readable_only_after_verification() {
    let garage = Garage::start().await;
    let site = create_direct_site("direct_whole", &garage).await;
    let server = Server::start(site.command(&["serve"])).await;
    let alice = site.client(&server, "alice").await;
    let mut files = Vec::new();
    for (size, parts) in [(0, 1), (100_000, 1), (2 * PUT_MAX + 7, 3)] {
        let bytes = if size == 0 { Vec::new() } else { png_bytes(size) };
        let direct = create_direct_upload(&alice, "picture", size, Some(Digest::compute(&bytes))).await;
        assert_eq!(direct.urls.parts.len(), parts);
        let sent = send_parts(&direct, &bytes).await;
        let first = complete_upload(&alice, &direct, &sent).await.unwrap().file.unwrap();
        assert_eq!((first.state(), first.sha256.len()), (FileState::Processing, 0));
        let again = complete_upload(&alice, &direct, &sent).await.unwrap().file.unwrap();
        assert_eq!(again, first, "completing twice returns the same file");
        let error = download(&alice, &first.id).await.unwrap_err();
        assert!(error.contains("processing"), "the file is readable before it is verified: {error}");
        files.push((first.id, bytes));
    }
    let (clean, report) = site.run_fsck(&["--deep"]).await;
    assert!(clean, "an unverified version is not damaged: {report:#}");
    let server_with_worker = site.start_server().await;
    for (id, bytes) in &files {
        let file = wait_until_verified(&alice, id).await;
        assert_eq!(
            (file.state(), file.sha256.as_ref()),
            (FileState::Available, &Digest::compute(bytes).as_bytes()[..])
        );
        if !bytes.is_empty() {
            assert_eq!(file.mime_type, "image/png");
        }
        assert!(download(&alice, id).await.unwrap() == *bytes);
    }
    let (clean, report) = site.run_fsck(&["--deep"]).await;
    assert!(clean, "{report:#}");
    server_with_worker.kill().await;
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_version_becomes_current_only_if_verified() {
    let garage = Garage::start().await;
    let site = create_direct_site("direct_version", &garage).await;
    let server = Server::start(site.command(&["serve"])).await;
    let alice = site.client(&server, "alice").await;
    let spec = UploadSpec { name: "a.txt".to_owned(), ..UploadSpec::default() };
    let id = alice.upload_reader(spec, Cursor::new(b"one".to_vec()), |_| {}).await.unwrap().file.unwrap().id;
    for (number, size) in [(2, 1000), (3, PUT_MAX + 7)] {
        let spec = UploadSpec { file_id: id.clone(), ..UploadSpec::default() };
        let direct = create_direct_upload_with(&alice, size, spec).await;
        let sent = send_parts(&direct, &png_bytes(size)).await;
        let processing = complete_upload(&alice, &direct, &sent).await.unwrap().file.unwrap();
        assert_eq!((processing.version, processing.state()), (number, FileState::Processing));
    }
    let other_digest = Digest::compute(b"others").as_bytes().to_vec();
    let spec = UploadSpec { file_id: id.clone(), sha256: Some(other_digest.into()), ..UploadSpec::default() };
    let direct = create_direct_upload_with(&alice, 9, spec).await;
    let sent = send_parts(&direct, b"nine byte").await;
    complete_upload(&alice, &direct, &sent).await.unwrap();
    assert_eq!(get_file(&alice, &id).await.version, 1);
    assert_eq!(download(&alice, &id).await.unwrap(), b"one");

    let server_with_worker = site.start_server().await;
    let database = crate::worker::connect_database(&site).await;
    crate::worker::wait_until("all jobs are done", || async {
        crate::worker::query_number(&database, "SELECT count(*) FROM jobs").await == 0
    })
    .await;
    let file = get_file(&alice, &id).await;
    assert_eq!((file.version, file.state(), file.mime_type.as_str()), (3, FileState::Available, "image/png"));
    assert!(download(&alice, &id).await.unwrap() == png_bytes(PUT_MAX + 7));
    let (clean, report) = site.run_fsck(&["--deep"]).await;
    assert!(clean, "{report:#}");
    server_with_worker.kill().await;
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_put_does_not_change_file_and_is_swept() {
    let garage = Garage::start().await;
    let site = create_direct_site("direct_late", &garage).await;
    let server = site.start_server().await;
    let alice = site.client(&server, "alice").await;
    let mut files = Vec::new();
    for size in [1000, PUT_MAX + 1] {
        let bytes = pattern_bytes(size);
        let direct = create_direct_upload(&alice, "a.bin", size, None).await;
        let sent = send_parts(&direct, &bytes).await;
        let id = complete_upload(&alice, &direct, &sent).await.unwrap().file.unwrap().id;
        // A small part: a store may close the connection while it receives a large one.
        let part = direct.urls.parts.last().unwrap();
        let other = vec![b'x'; usize::try_from(part.size_bytes).unwrap()];
        let (status, _) = put_part(part, &other).await;
        assert_eq!(status == 200, size == 1000, "part URLs must be invalid after completion: {status}");
        assert_eq!(wait_until_verified(&alice, &id).await.state(), FileState::Available);
        assert!(download(&alice, &id).await.unwrap() == bytes);
        files.push((id, bytes));
    }
    server.terminate().await;
    server.wait_for_exit().await;
    let swept = async {
        loop {
            let arguments = ["sweep", "--json", "--grace-seconds", "1", "--service-is-stopped"];
            let (code, reports) = site.run_json(&arguments).await;
            assert_eq!(code, Some(0), "{reports:#}");
            if reports.as_array().unwrap().iter().any(|report| report["deleted"]["count"] == 1) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), swept)
        .await
        .expect("the object of the late PUT was not swept");
    let server = site.start_server().await;
    let alice = site.client(&server, "alice").await;
    for (id, bytes) in &files {
        assert!(download(&alice, id).await.unwrap() == *bytes);
    }
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_or_missing_parts_can_be_sent_again() {
    let garage = Garage::start().await;
    let site = create_direct_site("direct_wrong", &garage).await;
    let server = site.start_server().await;
    let alice = site.client(&server, "alice").await;

    let small = create_direct_upload(&alice, "a.bin", 1000, None).await;
    let nothing = complete_upload(&alice, &small, &[]).await.unwrap_err();
    assert!(nothing.contains("has no bytes in the store"), "{nothing}");
    let (status, _) = put_part(&small.urls.parts[0], &pattern_bytes(999)).await;
    assert_eq!(status, 403, "the URL signs the length");
    let nothing = complete_upload(&alice, &small, &[]).await.unwrap_err();
    assert!(nothing.contains("has no bytes in the store"), "{nothing}");
    put_part(&small.urls.parts[0], &pattern_bytes(1000)).await;
    complete_upload(&alice, &small, &[]).await.unwrap();

    let size = PUT_MAX + 50;
    let large = create_direct_upload(&alice, "b.bin", size, None).await;
    let missing = complete_upload(&alice, &large, &[]).await.unwrap_err();
    assert!(missing.contains("part 1 is not in the store"), "{missing}");
    let mut sent = send_parts(&large, &pattern_bytes(size)).await;
    for length in [49, 51] {
        let (status, _) = put_part(&large.urls.parts[1], &pattern_bytes(length)).await;
        assert_eq!(status, 403, "the URL signs the length");
    }
    let request = GetUploadRequest { upload_id: large.id.clone(), with_urls: true };
    let fresh = alice.get_upload(request).await.unwrap().direct.unwrap();
    sent[1].etag = put_part(&fresh.parts[1], &pattern_bytes(50)).await.1;
    let stale = sent[0].etag.replace(|_: char| true, "0");
    let wrong = [CompletedPart { number: 1, etag: stale }, sent[1].clone()];
    let wrong = complete_upload(&alice, &large, &wrong).await.unwrap_err();
    assert!(wrong.contains("part 1 has a different etag"), "{wrong}");
    complete_upload(&alice, &large, &sent).await.unwrap();
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn digest_mismatch_stays_unreadable_after_repair() {
    let garage = Garage::start().await;
    let site = create_direct_site("direct_digest", &garage).await;
    let server = site.start_server().await;
    let alice = site.client(&server, "alice").await;
    let direct = create_direct_upload(&alice, "a.bin", 1000, Some(Digest::compute(b"others"))).await;
    send_parts(&direct, &pattern_bytes(1000)).await;
    let id = complete_upload(&alice, &direct, &[]).await.unwrap().file.unwrap().id;
    let file = wait_until_verified(&alice, &id).await;
    assert_eq!((file.state(), file.state_reason()), (FileState::Error, FileStateReason::ChecksumMismatch));
    download(&alice, &id).await.unwrap_err();
    site.run_fsck(&["--deep", "--repair"]).await;
    assert_eq!(get_file(&alice, &id).await.state(), FileState::Error);
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_direct_upload_leaves_no_objects() {
    let garage = Garage::start().await;
    let site = create_direct_site("direct_cancel", &garage).await;
    let server = site.start_server().await;
    let alice = site.client(&server, "alice").await;
    for size in [1000, PUT_MAX + 50] {
        let direct = create_direct_upload(&alice, "a.bin", size, None).await;
        send_parts(&direct, &pattern_bytes(size)).await;
        let request = CancelUploadRequest { upload_id: direct.id.clone(), ..CancelUploadRequest::default() };
        alice.cancel_upload(request).await.unwrap();
        let error = complete_upload(&alice, &direct, &[]).await.unwrap_err();
        assert!(error.contains("NotFound"), "{error}");
    }
    let (clean, report) = site.run_fsck(&["--deep"]).await;
    assert!(clean, "{report:#}");
    assert_eq!(report["objects"], 0, "{report:#}");
    server.kill().await;
    site.close().await;
}
