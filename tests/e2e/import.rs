//! `strongroom import` of existing objects in the service's own bucket, by prefix, by key and from a
//! manifest.

use object_store::{ObjectStoreExt, PutPayload, aws::AmazonS3Builder, path::Path};
use secrecy::ExposeSecret;
use serde_json::Value;
use strongroom::{
    client::Client,
    proto::v1::{DownloadFileRequest, FindImportedFilesRequest},
};

use crate::{
    garage::Garage,
    server::{Server, Site, connect, strongroom_command},
};

const LARGE_SIZE_BYTES: usize = 17 * 1024 * 1024 + 3;

fn setting(garage: &Garage, name: &str) -> String {
    let name = format!("STRONGROOM_STORAGE__PROVIDERS__BUCKET__{name}");
    let settings = garage.settings();
    settings.into_iter().find(|(known, _)| *known == name).unwrap().1
}

/// Stores the existing objects in the bucket.
async fn create_existing_objects(garage: &Garage) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let store = AmazonS3Builder::new()
        .with_endpoint(setting(garage, "ENDPOINT"))
        .with_allow_http(true)
        .with_region(setting(garage, "REGION"))
        .with_bucket_name(setting(garage, "BUCKET"))
        .with_access_key_id(setting(garage, "ACCESS_KEY_ID"))
        .with_secret_access_key(setting(garage, "SECRET_ACCESS_KEY"))
        .build()
        .unwrap();
    for (key, body) in [
        ("uploads/7/Käse & Brot.txt", b"dear".to_vec()),
        ("uploads/7/large.bin", vec![7; LARGE_SIZE_BYTES]),
        ("uploads/8/notes.txt", b"notes".to_vec()),
        ("secret/of/others.txt", b"secret".to_vec()),
    ] {
        store.put(&Path::parse(key).unwrap(), PutPayload::from(body)).await.unwrap();
    }
}

/// Creates a site that may import the existing objects below "uploads/" from its own bucket.
async fn create_site(garage: &Garage) -> Site {
    let bucket_setting = |name: &str| setting(garage, name);
    Site::new("import")
        .await
        .set_all(garage.settings())
        .set("STRONGROOM_STORAGE__KEY_PREFIX", "live")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__ADAPTER", "s3")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__TENANTS", "*")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__PREFIX", "uploads/")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__ENDPOINT", bucket_setting("ENDPOINT"))
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__ALLOW_HTTP", "true")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__REGION", bucket_setting("REGION"))
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__BUCKET", bucket_setting("BUCKET"))
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__ACCESS_KEY_ID", bucket_setting("ACCESS_KEY_ID"))
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__SECRET_ACCESS_KEY", bucket_setting("SECRET_ACCESS_KEY"))
}

/// Runs `strongroom import old` as an admin. Returns its exit code, its report and its standard error.
async fn run_import(site: &Site, server: &Server, arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let token = site.identity.token("ada", "acme", "admin");
    let output = strongroom_command()
        .args(["import", "old", "--json"])
        .args(arguments)
        .env("STRONGROOM_SERVER", &server.grpc)
        .env("STRONGROOM_TOKEN", token.expose_secret())
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let report = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), report, String::from_utf8(output.stderr).unwrap())
}

fn counts(report: &[Value]) -> [i64; 4] {
    let summary = &report.last().unwrap()["summary"];
    ["imported_count", "already_imported_count", "would_import_count", "failed_count"]
        .map(|name| summary[name].as_i64().unwrap_or_else(|| panic!("no summary: {report:?}")))
}

/// Returns the id of the file that was imported from a key.
fn file_id_of(report: &[Value], key: &str) -> String {
    let result = report.iter().find(|line| line["result"]["object_key"] == key);
    result.unwrap()["result"]["file_id"].as_str().unwrap().to_owned()
}

async fn download_bytes(client: &Client, file_id: &str) -> Vec<u8> {
    let request = DownloadFileRequest { file_id: file_id.to_owned(), ..DownloadFileRequest::default() };
    let mut bytes = Vec::new();
    client.download_to(request, &mut bytes, |_| {}).await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_objects_are_imported_once_and_found_by_legacy_id() {
    let garage = Garage::start().await;
    create_existing_objects(&garage).await;
    let site = create_site(&garage).await;
    let server = site.start_server().await;
    let ada = connect(&server.grpc, site.identity.token("ada", "acme", "admin")).await;

    let (code, report, _) = run_import(&site, &server, &["--prefix", "", "--dry-run"]).await;
    assert_eq!((code, counts(&report)), (Some(0), [0, 0, 3, 0]), "{report:?}");

    let manifest = site.path("old.csv");
    let rows = "key,legacy_id,owner,create_time,entity\nuploads/7/Käse & Brot.txt,41,ann,2017-07-14T02:40:00Z,lesson:12\n\
                uploads/7/absent,42,,,\n";
    std::fs::write(&manifest, rows).unwrap();
    let manifest = manifest.to_str().unwrap();
    let (code, report, error) = run_import(&site, &server, &["--manifest", manifest]).await;
    assert_eq!((code, counts(&report)), (Some(1), [1, 0, 0, 1]), "{report:?} {error}");
    assert_eq!(report[1]["result"]["reason"], "NOT_FOUND");
    assert!(error.contains("1 of 2 items failed"), "{error}");
    let text_file_id = file_id_of(&report, "uploads/7/Käse & Brot.txt");

    let (code, report, _) = run_import(&site, &server, &["--prefix", ""]).await;
    assert_eq!((code, counts(&report)), (Some(0), [2, 1, 0, 0]), "{report:?}");
    assert_eq!(file_id_of(&report, "uploads/7/Käse & Brot.txt"), text_file_id);
    assert!(
        download_bytes(&ada, &file_id_of(&report, "uploads/7/large.bin")).await == vec![7; LARGE_SIZE_BYTES]
    );
    assert_eq!(download_bytes(&ada, &text_file_id).await, b"dear");
    let (code, report, _) = run_import(&site, &server, &["--key", "secret/of/others.txt"]).await;
    assert_eq!((code, counts(&report)), (Some(1), [0, 0, 0, 1]), "{report:?}");

    let legacy_ids = vec!["41".to_owned(), "42".to_owned()];
    let lookup = FindImportedFilesRequest { legacy_ids, ..FindImportedFilesRequest::default() };
    let found = ada.find_imported_files(lookup).await.unwrap().files;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].file_id.as_str(), found[0].key.as_str()),
        (text_file_id.as_str(), "uploads/7/Käse & Brot.txt")
    );

    std::fs::write(site.path("bad.csv"), "key\nuploads/8/notes.txt\n\"\n").unwrap();
    let bad = site.path("bad.csv");
    for arguments in [vec!["--manifest", bad.to_str().unwrap()], vec![]] {
        assert_eq!(run_import(&site, &server, &arguments).await.0, Some(2), "{arguments:?}");
    }
    let (clean, report) = site.run_fsck(&[]).await;
    assert!(clean, "{report}");
    server.kill().await;
    site.close().await;
}
