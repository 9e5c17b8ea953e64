//! Archiving in moto, an S3 server with storage classes.

use std::io::Cursor;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use strongroom::{
    client::Client,
    proto::v1::{
        ArchiveFileRequest, DownloadFileRequest, ListFileVersionsRequest, StorageClass, UnarchiveFileRequest,
        UploadSpec,
    },
};

use crate::{server::Site, worker::wait_until};

const BUCKET: &str = "archive-e2e";

/// Returns the endpoint of the moto server that `scripts/with-moto` started.
fn moto_endpoint() -> String {
    std::env::var("STRONGROOM_TEST_MOTO_ENDPOINT")
        .expect("STRONGROOM_TEST_MOTO_ENDPOINT is not set: run through scripts/with-moto")
}

/// Creates a site that stores its objects in moto. Blob deletion is delayed only by the hour that a running
/// download may take.
async fn create_site() -> Site {
    Site::new("archive").await.set_all(vec![
        ("STRONGROOM_STORAGE__PROVIDER", "bucket".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ADAPTER", "s3".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ENDPOINT", moto_endpoint()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ALLOW_HTTP", "true".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__BUCKET", BUCKET.to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ACCESS_KEY_ID", "key".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__SECRET_ACCESS_KEY", "secret".to_owned()),
        ("STRONGROOM_STORAGE__PROVIDERS__BUCKET__ARCHIVE_STORAGE_CLASS", "GLACIER_IR".to_owned()),
        ("STRONGROOM_RETENTION__BLOB_DELETION_DELAY_HOURS", "0".to_owned()),
        ("STRONGROOM_WORKER__TICK_SECONDS", "1".to_owned()),
        ("STRONGROOM_WORKER__POLL_MAX_MILLISECONDS", "200".to_owned()),
    ])
}

/// Returns an HTTP client for moto, which accepts any well-formed signature.
fn moto_client() -> reqwest::Client {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let signature =
        "AWS4-HMAC-SHA256 Credential=key/20260102/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(signature))]);
    reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap()
}

/// Returns the storage classes of all objects in the bucket. HEAD omits the header for STANDARD.
async fn list_storage_classes(store: &reqwest::Client) -> Vec<String> {
    let list = format!("{}/{BUCKET}?list-type=2", moto_endpoint());
    let listed = store.get(list).send().await.unwrap().error_for_status().unwrap().text().await.unwrap();
    let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
    let keys = keys.filter(|key| !key.ends_with("strongroom-owner.json"));
    let mut classes = Vec::new();
    for key in keys {
        let head = store.head(format!("{}/{BUCKET}/{key}", moto_endpoint())).send().await.unwrap();
        // The original object may have been deleted since it was listed.
        if head.status().is_success() {
            let class = head.headers().get("x-amz-storage-class").map(|class| class.to_str().unwrap());
            classes.push(class.unwrap_or("STANDARD").to_owned());
        }
    }
    classes
}

async fn storage_class_of(client: &Client, id: &str) -> StorageClass {
    let request = ListFileVersionsRequest { file_id: id.to_owned(), ..ListFileVersionsRequest::default() };
    client.list_file_versions(request).await.unwrap().versions[0].storage_class()
}

/// Makes the deletion of replaced objects due, as if the delay for running downloads had passed.
async fn expire_deletion_delay(site: &Site) {
    let mut owner = AsyncPgConnection::establish(&site.database.superuser_url()).await.unwrap();
    owner.batch_execute("UPDATE stray_objects SET delete_after = now()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_object_moves_to_archive_class_and_back() {
    let site = create_site().await;
    let init = site.command(&["storage", "init", "--provider", "bucket"]).output().await.unwrap();
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let server = site.start_server().await;
    let client = site.client(&server, "alice").await;
    let content: Vec<u8> = (0..9 << 20).map(|n: u32| (n % 251) as u8).collect();
    let spec = UploadSpec { name: "a.bin".to_owned(), ..UploadSpec::default() };
    let file = client.upload_reader(spec, Cursor::new(content.clone()), |_| {}).await.unwrap().file.unwrap();
    let (id, store) = (file.id, moto_client());
    assert_eq!(list_storage_classes(&store).await, ["STANDARD"]);

    let archive = ArchiveFileRequest { file_id: id.clone(), ..ArchiveFileRequest::default() };
    client.archive_file(archive).await.unwrap();
    wait_until("the object is archived", || async {
        storage_class_of(&client, &id).await == StorageClass::Archive
    })
    .await;
    expire_deletion_delay(&site).await;
    wait_until("the original is deleted", || async { list_storage_classes(&store).await == ["GLACIER_IR"] })
        .await;
    let (code, status) = site.run_json(&["storage", "status", "--json"]).await;
    let bucket = status.as_array().unwrap().iter().find(|provider| provider["name"] == "bucket").unwrap();
    assert_eq!((code, bucket["archived_bytes"].as_u64()), (Some(0), Some(9 << 20)), "{status}");
    let (is_clean, report) = site.run_fsck(&["--deep"]).await;
    assert!(is_clean, "{report}");

    let unarchive = UnarchiveFileRequest { file_id: id.clone(), ..UnarchiveFileRequest::default() };
    client.unarchive_file(unarchive).await.unwrap();
    wait_until("the object is unarchived", || async {
        storage_class_of(&client, &id).await == StorageClass::Standard
    })
    .await;
    expire_deletion_delay(&site).await;
    wait_until("the archived object is deleted", || async {
        list_storage_classes(&store).await == ["STANDARD"]
    })
    .await;
    let mut content_read = Vec::new();
    let request = DownloadFileRequest { file_id: id, ..DownloadFileRequest::default() };
    client.download_to(request, &mut content_read, |_| {}).await.unwrap();
    assert!(content_read == content);
    server.kill().await;
    site.close().await;
}
