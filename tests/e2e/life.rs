//! Starting and stopping.

use std::{io::Cursor, time::Duration};

use strongroom::{
    client::{Client, ClientOptions},
    proto::v1::{GetFileRequest, UploadSpec},
};
use tokio::io::AsyncWriteExt as _;

use crate::{
    database::TestDatabase,
    server::{Server, Site, binary},
};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_an_upload_in_flight_finish_and_then_exits_with_zero() {
    let site = Site::new("drain").await;
    let server = site.serve().await;
    let client = site.client(&server, "alice").await;
    let (reader, mut writer) = tokio::io::duplex(1 << 20);
    let upload = tokio::spawn({
        let client = client.clone();
        async move { client.upload(named("slow.txt"), reader, |_| {}).await }
    });
    writer.write_all(&vec![b'a'; 1 << 20]).await.unwrap();
    // The service has the first bytes, not only the client's buffers.
    while !has_received_bytes(&server.edge).await {
        tokio::task::yield_now().await;
    }

    server.terminate().await;
    // The drain is visible from outside before the rest of the file is sent.
    while readiness(&server.edge).await == Some(200) {
        tokio::task::yield_now().await;
    }
    writer.write_all(b"the end").await.unwrap();
    drop(writer);
    let file = upload.await.unwrap().unwrap().file.unwrap();
    assert_eq!(file.size_bytes, (1 << 20) + 7);
    let (status, log) = server.ended().await;
    assert!(status.success(), "{status}: {log:#?}");

    let server = site.serve().await;
    let client = site.client(&server, "alice").await;
    client.get_file(GetFileRequest { file_id: file.id }).await.unwrap();
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_answer_on_the_side_port() {
    let site = Site::new("probes").await;
    let server = site.serve().await;
    let client = site.client(&server, "alice").await;
    client.upload(named("a.txt"), Cursor::new(b"a".to_vec()), |_| {}).await.unwrap();
    while readiness(&server.edge).await != Some(200) {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&server.edge, "/livez").await, Some(200));
    let metrics = get(&server.edge, "/metrics").await.unwrap().text().await.unwrap();
    assert!(metrics.contains("UploadFile"), "{metrics}");
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_refuses_a_role_that_could_bypass_row_level_security_and_says_why() {
    let site = Site::new("superuser").await;
    let mut command = site.command(&["serve"]);
    command.env("STRONGROOM_DATABASE__URL", site.database.url("postgres"));
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("refusing to start") && said.contains("is a superuser"), "{said}");
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_names_the_key_that_it_does_not_know() {
    let mut command = binary();
    command.arg("serve").env("STRONGROOM_SERVER__LISTNE", "127.0.0.1:0");
    let output = command.output().await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("STRONGROOM_SERVER__LISTNE"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_it_serves_over_tls_and_nothing_else() {
    let site = Site::new("tls").await;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(site.path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(site.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let mut command = site.command(&["serve"]);
    command
        .env("STRONGROOM_SERVER__TLS__CERTIFICATE_FILE", site.path("cert.pem"))
        .env("STRONGROOM_SERVER__TLS__KEY_FILE", site.path("key.pem"));
    let server = Server::start(command).await;

    let token = || site.identity.token("alice", "acme", "member");
    let address = server.grpc.replace("http://127.0.0.1", "https://localhost");
    let options = ClientOptions {
        ca_certificates_pem: Some(made.cert.pem().into()),
        ..ClientOptions::new(address, token())
    };
    let client = Client::connect(options).await.unwrap();
    client.upload(named("a.txt"), Cursor::new(b"a".to_vec()), |_| {}).await.unwrap();
    let plain = async {
        let client = Client::connect(ClientOptions::new(server.grpc.clone(), token())).await?;
        client.upload(named("b.txt"), Cursor::new(b"b".to_vec()), |_| {}).await
    };
    assert!(plain.await.is_err(), "an unencrypted caller is not served");
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_go_up_down_and_up_again() {
    let database = TestDatabase::create("migrate").await;
    let migrate = async |what: &str| {
        let output = binary()
            .args(["migrate", what])
            .env("STRONGROOM_DATABASE__MIGRATE_URL", database.url("postgres"))
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let known = migrate("status").await.lines().count();
    assert!(migrate("status").await.lines().all(|line| line.starts_with("pending")));
    migrate("up").await;
    assert!(migrate("status").await.lines().all(|line| line.starts_with("applied")));
    for _ in 0..known {
        assert!(migrate("down").await.starts_with("reverted"));
    }
    assert!(migrate("down").await.starts_with("nothing"));
    migrate("up").await;
    assert!(migrate("up").await.starts_with("nothing"));
    database.drop().await;
}

fn named(name: &str) -> UploadSpec {
    UploadSpec { name: name.into(), ..UploadSpec::default() }
}

/// Whether the counter of uploaded bytes has moved.
async fn has_received_bytes(edge: &str) -> bool {
    let Some(metrics) = get(edge, "/metrics").await else { return false };
    let metrics = metrics.text().await.unwrap();
    let mut samples = metrics.lines().filter(|line| line.starts_with("strongroom_uploaded_bytes"));
    samples.any(|line| line.rsplit(' ').next().is_some_and(|value| value != "0"))
}

async fn readiness(edge: &str) -> Option<u16> {
    status(edge, "/readyz").await
}

async fn status(edge: &str, path: &str) -> Option<u16> {
    Some(get(edge, path).await?.status().as_u16())
}

async fn get(edge: &str, path: &str) -> Option<reqwest::Response> {
    // The HTTP client looks for a TLS provider also where it needs none; another test may have installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::get(format!("{edge}{path}")).await.ok()
}
