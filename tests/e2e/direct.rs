//! Direct uploads: URLs of a real store, and the job that reads what came.

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

/// The smallest piece that can be configured.
pub(crate) const PUT_MAX: usize = 5 << 20;

pub(crate) async fn site(name: &str, garage: &Garage) -> Site {
    Site::with(TestDatabase::migrated(name).await)
        .set("STRONGROOM_UPLOADS__DIRECT_PUT_MAX_BYTES", PUT_MAX)
        .set("STRONGROOM_WORKER__LEASE_SECONDS", 3)
        .set("STRONGROOM_WORKER__HEARTBEAT_SECONDS", 1)
        .set("STRONGROOM_WORKER__TICK_SECONDS", 1)
        .set("STRONGROOM_WORKER__POLL_MAX_MILLISECONDS", 200)
        .set_all(garage.settings())
}

pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|n| u8::try_from((n / 3 + n / 65_521) % 251).unwrap()).collect()
}

pub(crate) fn png(size: usize) -> Vec<u8> {
    let mut bytes = pattern(size);
    bytes[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    bytes
}

/// An upload whose bytes go to its URLs.
pub(crate) struct Direct {
    pub(crate) id: String,
    pub(crate) urls: DirectUpload,
}

pub(crate) async fn create(client: &Client, name: &str, size: usize, sha256: Option<Digest>) -> Direct {
    let sha256 = sha256.map(|digest| digest.as_bytes().to_vec().into());
    create_as(client, size, UploadSpec { name: name.to_owned(), sha256, ..UploadSpec::default() }).await
}

async fn create_as(client: &Client, size: usize, spec: UploadSpec) -> Direct {
    let spec = UploadSpec { size_bytes: Some(i64::try_from(size).unwrap()), ..spec };
    let request = CreateUploadRequest { spec: Some(spec), direct: true };
    let created = client.create_upload(request).await.unwrap();
    Direct { id: created.upload.unwrap().id, urls: created.direct.unwrap() }
}

/// Sends a part, and answers the store's status and etag.
pub(crate) async fn put(part: &DirectPart, body: &[u8]) -> (u16, String) {
    // Whoever was first has installed it.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(part.method, "PUT");
    let headers: HashMap<String, String> = part.headers.clone();
    let mut request = http.put(&part.url).body(body.to_vec());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.unwrap();
    let etag = answer.headers().get("etag").map(|etag| etag.to_str().unwrap().to_owned());
    (answer.status().as_u16(), etag.unwrap_or_default())
}

pub(crate) async fn send(direct: &Direct, bytes: &[u8]) -> Vec<CompletedPart> {
    let mut parts = Vec::new();
    for part in &direct.urls.parts {
        let offset = usize::try_from(part.offset).unwrap();
        let end = offset + usize::try_from(part.size_bytes).unwrap();
        let (status, etag) = put(part, &bytes[offset..end]).await;
        assert_eq!(status, 200);
        parts.push(CompletedPart { number: part.number, etag });
    }
    parts
}

pub(crate) async fn complete(
    client: &Client,
    direct: &Direct,
    parts: &[CompletedPart],
) -> Result<CompleteUploadResponse, String> {
    let request = CompleteUploadRequest {
        upload_id: direct.id.clone(),
        parts: parts.to_vec(),
        ..CompleteUploadRequest::default()
    };
    client.complete_upload(request).await.map_err(|error| format!("{error:?}"))
}

pub(crate) async fn file(client: &Client, id: &str) -> File {
    let request = GetFileRequest { file_id: id.to_owned() };
    client.get_file(request).await.unwrap().file.unwrap()
}

/// Asks until the file is not PROCESSING any more.
pub(crate) async fn verified(client: &Client, id: &str) -> File {
    let asked = async {
        loop {
            let file = file(client, id).await;
            if file.state() != FileState::Processing {
                return file;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("nobody verifies it")
}

pub(crate) async fn read(client: &Client, id: &str) -> Result<Vec<u8>, String> {
    let mut copy = Vec::new();
    let request = DownloadFileRequest { file_id: id.to_owned(), ..DownloadFileRequest::default() };
    match client.download_to(request, &mut copy, |_| {}).await {
        Ok(_) => Ok(copy),
        Err(error) => Err(format!("{error:?}")),
    }
}

async fn worker(site: &Site) -> Server {
    site.serve().await
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_large_direct_uploads_are_processing_until_they_are_read_and_then_readable() {
    let garage = Garage::start().await;
    let site = site("direct_whole", &garage).await;
    let server = Server::start(site.command(&["serve"])).await;
    let alice = site.client(&server, "alice").await;
    let mut files = Vec::new();
    for (size, parts) in [(0, 1), (100_000, 1), (2 * PUT_MAX + 7, 3)] {
        let bytes = if size == 0 { Vec::new() } else { png(size) };
        let direct = create(&alice, "picture", size, Some(Digest::of(&bytes))).await;
        assert_eq!(direct.urls.parts.len(), parts);
        let sent = send(&direct, &bytes).await;
        let first = complete(&alice, &direct, &sent).await.unwrap().file.unwrap();
        assert_eq!((first.state(), first.sha256.len()), (FileState::Processing, 0));
        let again = complete(&alice, &direct, &sent).await.unwrap().file.unwrap();
        assert_eq!(again, first, "completing twice answers the same file");
        let refused = read(&alice, &first.id).await.unwrap_err();
        assert!(refused.contains("processing"), "nobody reads it before it is verified: {refused}");
        files.push((first.id, bytes));
    }
    let (clean, report) = site.fsck(&["--deep"]).await;
    assert!(clean, "what is not verified yet is not damaged: {report:#}");
    let with_worker = worker(&site).await;
    for (id, bytes) in &files {
        let file = verified(&alice, id).await;
        assert_eq!(
            (file.state(), file.sha256.as_ref()),
            (FileState::Available, &Digest::of(bytes).as_bytes()[..])
        );
        if !bytes.is_empty() {
            assert_eq!(file.mime_type, "image/png");
        }
        assert!(read(&alice, id).await.unwrap() == *bytes);
    }
    let (clean, report) = site.fsck(&["--deep"]).await;
    assert!(clean, "{report:#}");
    with_worker.kill().await;
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_version_is_current_when_it_was_read_and_one_of_other_bytes_never_is() {
    let garage = Garage::start().await;
    let site = site("direct_version", &garage).await;
    let server = Server::start(site.command(&["serve"])).await;
    let alice = site.client(&server, "alice").await;
    let spec = UploadSpec { name: "a.txt".to_owned(), ..UploadSpec::default() };
    let id = alice.upload(spec, Cursor::new(b"one".to_vec()), |_| {}).await.unwrap().file.unwrap().id;
    for (number, size) in [(2, 1000), (3, PUT_MAX + 7)] {
        let spec = UploadSpec { file_id: id.clone(), ..UploadSpec::default() };
        let direct = create_as(&alice, size, spec).await;
        let sent = send(&direct, &png(size)).await;
        let answer = complete(&alice, &direct, &sent).await.unwrap().file.unwrap();
        assert_eq!((answer.version, answer.state()), (number, FileState::Processing));
    }
    let others = Digest::of(b"others").as_bytes().to_vec();
    let spec = UploadSpec { file_id: id.clone(), sha256: Some(others.into()), ..UploadSpec::default() };
    let direct = create_as(&alice, 9, spec).await;
    let sent = send(&direct, b"nine byte").await;
    complete(&alice, &direct, &sent).await.unwrap();
    assert_eq!(file(&alice, &id).await.version, 1);
    assert_eq!(read(&alice, &id).await.unwrap(), b"one");

    let with_worker = worker(&site).await;
    let jobs = crate::worker::sql(&site).await;
    crate::worker::until("all three are read", || async {
        crate::worker::number(&jobs, "SELECT count(*) FROM jobs").await == 0
    })
    .await;
    let file = file(&alice, &id).await;
    assert_eq!((file.version, file.state(), file.mime_type.as_str()), (3, FileState::Available, "image/png"));
    assert!(read(&alice, &id).await.unwrap() == png(PUT_MAX + 7));
    let (clean, report) = site.fsck(&["--deep"]).await;
    assert!(clean, "{report:#}");
    with_worker.kill().await;
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_still_alive_changes_nothing_and_what_it_leaves_is_swept() {
    let garage = Garage::start().await;
    let site = site("direct_late", &garage).await;
    let server = site.serve().await;
    let alice = site.client(&server, "alice").await;
    let mut files = Vec::new();
    for size in [1000, PUT_MAX + 1] {
        let bytes = pattern(size);
        let direct = create(&alice, "a.bin", size, None).await;
        let sent = send(&direct, &bytes).await;
        let id = complete(&alice, &direct, &sent).await.unwrap().file.unwrap().id;
        let (status, _) = put(&direct.urls.parts[0], b"something else").await;
        assert_eq!(status == 200, size == 1000, "the URLs of parts die with their upload: {status}");
        assert_eq!(verified(&alice, &id).await.state(), FileState::Available);
        assert!(read(&alice, &id).await.unwrap() == bytes);
        files.push((id, bytes));
    }
    server.terminate().await;
    server.ended().await;
    let swept = async {
        loop {
            let arguments = ["sweep", "--json", "--grace-seconds", "1", "--service-is-stopped"];
            let (code, reports) = site.run(&arguments).await;
            assert_eq!(code, Some(0), "{reports:#}");
            if reports.as_array().unwrap().iter().any(|report| report["removed"]["count"] == 1) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), swept).await.expect("what the late PUT left is not swept");
    let server = site.serve().await;
    let alice = site.client(&server, "alice").await;
    for (id, bytes) in &files {
        assert!(read(&alice, id).await.unwrap() == *bytes);
    }
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_sizes_and_missing_parts_are_named_and_can_be_sent_again() {
    let garage = Garage::start().await;
    let site = site("direct_wrong", &garage).await;
    let server = site.serve().await;
    let alice = site.client(&server, "alice").await;

    let small = create(&alice, "a.bin", 1000, None).await;
    let nothing = complete(&alice, &small, &[]).await.unwrap_err();
    assert!(nothing.contains("nothing was sent"), "{nothing}");
    put(&small.urls.parts[0], &pattern(999)).await;
    let short = complete(&alice, &small, &[]).await.unwrap_err();
    assert!(short.contains("1000 bytes were declared and 999 received"), "{short}");
    put(&small.urls.parts[0], &pattern(1000)).await;
    complete(&alice, &small, &[]).await.unwrap();

    let size = PUT_MAX + 50;
    let large = create(&alice, "b.bin", size, None).await;
    let missing = complete(&alice, &large, &[]).await.unwrap_err();
    assert!(missing.contains("part 1 is not in the store"), "{missing}");
    let mut sent = send(&large, &pattern(size)).await;
    put(&large.urls.parts[1], &pattern(49)).await;
    let short = complete(&alice, &large, &sent).await.unwrap_err();
    assert!(short.contains("part 2 has 49 bytes and must have 50"), "{short}");
    let request = GetUploadRequest { upload_id: large.id.clone(), with_urls: true };
    let fresh = alice.get_upload(request).await.unwrap().direct.unwrap();
    sent[1].etag = put(&fresh.parts[1], &pattern(50)).await.1;
    let stale = sent[0].etag.replace(|_: char| true, "0");
    let wrong = [CompletedPart { number: 1, etag: stale }, sent[1].clone()];
    let wrong = complete(&alice, &large, &wrong).await.unwrap_err();
    assert!(wrong.contains("part 1 has another etag"), "{wrong}");
    complete(&alice, &large, &sent).await.unwrap();
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_another_digest_are_never_readable_and_say_why_also_after_a_repair() {
    let garage = Garage::start().await;
    let site = site("direct_digest", &garage).await;
    let server = site.serve().await;
    let alice = site.client(&server, "alice").await;
    let direct = create(&alice, "a.bin", 1000, Some(Digest::of(b"others"))).await;
    send(&direct, &pattern(1000)).await;
    let id = complete(&alice, &direct, &[]).await.unwrap().file.unwrap().id;
    let file = verified(&alice, &id).await;
    assert_eq!((file.state(), file.state_reason()), (FileState::Error, FileStateReason::ChecksumMismatch));
    read(&alice, &id).await.unwrap_err();
    site.fsck(&["--deep", "--repair"]).await;
    assert_eq!(self::file(&alice, &id).await.state(), FileState::Error);
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_direct_upload_leaves_nothing_behind() {
    let garage = Garage::start().await;
    let site = site("direct_cancel", &garage).await;
    let server = site.serve().await;
    let alice = site.client(&server, "alice").await;
    for size in [1000, PUT_MAX + 50] {
        let direct = create(&alice, "a.bin", size, None).await;
        send(&direct, &pattern(size)).await;
        let request = CancelUploadRequest { upload_id: direct.id.clone(), ..CancelUploadRequest::default() };
        alice.cancel_upload(request).await.unwrap();
        let gone = complete(&alice, &direct, &[]).await.unwrap_err();
        assert!(gone.contains("NotFound"), "{gone}");
    }
    let (clean, report) = site.fsck(&["--deep"]).await;
    assert!(clean, "{report:#}");
    assert_eq!(report["objects"], 0, "{report:#}");
    server.kill().await;
    site.close().await;
}
