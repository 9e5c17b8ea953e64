//! The `strongroom storage` commands.

use std::io::Cursor;

use serde_json::Value;
use strongroom::{
    client::ClientError,
    proto::v1::{DownloadFileRequest, UploadSpec},
};
use tokio::process::Command;

use crate::{
    lifecycle::get,
    server::{Server, Site},
    worker::wait_until,
};

/// Returns a command of the site with a second local provider, `other`.
fn command_with_other(site: &Site, arguments: &[&str]) -> Command {
    let mut command = site.command(arguments);
    command
        .env("STRONGROOM_STORAGE__PROVIDERS__OTHER__ADAPTER", "local")
        .env("STRONGROOM_STORAGE__PROVIDERS__OTHER__ROOT", site.path("other"));
    command
}

/// Runs a command that prints JSON. Returns its exit code and the JSON, or its standard error if that fails.
async fn run_with_other(site: &Site, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = command_with_other(site, arguments).output().await.unwrap();
    let result = serde_json::from_slice(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), result.unwrap_or(Value::String(error)))
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_files_stay_readable() {
    let site = Site::new("storage").await;
    let server = Server::start(command_with_other(&site, &["serve"])).await;
    let client = site.client(&server, "alice").await;
    let content = vec![7; 20 << 20];
    let spec = UploadSpec { name: "a.bin".to_owned(), ..UploadSpec::default() };
    let id = client.upload_reader(spec, Cursor::new(content.clone()), |_| {}).await.unwrap().file.unwrap().id;

    let (code, init) = run_with_other(&site, &["storage", "init", "--provider", "other", "--json"]).await;
    assert_eq!((code, &init["provider"]), (Some(0), &Value::from("other")), "{init}");
    let (code, moved) = run_with_other(
        &site,
        &["storage", "move", "--from", "local", "--to", "other", "--read-back", "--json"],
    )
    .await;
    assert_eq!((code, &moved["blobs"], &moved["bytes"]), (Some(0), &Value::from(1), &Value::from(20 << 20)));
    let (code, status) = run_with_other(&site, &["storage", "status", "--json"]).await;
    assert_eq!(code, Some(0), "{status}");
    let objects: Vec<_> = status.as_array().unwrap().iter().map(|p| (&p["name"], &p["objects"])).collect();
    let expected =
        [("local", 0), ("other", 1)].map(|(name, objects)| (Value::from(name), Value::from(objects)));
    assert_eq!(objects, expected.each_ref().map(|(name, objects)| (name, objects)));
    assert!(status[0]["free_bytes"].as_u64().unwrap() > 0 && status[0]["latency_milliseconds"].is_number());
    let mut content_read = Vec::new();
    let request = DownloadFileRequest { file_id: id, ..DownloadFileRequest::default() };
    client.download_to(request, &mut content_read, |_| {}).await.unwrap();
    assert!(content_read == content);

    // Without the provider `other`, `storage status` reports that the provider is not configured.
    let output = site.command(&["storage", "status"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("`other` is not configured"));
    let failed = run_with_other(&site, &["storage", "move", "--from", "local", "--to", "gone"]).await;
    assert_eq!(failed.0, Some(1), "{failed:?}");
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adopt_takes_a_store_over_from_another_database() {
    let (production, staging) = (Site::new("adopt").await, Site::new("adopt_staging").await);
    let server = production.start_server().await;
    let (code, adopted) = production.run_json(&["storage", "adopt", "--yes", "--json"]).await;
    assert_eq!((code, &adopted[0]["is_adopted"]), (Some(0), &Value::from(false)), "{adopted}");
    server.kill().await;

    let objects = production.path("objects");
    let run = async |arguments: &[&str]| {
        let mut command = staging.command(arguments);
        let output =
            command.env("STRONGROOM_STORAGE__PROVIDERS__LOCAL__ROOT", &objects).output().await.unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, status) = run(&["storage", "status"]).await;
    assert!(code == Some(3) && status.contains("belongs to another database"), "{status}");
    let (code, swept) = run(&["sweep"]).await;
    assert!(code == Some(3) && swept.contains("strongroom storage adopt"), "{swept}");
    let (code, question) = run(&["storage", "adopt"]).await;
    assert!(code == Some(1) && question.contains("epoch 1") && question.contains("--yes"), "{question}");
    let (code, adopted) = run(&["storage", "adopt", "--yes", "--json"]).await;
    let adopted: Value = serde_json::from_str(&adopted).unwrap();
    assert_eq!((code, &adopted[0]["is_adopted"]), (Some(0), &Value::from(true)), "{adopted}");
    assert_eq!(
        (&adopted[0]["former_owner"]["epoch"], &adopted[0]["owner"]["epoch"]),
        (&Value::from(1), &Value::from(2))
    );

    let output = production.command(&["storage", "status"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(3), "the former owner");
    assert_eq!(run(&["storage", "status"]).await.0, Some(0));
    production.close().await;
    staging.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_rejects_short_grace_period() {
    let site = Site::new("grace").await;
    let output = site.command(&["sweep", "--grace-seconds", "60"]).output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("--service-is-stopped"), "{error}");
    let (code, reports) = site.run_json(&["sweep", "--grace-seconds", "60", "--dry-run", "--json"]).await;
    assert_eq!((code, &reports[0]["found"]["count"]), (Some(0), &Value::from(0)), "{reports}");
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_of_another_database_is_ready_for_reads_and_says_why() {
    let (production, staging) = (Site::new("reads").await, Site::new("reads_staging").await);
    production.start_server().await.kill().await;
    let mut command = staging.command(&["serve"]);
    command.env("STRONGROOM_STORAGE__PROVIDERS__LOCAL__ROOT", production.path("objects"));
    let server = Server::start(command).await;
    wait_until("the server is ready and reports the owner of the store", || async {
        let Some(response) = get(&server.edge, "/readyz").await else { return false };
        let health: Value = response.json().await.unwrap();
        let owner = &health["components"]["store_owner"];
        health["ready"] == true
            && owner["state"] == "degraded"
            && owner["reason"].as_str().is_some_and(|reason| reason.contains("belongs to another database"))
    })
    .await;
    let client = staging.client(&server, "alice").await;
    let spec = UploadSpec { name: "a.txt".to_owned(), ..UploadSpec::default() };
    let refused = client.upload_reader(spec, Cursor::new(b"x".to_vec()), |_| {}).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Rejected(rejection) if rejection.reason_name == "STORAGE_NOT_OWNED"),
        "{refused}"
    );
    server.kill().await;
    production.close().await;
    staging.close().await;
}
