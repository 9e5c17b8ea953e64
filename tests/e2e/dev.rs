//! `strongroom dev` and the client commands.

use std::{os::unix::fs::MetadataExt as _, path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{lifecycle::readiness, server::strongroom_command};

/// Starts `strongroom dev`, waits until it is ready, and returns it with the content of `dev.json`.
async fn start_dev(data_dir: &Path) -> (Child, Value) {
    start_dev_with(data_dir, |_| {}).await
}

async fn start_dev_with(data_dir: &Path, configure: impl FnOnce(&mut Command)) -> (Child, Value) {
    let mut command = strongroom_command();
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
    assert!(
        ready.is_some_and(|line| line.starts_with("ready")),
        "`strongroom dev` exited before it was ready"
    );
    let json = std::fs::read(data_dir.join("dev.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let probed = readiness(json["edge"].as_str().unwrap()).await;
    assert_eq!(probed, Some(200), "the first probe after the line `ready`");
    (dev, json)
}

async fn stop_dev(mut dev: Child) {
    let pid = dev.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(dev.wait().await.unwrap().success());
}

/// Runs a client command. Returns its exit code and its JSON output.
async fn run_client(data_dir: &Path, caller: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = strongroom_command()
        .args(arguments)
        .args(["--json", "--as", caller, "--dev"])
        .arg(data_dir)
        .output()
        .await
        .unwrap();
    let result = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), result)
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_serves_all_callers_and_keeps_data_across_restart() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let source = directory.path().join("notes.txt");
    std::fs::write(&source, "content").unwrap();
    let source = source.to_str().unwrap();

    let (dev, json) = start_dev(&data_dir).await;
    check_port_hints(json["grpc"].as_str().unwrap(), json["edge"].as_str().unwrap()).await;
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

    let (code, put) = run_client(&data_dir, "acme_member", &["put", source]).await;
    assert_eq!(code, Some(0), "{put}");
    let id = put["file"]["id"].as_str().unwrap().to_owned();
    assert_private(&data_dir);
    let copy = directory.path().join("copy.txt");
    let copy = copy.to_str().unwrap();
    let (code, _) = run_client(&data_dir, "globex_admin", &["get", &id, "--output", copy]).await;
    assert_eq!(code, Some(3), "another tenant does not see the file");
    let (code, _) = run_client(&data_dir, "personal", &["get", &id, "--output", copy]).await;
    assert_eq!(code, Some(3), "the same person outside the organization does not see the file");
    stop_dev(dev).await;
    assert!(!data_dir.join("dev.json").exists());

    let (dev, _) = start_dev(&data_dir).await;
    let (code, _) = run_client(&data_dir, "acme_member2", &["get", &id, "--output", copy]).await;
    assert_eq!(code, Some(0));
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "content");
    let (code, quota) = run_client(&data_dir, "acme_admin", &["quota"]).await;
    assert_eq!((code, &quota["used_bytes"]), (Some(0), &Value::from(7)));
    check_operator_commands(&data_dir).await;
    check_maintenance_commands(&data_dir).await;
    check_texts(&data_dir, &id).await;
    stop_dev(dev).await;
}

