//! `strongroom storage`, as an operator types it.

use std::io::Cursor;

use serde_json::Value;
use strongroom::proto::v1::{DownloadFileRequest, UploadSpec};
use tokio::process::Command;

use crate::server::{Server, Site};

/// A command of a site that has a second directory beside the one that its service writes to.
fn with_other(site: &Site, arguments: &[&str]) -> Command {
    let mut command = site.command(arguments);
    command
        .env("STRONGROOM_STORAGE__PROVIDERS__OTHER__ADAPTER", "local")
        .env("STRONGROOM_STORAGE__PROVIDERS__OTHER__ROOT", site.path("other"));
    command
}

async fn run(site: &Site, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = with_other(site, arguments).output().await.unwrap();
    let answer = serde_json::from_slice(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), answer.unwrap_or(Value::String(said)))
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_moved_to_another_directory_and_stay_readable() {
    let site = Site::new("storage").await;
    let server = Server::start(with_other(&site, &["serve"])).await;
    let client = site.client(&server, "alice").await;
    let content = vec![7; 20 << 20];
    let spec = UploadSpec { name: "a.bin".to_owned(), ..UploadSpec::default() };
    let id = client.upload(spec, Cursor::new(content.clone()), |_| {}).await.unwrap().file.unwrap().id;

    let (code, init) = run(&site, &["storage", "init", "--provider", "other", "--json"]).await;
    assert_eq!((code, &init["provider"]), (Some(0), &Value::from("other")), "{init}");
    let (code, moved) =
        run(&site, &["storage", "move", "--from", "local", "--to", "other", "--read-back", "--json"]).await;
    assert_eq!((code, &moved["blobs"], &moved["bytes"]), (Some(0), &Value::from(1), &Value::from(20 << 20)));
    let (code, status) = run(&site, &["storage", "status", "--json"]).await;
    assert_eq!(code, Some(0), "{status}");
    let held: Vec<_> = status.as_array().unwrap().iter().map(|p| (&p["name"], &p["objects"])).collect();
    let expected =
        [("local", 0), ("other", 1)].map(|(name, objects)| (Value::from(name), Value::from(objects)));
    assert_eq!(held, expected.each_ref().map(|(name, objects)| (name, objects)));
    assert!(status[0]["free_bytes"].as_u64().unwrap() > 0 && status[0]["latency_milliseconds"].is_number());
    let mut read = Vec::new();
    let wanted = DownloadFileRequest { file_id: id, ..DownloadFileRequest::default() };
    client.download_to(wanted, &mut read, |_| {}).await.unwrap();
    assert!(read == content);

    // Without the other directory, its file is told about by whoever looks.
    let output = site.command(&["storage", "status"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("`other` is not configured"));
    let refused = run(&site, &["storage", "move", "--from", "local", "--to", "gone"]).await;
    assert_eq!(refused.0, Some(1), "{refused:?}");
    server.kill().await;
    site.close().await;
}
