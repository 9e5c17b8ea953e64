//! A restore with the commands of an operator: load, dump, more load, restore of the dump, and a decision about the
//! lost hours.

use std::{collections::BTreeSet, io::Cursor, path::PathBuf};

use serde_json::Value;
use strongroom::{
    client::Client,
    proto::v1::{DownloadFileRequest, FileFilter, ListFilesRequest, UploadSpec},
};
use tokio::process::Command;

use crate::{
    database::TestDatabase,
    server::{Site, connect},
};

/// Returns content of this size, different for each size.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| u8::try_from((n / 7 + n + size) % 251).unwrap()).collect()
}

async fn upload(client: &Client, size: usize) {
    let spec = UploadSpec { name: format!("{size}.bin"), ..UploadSpec::default() };
    client.upload_reader(spec, Cursor::new(content(size)), |_| {}).await.unwrap();
}

async fn run_postgres(program: &str, arguments: &[&str]) {
    let bin = std::env::var_os("STRONGROOM_POSTGRES_BIN")
        .expect("STRONGROOM_POSTGRES_BIN is not set: run the tests through scripts/with-postgres");
    let output = Command::new(PathBuf::from(bin).join(program)).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a command. Returns its exit code and its output.
async fn run(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.command(arguments).output().await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

/// Reads all recovered files that a client sees.
async fn read_recovered(client: &Client) -> BTreeSet<Vec<u8>> {
    let filter = FileFilter { category: "recovered".to_owned(), ..FileFilter::default() };
    let request = ListFilesRequest { filter: Some(filter), ..ListFilesRequest::default() };
    let mut contents = BTreeSet::new();
    for file in client.list_files(request).await.unwrap().files {
        let mut bytes = Vec::new();
        let request = DownloadFileRequest { file_id: file.id, ..DownloadFileRequest::default() };
        client.download_to(request, &mut bytes, |_| {}).await.unwrap();
        contents.insert(bytes);
    }
    contents
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_database_gets_its_lost_files_back() {
    let (site, sizes) = (Site::new("restore").await, [2_000, 20 << 20]);
    let server = site.start_server().await;
    let client = site.client(&server, "alice").await;
    upload(&client, 1_000).await;
    let dump = site.path("backup.dump");
    let dump = dump.to_str().unwrap();
    run_postgres("pg_dump", &["--format=custom", "--file", dump, &site.database.superuser_url()]).await;
    for size in sizes {
        upload(&client, size).await;
    }
    server.kill().await;

    let database = TestDatabase::create("restored").await;
    let url = database.superuser_url();
    run_postgres("pg_restore", &["--exit-on-error", "--dbname", &url, dump]).await;
    let restored = Site::with_database(database)
        .set("STRONGROOM_STORAGE__PROVIDERS__LOCAL__ROOT", site.path("objects").display());
    let (code, reports) = restored.run_json(&["restore-check", "--json"]).await;
    let lost = &reports[0]["lost_hours"];
    assert_eq!((code, &lost["count"], &lost["bytes"]), (Some(3), &Value::from(2), &Value::from(20_973_520)));
    let (code, table) = run(&restored, &["restore-check"]).await;
    assert!(code == Some(3) && table.contains("unknown, lost hours"), "{table}");
    let (code, refused) = run(&restored, &["restore-check", "--discard", "--yes"]).await;
    assert!(code == Some(1) && refused.contains("strongroom storage adopt"), "{refused}");

    assert_eq!(run(&restored, &["storage", "adopt", "--yes"]).await.0, Some(0));
    let (code, swept) = run(&restored, &["sweep"]).await;
    assert!(code == Some(3) && swept.contains("strongroom restore-check"), "{swept}");
    let (code, status) = run(&restored, &["storage", "status"]).await;
    assert!(code == Some(0) && status.contains("strongroom restore-check"), "{status}");
    let (code, question) = run(&restored, &["restore-check", "--readopt"]).await;
    assert!(code == Some(1) && question.contains("--yes"), "{question}");
    let (code, reports) = restored.run_json(&["restore-check", "--readopt", "--yes", "--json"]).await;
    assert_eq!((code, &reports[0]["readopted"]["count"]), (Some(0), &Value::from(2)), "{reports:#}");

    assert_eq!(run(&restored, &["restore-check"]).await.0, Some(0));
    assert_eq!(run(&restored, &["sweep"]).await.0, Some(0));
    assert_eq!(run(&restored, &["quarantine", "list"]).await.0, Some(0));
    let (is_clean, report) = restored.run_fsck(&["--deep", "--grace-seconds", "0"]).await;
    assert!(is_clean, "{report:#}");
    let server = restored.start_server().await;
    let admin = connect(&server.grpc, restored.identity.token("ada", "acme", "admin")).await;
    assert!(read_recovered(&admin).await == BTreeSet::from(sizes.map(content)));
    assert!(read_recovered(&restored.client(&server, "alice").await).await.is_empty(), "only admins");
    server.kill().await;
    restored.close().await;
    site.close().await;
}