/// Asserts that only their owner can access the files and directories of an installation. If root has started
/// it, the group of the PostgreSQL user may pass through the data directory.
fn assert_private(data_dir: &Path) {
    let mut directories = vec![data_dir.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            // PostgreSQL deletes its temporary files.
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            assert_eq!(metadata.mode() & 0o077, 0, "{}: {:o}", path.display(), metadata.mode());
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    let mode = std::fs::metadata(data_dir).unwrap().mode() & 0o777;
    assert!(matches!(mode, 0o700 | 0o710), "{mode:o}");
}

/// Runs the commands for operators and tenant admins.
async fn check_operator_commands(data_dir: &Path) {
    let create = ["tenants", "create", "newco", "--issuer", "https://id.example.org", "--preset", "crm"];
    let (code, created) = run_client(data_dir, "operator", &create).await;
    assert_eq!((code, &created["preset"]), (Some(0), &Value::from("crm")));
    let id = created["id"].as_str().unwrap();
    let (code, _) = run_client(data_dir, "acme_admin", &["tenants", "show", id]).await;
    assert_eq!(code, Some(4), "only operators may see tenants");
    for (command, state) in [
        (&["tenants", "suspend", id, "--reason", "unpaid"][..], "TENANT_STATE_SUSPENDED"),
        (&["tenants", "resume", id], "TENANT_STATE_ACTIVE"),
    ] {
        let (code, tenant) = run_client(data_dir, "operator", command).await;
        assert_eq!((code, &tenant["state"]), (Some(0), &Value::from(state)));
    }
    let prices = ["tenants", "update", id, "--download-credits", "5", "--gib-day-credits", "20"];
    let (code, tenant) = run_client(data_dir, "operator", &prices).await;
    assert_eq!(
        (code, &tenant["metering"]),
        (Some(0), &serde_json::json!({ "download_credits": 5, "gib_day_credits": 20 }))
    );
    let free = ["tenants", "update", id, "--download-credits", "0"];
    let (_, tenant) = run_client(data_dir, "operator", &free).await;
    assert_eq!(tenant["metering"]["gib_day_credits"], 20, "the other price is unchanged");
    let (code, _) = run_client(data_dir, "operator", &["tenants", "export", id]).await;
    assert_eq!(code, Some(0));
    for (command, state) in [
        (&["tenants", "delete", id][..], "TENANT_STATE_ACTIVE"),
        (&["tenants", "delete", id, "--yes"], "TENANT_STATE_DELETING"),
    ] {
        let (code, result) = run_client(data_dir, "operator", command).await;
        assert_eq!((code, &result["tenant"]["state"]), (Some(0), &Value::from(state)));
    }
    let (code, _) = run_client(data_dir, "operator", &["tenants", "ls"]).await;
    assert_eq!(code, Some(0));
    let transfer = ["transfer-ownership", "--from", "leaver", "--to", "successor", "--dry-run"];
    let (code, result) = run_client(data_dir, "acme_admin", &transfer).await;
    assert_eq!((code, &result["remaining_file_count"]), (Some(0), &Value::from(0)));
}

/// Runs a command against the wrong port and with the wrong scheme.
async fn check_port_hints(grpc: &str, edge: &str) {
    for (server, advice) in [
        (edge.to_owned(), "use the gRPC port"),
        (grpc.replace("http://", "https://"), "does not use TLS: use http://"),
        (edge.replace("http://", "https://"), "use the gRPC port"),
    ] {
        let output =
            strongroom_command().args(["ls", "--token", "t", "--server", &server]).output().await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{server}: {errors}");
        assert!(errors.contains(advice), "{server}: {errors}");
    }
}

/// Runs the maintenance commands on the data of the running server.
async fn check_maintenance_commands(data_dir: &Path) {
    for command in [
        &["fsck", "--json"][..],
        &["storage", "status", "--json"],
        &["jobs", "list", "--json"],
        &["sweep", "--dry-run", "--json"],
    ] {
        let output = strongroom_command().args(command).arg("--dev").arg(data_dir).output().await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {errors}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap();
    }
}

/// Runs commands whose output is read by people.
async fn check_texts(data_dir: &Path, id: &str) {
    let command = |arguments: &[&str]| {
        let mut command = strongroom_command();
        command.args(arguments).args(["--as", "acme_member", "--dev"]).arg(data_dir);
        command
    };
    let versions = command(&["versions", "ls", id]).output().await.unwrap();
    let versions = String::from_utf8(versions.stdout).unwrap();
    assert!(versions.starts_with("VERSION ") && versions.lines().count() == 2, "{versions}");

    let mut watch = command(&["watch"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stderr.take().unwrap()).lines();
    let note = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.unwrap().unwrap();
    assert!(note.as_ref().is_some_and(|note| note.starts_with("waiting for changes")), "{note:?}");
    watch.kill().await.unwrap();
}

/// Returns a variable that `scripts/with-garage` sets.
fn garage_variable(name: &str) -> String {
    let name = format!("STRONGROOM_TEST_S3_{name}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run through scripts/with-garage"))
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_creates_bucket_and_reads_files_of_both_providers() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let large = directory.path().join("large.bin");
    std::fs::write(&large, vec![7; 20 << 20]).unwrap();
    let (large, copy) = (large.to_str().unwrap(), directory.path().join("copy.bin"));
    let configure_s3 = |command: &mut Command| {
        command
            .env("AWS_ACCESS_KEY_ID", garage_variable("ACCESS_KEY"))
            .env("AWS_SECRET_ACCESS_KEY", garage_variable("SECRET_KEY"))
            .env("STRONGROOM_DEV_S3_ENDPOINT", garage_variable("ENDPOINT"))
            .env("STRONGROOM_DEV_S3_BUCKET", "created-by-dev")
            .env("STRONGROOM_DEV_S3_REGION", garage_variable("REGION"))
            .env("STRONGROOM_DEV_STORAGE", "s3");
    };

    let (dev, _) = start_dev(&data_dir).await;
    let (_, local) = run_client(&data_dir, "acme_member", &["put", large]).await;
    stop_dev(dev).await;
    let (dev, _) = start_dev_with(&data_dir, configure_s3).await;
    let (code, s3) = run_client(&data_dir, "acme_member", &["put", large]).await;
    assert_eq!(code, Some(0), "{s3}");
    for put in [&local, &s3] {
        let id = put["file"]["id"].as_str().unwrap();
        let (code, result) =
            run_client(&data_dir, "acme_member", &["get", id, "--force", "--output", copy.to_str().unwrap()])
                .await;
        assert_eq!(code, Some(0), "{result}");
        assert!(std::fs::read(&copy).unwrap() == vec![7; 20 << 20]);
    }
    stop_dev(dev).await;
}
