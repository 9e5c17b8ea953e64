//! `strongroom import`, as whoever leaves an old system types it: objects that are in the service's own bucket already, and a
//! manifest of what is known of them.

use object_store::{ObjectStoreExt, PutPayload, aws::AmazonS3Builder, path::Path};
use secrecy::ExposeSecret;
use serde_json::Value;
use strongroom::{
    client::Client,
    proto::v1::{DownloadFileRequest, FindImportedFilesRequest},
};

use crate::{
    garage::Garage,
    server::{Server, Site, binary, connect},
};

const LARGE_SIZE_BYTES: usize = 17 * 1024 * 1024 + 3;

fn setting(garage: &Garage, name: &str) -> String {
    let name = format!("STRONGROOM_STORAGE__PROVIDERS__BUCKET__{name}");
    let settings = garage.settings();
    settings.into_iter().find(|(known, _)| *known == name).unwrap().1
}

/// What was in the bucket before the service came.
async fn fill(garage: &Garage) {
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

/// A site whose bucket held files before, of which those below "uploads/" may be imported.
async fn site(garage: &Garage) -> Site {
    let of_bucket = |name: &str| setting(garage, name);
    Site::new("import")
        .await
        .set_all(garage.settings())
        .set("STRONGROOM_STORAGE__KEY_PREFIX", "live")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__ADAPTER", "s3")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__TENANTS", "*")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__PREFIX", "uploads/")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__ENDPOINT", of_bucket("ENDPOINT"))
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__ALLOW_HTTP", "true")
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__REGION", of_bucket("REGION"))
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__BUCKET", of_bucket("BUCKET"))
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__ACCESS_KEY_ID", of_bucket("ACCESS_KEY_ID"))
        .set("STRONGROOM_IMPORTS__SOURCES__OLD__SECRET_ACCESS_KEY", of_bucket("SECRET_ACCESS_KEY"))
}

/// Runs `strongroom import old` as an admin; answers its exit code, its report, and what it said besides.
async fn import(site: &Site, server: &Server, arguments: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let token = site.identity.token("ada", "acme", "admin");
    let output = binary()
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

/// The new id of an old key.
fn new_id(report: &[Value], key: &str) -> String {
    let result = report.iter().find(|line| line["result"]["object_key"] == key);
    result.unwrap()["result"]["file_id"].as_str().unwrap().to_owned()
}

async fn bytes_of(client: &Client, file_id: &str) -> Vec<u8> {
    let request = DownloadFileRequest { file_id: file_id.to_owned(), ..DownloadFileRequest::default() };
    let mut bytes = Vec::new();
    client.download_to(request, &mut bytes, |_| {}).await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_bucket_already_is_taken_over_and_found_by_its_old_names() {
    let garage = Garage::start().await;
    fill(&garage).await;
    let site = site(&garage).await;
    let server = site.serve().await;
    let ada = connect(&server.grpc, site.identity.token("ada", "acme", "admin")).await;

    let (code, report, _) = import(&site, &server, &["--prefix", "", "--dry-run"]).await;
    assert_eq!((code, counts(&report)), (Some(0), [0, 0, 3, 0]), "{report:?}");

    let manifest = site.path("old.csv");
    let rows = "key,legacy_id,owner,create_time,entity\nuploads/7/Käse & Brot.txt,41,ann,2017-07-14T02:40:00Z,lesson:12\n\
                uploads/7/absent,42,,,\n";
    std::fs::write(&manifest, rows).unwrap();
    let manifest = manifest.to_str().unwrap();
    let (code, report, said) = import(&site, &server, &["--manifest", manifest]).await;
    assert_eq!((code, counts(&report)), (Some(1), [1, 0, 0, 1]), "{report:?} {said}");
    assert_eq!(report[1]["result"]["reason"], "NOT_FOUND");
    assert!(said.contains("1 of 2 failed"), "{said}");
    let letter = new_id(&report, "uploads/7/Käse & Brot.txt");

    let (code, report, _) = import(&site, &server, &["--prefix", ""]).await;
    assert_eq!((code, counts(&report)), (Some(0), [2, 1, 0, 0]), "{report:?}");
    assert_eq!(new_id(&report, "uploads/7/Käse & Brot.txt"), letter);
    assert!(bytes_of(&ada, &new_id(&report, "uploads/7/large.bin")).await == vec![7; LARGE_SIZE_BYTES]);
    assert_eq!(bytes_of(&ada, &letter).await, b"dear");
    let (code, report, _) = import(&site, &server, &["--key", "secret/of/others.txt"]).await;
    assert_eq!((code, counts(&report)), (Some(1), [0, 0, 0, 1]), "{report:?}");

    let legacy_ids = vec!["41".to_owned(), "42".to_owned()];
    let lookup = FindImportedFilesRequest { legacy_ids, ..FindImportedFilesRequest::default() };
    let found = ada.find_imported_files(lookup).await.unwrap().files;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].file_id.as_str(), found[0].key.as_str()),
        (letter.as_str(), "uploads/7/Käse & Brot.txt")
    );

    std::fs::write(site.path("bad.csv"), "key\nuploads/8/notes.txt\n\"\n").unwrap();
    let bad = site.path("bad.csv");
    for wrong in [vec!["--manifest", bad.to_str().unwrap()], vec![]] {
        assert_eq!(import(&site, &server, &wrong).await.0, Some(2), "{wrong:?}");
    }
    let (clean, report) = site.fsck(&[]).await;
    assert!(clean, "{report}");
    server.kill().await;
    site.close().await;
}
