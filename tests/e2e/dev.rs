//! `strongroom dev`: a first minute that works.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::server::binary;

async fn start(data_dir: &Path) -> (Child, Value) {
    start_with(data_dir, |_| {}).await
}

async fn start_with(data_dir: &Path, configure: impl FnOnce(&mut Command)) -> (Child, Value) {
    let mut command = binary();
    configure(&mut command);
    command
        .args(["dev", "--port", "0", "--edge-port", "0", "--data-dir"])
        .arg(data_dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(bin) = std::env::var_os("STRONGROOM_POSTGRES_BIN") {
        command.env("STRONGROOM_POSTGRES_BIN", bin);
    }
    let mut dev = command.spawn().unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines();
    let ready = tokio::time::timeout(Duration::from_secs(120), lines.next_line()).await.unwrap().unwrap();
    assert!(ready.is_some_and(|line| line.starts_with("ready")), "dev ended before it was ready");
    let json = std::fs::read(data_dir.join("dev.json")).unwrap();
    (dev, serde_json::from_slice(&json).unwrap())
}

async fn stop(mut dev: Child) {
    let pid = dev.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(dev.wait().await.unwrap().success());
}

async fn run(data_dir: &Path, caller: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = binary()
        .args(arguments)
        .args(["--json", "--as", caller, "--dev"])
        .arg(data_dir)
        .output()
        .await
        .unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_serves_ready_callers_and_finds_its_data_again() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let source = directory.path().join("notes.txt");
    std::fs::write(&source, "kept").unwrap();
    let source = source.to_str().unwrap();

    let (dev, json) = start(&data_dir).await;
    for caller in [
        "acme_admin",
        "acme_manager",
        "acme_member",
        "acme_member2",
        "globex_admin",
        "globex_member",
        "personal",
        "operator",
        "service",
    ] {
        assert!(json["tokens"][caller].is_string(), "{caller} has no token");
    }
    assert_eq!(json["callers"]["acme_member"]["user"], json["callers"]["personal"]["user"]);
    assert_eq!(json["callers"]["acme_member"]["groups"], json["callers"]["acme_manager"]["groups"]);

    let (code, put) = run(&data_dir, "acme_member", &["put", source]).await;
    assert_eq!(code, Some(0), "{put}");
    let id = put["file"]["id"].as_str().unwrap().to_owned();
    let copy = directory.path().join("copy.txt");
    let copy = copy.to_str().unwrap();
    let (code, _) = run(&data_dir, "globex_admin", &["get", &id, "--output", copy]).await;
    assert_eq!(code, Some(3), "another tenant finds nothing");
    let (code, _) = run(&data_dir, "personal", &["get", &id, "--output", copy]).await;
    assert_eq!(code, Some(3), "the same person outside the organisation finds nothing");
    stop(dev).await;
    assert!(!data_dir.join("dev.json").exists());

    let (dev, _) = start(&data_dir).await;
    let (code, _) = run(&data_dir, "acme_member2", &["get", &id, "--output", copy]).await;
    assert_eq!(code, Some(0));
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "kept");
    let (code, quota) = run(&data_dir, "acme_admin", &["quota"]).await;
    assert_eq!((code, &quota["used_bytes"]), (Some(0), &Value::from(4)));
    operators_lead_a_tenant_through_its_life(&data_dir).await;
    stop(dev).await;
}

/// What an operator types.
async fn operators_lead_a_tenant_through_its_life(data_dir: &Path) {
    let create = ["tenants", "create", "newco", "--issuer", "https://id.example.org", "--preset", "crm"];
    let (code, born) = run(data_dir, "operator", &create).await;
    assert_eq!((code, &born["preset"]), (Some(0), &Value::from("crm")));
    let id = born["id"].as_str().unwrap();
    let (code, _) = run(data_dir, "acme_admin", &["tenants", "show", id]).await;
    assert_eq!(code, Some(4), "for operators alone");
    for (command, state) in [
        (&["tenants", "suspend", id, "--reason", "unpaid"][..], "TENANT_STATE_SUSPENDED"),
        (&["tenants", "resume", id], "TENANT_STATE_ACTIVE"),
    ] {
        let (code, moved) = run(data_dir, "operator", command).await;
        assert_eq!((code, &moved["state"]), (Some(0), &Value::from(state)));
    }
    let (code, _) = run(data_dir, "operator", &["tenants", "export", id]).await;
    assert_eq!(code, Some(0));
    for (command, state) in [
        (&["tenants", "delete", id][..], "TENANT_STATE_ACTIVE"),
        (&["tenants", "delete", id, "--yes"], "TENANT_STATE_DELETING"),
    ] {
        let (code, answer) = run(data_dir, "operator", command).await;
        assert_eq!((code, &answer["tenant"]["state"]), (Some(0), &Value::from(state)));
    }
    let (code, _) = run(data_dir, "operator", &["tenants", "ls"]).await;
    assert_eq!(code, Some(0));
    let transfer = ["transfer-ownership", "--from", "leaver", "--to", "successor", "--dry-run"];
    let (code, left) = run(data_dir, "acme_admin", &transfer).await;
    assert_eq!((code, &left["remaining_file_count"]), (Some(0), &Value::from(0)));
}

/// What `scripts/with-garage` hands down.
fn garage(name: &str) -> String {
    let name = format!("STRONGROOM_TEST_S3_{name}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run through scripts/with-garage"))
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_makes_its_bucket_and_finds_files_of_both_providers_again() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let large = directory.path().join("large.bin");
    std::fs::write(&large, vec![7; 20 << 20]).unwrap();
    let (large, copy) = (large.to_str().unwrap(), directory.path().join("copy.bin"));
    let on_s3 = |command: &mut Command| {
        command
            .env("AWS_ACCESS_KEY_ID", garage("ACCESS_KEY"))
            .env("AWS_SECRET_ACCESS_KEY", garage("SECRET_KEY"))
            .env("STRONGROOM_DEV_S3_ENDPOINT", garage("ENDPOINT"))
            .env("STRONGROOM_DEV_S3_BUCKET", "made-by-dev")
            .env("STRONGROOM_DEV_S3_REGION", garage("REGION"))
            .env("STRONGROOM_DEV_STORAGE", "s3");
    };

    let (dev, _) = start(&data_dir).await;
    let (_, local) = run(&data_dir, "acme_member", &["put", large]).await;
    stop(dev).await;
    let (dev, _) = start_with(&data_dir, on_s3).await;
    let (code, s3) = run(&data_dir, "acme_member", &["put", large]).await;
    assert_eq!(code, Some(0), "{s3}");
    for put in [&local, &s3] {
        let id = put["file"]["id"].as_str().unwrap();
        let (code, got) =
            run(&data_dir, "acme_member", &["get", id, "--force", "--output", copy.to_str().unwrap()]).await;
        assert_eq!(code, Some(0), "{got}");
        assert!(std::fs::read(&copy).unwrap() == vec![7; 20 << 20]);
    }
    stop(dev).await;
}
