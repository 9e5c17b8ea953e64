//! Start, probes, TLS, migrations and shutdown.

use std::{io::Cursor, time::Duration};

use strongroom::{
    client::{Client, ClientOptions},
    proto::v1::{GetFileRequest, UploadSpec},
};
use tokio::io::AsyncWriteExt as _;

use crate::{
    database::TestDatabase,
    server::{Server, Site, strongroom_command},
};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_waits_for_running_upload() {
    let site = Site::new("drain").await;
    let server = site.start_server().await;
    let client = site.client(&server, "alice").await;
    let (reader, mut writer) = tokio::io::duplex(1 << 20);
    let upload = tokio::spawn({
        let client = client.clone();
        async move { client.upload_reader(spec("slow.txt"), reader, |_| {}).await }
    });
    writer.write_all(&vec![b'a'; 1 << 20]).await.unwrap();
    // Wait until the server has received the first bytes; the client buffers some.
    while !has_received_bytes(&server.edge).await {
        tokio::task::yield_now().await;
    }

    server.terminate().await;
    // Wait until the server reports that it is draining before sending the rest of the file.
    while readiness(&server.edge).await == Some(200) {
        tokio::task::yield_now().await;
    }
    writer.write_all(b"the end").await.unwrap();
    drop(writer);
    let file = upload.await.unwrap().unwrap().file.unwrap();
    assert_eq!(file.size_bytes, (1 << 20) + 7);
    let (status, log) = server.wait_for_exit().await;
    assert!(status.success(), "{status}: {log:#?}");

    let server = site.start_server().await;
    let client = site.client(&server, "alice").await;
    client.get_file(GetFileRequest { file_id: file.id }).await.unwrap();
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edge_port_serves_probes_and_metrics() {
    let site = Site::new("probes").await;
    let server = site.start_server().await;
    let client = site.client(&server, "alice").await;
    client.upload_reader(spec("a.txt"), Cursor::new(b"a".to_vec()), |_| {}).await.unwrap();
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
async fn serve_rejects_role_that_bypasses_row_level_security() {
    let site = Site::new("superuser").await;
    let mut command = site.command(&["serve"]);
    command.env("STRONGROOM_DATABASE__URL", site.database.url("postgres"));
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("refusing to start") && error.contains("is a superuser"), "{error}");
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_reports_unknown_configuration_key() {
    let mut command = strongroom_command();
    command.arg("serve").env("STRONGROOM_SERVER__LISTNE", "127.0.0.1:0");
    let output = command.output().await.unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("STRONGROOM_SERVER__LISTNE"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_server_rejects_plaintext() {
    let site = Site::new("tls").await;
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(site.path("cert.pem"), certificate.cert.pem()).unwrap();
    std::fs::write(site.path("key.pem"), certificate.signing_key.serialize_pem()).unwrap();
    let mut command = site.command(&["serve"]);
    command
        .env("STRONGROOM_SERVER__TLS__CERTIFICATE_FILE", site.path("cert.pem"))
        .env("STRONGROOM_SERVER__TLS__KEY_FILE", site.path("key.pem"));
    let server = Server::start(command).await;

    let token = || site.identity.token("alice", "acme", "member");
    let address = server.grpc.replace("http://127.0.0.1", "https://localhost");
    let options = ClientOptions {
        ca_certificates_pem: Some(certificate.cert.pem().into()),
        ..ClientOptions::new(address, token())
    };
    let client = Client::connect(options).await.unwrap();
    client.upload_reader(spec("a.txt"), Cursor::new(b"a".to_vec()), |_| {}).await.unwrap();
    let plain = async {
        let client = Client::connect(ClientOptions::new(server.grpc.clone(), token())).await?;
        client.upload_reader(spec("b.txt"), Cursor::new(b"b".to_vec()), |_| {}).await
    };
    assert!(plain.await.is_err(), "the server accepted an unencrypted connection");
    server.kill().await;
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_go_up_down_and_up_again() {
    let database = TestDatabase::create("migrate").await;
    let run_migrate = async |subcommand: &str| {
        let output = strongroom_command()
            .args(["migrate", subcommand])
            .env("STRONGROOM_DATABASE__MIGRATE_URL", database.url("postgres"))
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let migration_count = run_migrate("status").await.lines().count();
    assert!(run_migrate("status").await.lines().all(|line| line.starts_with("pending")));
    run_migrate("up").await;
    assert!(run_migrate("status").await.lines().all(|line| line.starts_with("applied")));
    for _ in 0..migration_count {
        assert!(run_migrate("down").await.starts_with("reverted"));
    }
    assert!(run_migrate("down").await.starts_with("no applied"));
    run_migrate("up").await;
    assert!(run_migrate("up").await.starts_with("no pending"));
    database.drop_database().await;
}

fn spec(name: &str) -> UploadSpec {
    UploadSpec { name: name.into(), ..UploadSpec::default() }
}

/// Returns whether the server has counted uploaded bytes.
async fn has_received_bytes(edge: &str) -> bool {
    let Some(metrics) = get(edge, "/metrics").await else { return false };
    let metrics = metrics.text().await.unwrap();
    let mut samples = metrics.lines().filter(|line| line.starts_with("strongroom_uploaded_bytes"));
    samples.any(|line| line.rsplit(' ').next().is_some_and(|value| value != "0"))
}

pub(crate) async fn readiness(edge: &str) -> Option<u16> {
    status(edge, "/readyz").await
}

async fn status(edge: &str, path: &str) -> Option<u16> {
    Some(get(edge, path).await?.status().as_u16())
}

pub(crate) async fn get(edge: &str, path: &str) -> Option<reqwest::Response> {
    // The HTTP client needs a TLS provider even for plain HTTP. Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::get(format!("{edge}{path}")).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn used_address_is_reported_with_its_key() {
    let site = Site::new("used_address").await;
    let used = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = used.local_addr().unwrap().to_string();
    for (variable, key) in
        [("STRONGROOM_SERVER__LISTEN", "`server.listen`"), ("STRONGROOM_EDGE__LISTEN", "`edge.listen`")]
    {
        let output = site.command(&["serve"]).env(variable, &address).output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(key) && error.contains(&address), "{error}");
    }
    site.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_refuses_clear_text_beyond_loopback() {
    let site = Site::new("clear_text").await;
    let output =
        site.command(&["serve"]).env("STRONGROOM_SERVER__LISTEN", "0.0.0.0:0").output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("server.allow_plaintext = true"), "{error}");
    site.close().await;
}
