//! Archiving with the real binary, in a bucket of a store that has storage classes: moto.

use std::{future::Future, io::Cursor, time::Duration};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use strongroom::{
    client::Client,
    proto::v1::{
        ArchiveFileRequest, DownloadFileRequest, ListFileVersionsRequest, StorageClass, UnarchiveFileRequest,
        UploadSpec,
    },
};

use crate::server::Site;

const BUCKET: &str = "archive-e2e";

/// Where moto is, as `scripts/with-moto` has started it.
fn endpoint() -> String {
    std::env::var("STRONGROOM_TEST_MOTO_ENDPOINT")
        .expect("STRONGROOM_TEST_MOTO_ENDPOINT is not set: run through scripts/with-moto")
}

/// A site whose bytes go to moto, where an original stays for the hour that whoever reads it may have, and not longer.
async fn site() -> Site {
    Site::new("archive").await.set_all(vec![
        ("STRONGROOM_STORAGE__PROVIDER", "bucket".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ADAPTER", "s3".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ENDPOINT", endpoint()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ALLOW_HTTP", "true".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__BUCKET", BUCKET.to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ACCESS_KEY_ID", "key".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__SECRET_ACCESS_KEY", "secret".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ARCHIVE_STORAGE_CLASS", "GLACIER_IR".to_owned()),
        ("STRONGROOM_RETENTION__UNDELETE_WINDOW_HOURS", "0".to_owned()),
        ("STRONGROOM_WORKER__TICK_SECONDS", "1".to_owned()),
        ("STRONGROOM_WORKER__POLL_MAX_MILLISECONDS", "200".to_owned()),
    ])
}

/// What looks like a signature is enough for moto.
fn store() -> reqwest::Client {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let signature =
        "AWS4-HMAC-SHA256 Credential=key/20260102/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(signature))]);
    reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap()
}

/// The classes of all objects in the bucket, as HEAD tells them; one without says STANDARD.
async fn classes(store: &reqwest::Client) -> Vec<String> {
    let list = format!("{}/{BUCKET}?list-type=2", endpoint());
    let listed = store.get(list).send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
    let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
    let mut classes = Vec::new();
    for key in keys {
        let head = store.head(format!("{}/{BUCKET}/{key}", endpoint())).send().await.unwrap();
        // An original may go in between.
        if head.status().is_success() {
            let class = head.headers().get("x-amz-storage-class").map(|class| class.to_str().unwrap());
            classes.push(class.unwrap_or("STANDARD").to_owned());
        }
    }
    classes
}

async fn told(client: &Client, id: &str) -> StorageClass {
    let request = ListFileVersionsRequest { file_id: id.to_owned(), ..ListFileVersionsRequest::default() };
    client.list_file_versions(request).await.unwrap().versions[0].storage_class()
}

/// An hour later, nobody reads an original any more.
async fn let_originals_go(site: &Site) {
    let mut owner = AsyncPgConnection::establish(&site.database.superuser_url()).await.unwrap();
    owner.batch_execute("UPDATE stray_objects SET delete_after = now()").await.unwrap();
}

/// Asks until the answer is yes.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let asked = async { while !is_so().await {} };
    tokio::time::timeout(Duration::from_secs(120), asked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_bytes_are_in_the_class_of_the_store_for_them_and_come_back_from_there() {
    let site = site().await;
    let made = site.command(&["storage", "init", "--provider", "bucket"]).output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = site.serve().await;
    let client = site.client(&server, "alice").await;
    let content: Vec<u8> = (0..9 << 20).map(|n: u32| (n % 251) as u8).collect();
    let spec = UploadSpec { name: "a.bin".to_owned(), ..UploadSpec::default() };
    let file = client.upload(spec, Cursor::new(content.clone()), |_| {}).await.unwrap().file.unwrap();
    let (id, store) = (file.id, store());
    assert_eq!(classes(&store).await, ["STANDARD"]);

    let archive = ArchiveFileRequest { file_id: id.clone(), ..ArchiveFileRequest::default() };
    client.archive_file(archive).await.unwrap();
    until("it is in the archive", || async { told(&client, &id).await == StorageClass::Archive }).await;
    let_originals_go(&site).await;
    until("its original is gone", || async { classes(&store).await == ["GLACIER_IR"] }).await;
    let (code, status) = site.run(&["storage", "status", "--json"]).await;
    let bucket = status.as_array().unwrap().iter().find(|provider| provider["name"] == "bucket").unwrap();
    assert_eq!((code, bucket["archived_bytes"].as_u64()), (Some(0), Some(9 << 20)), "{status}");
    let (is_clean, report) = site.fsck(&["--deep"]).await;
    assert!(is_clean, "{report}");

    let unarchive = UnarchiveFileRequest { file_id: id.clone(), ..UnarchiveFileRequest::default() };
    client.unarchive_file(unarchive).await.unwrap();
    until("it is back", || async { told(&client, &id).await == StorageClass::Standard }).await;
    let_originals_go(&site).await;
    until("nothing is left in the archive", || async { classes(&store).await == ["STANDARD"] }).await;
    let mut read = Vec::new();
    let wanted = DownloadFileRequest { file_id: id, ..DownloadFileRequest::default() };
    client.download_to(wanted, &mut read, |_| {}).await.unwrap();
    assert!(read == content);
    server.kill().await;
    site.close().await;
}
