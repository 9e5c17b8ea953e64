//! The test servers and the options to connect to them.

use std::{env, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::NaiveDate;

use strongroom::{
    domain::{
        clock::{IdSource, SystemClock, SystemIds},
        ids::{BlobId, TenantId},
        object_key::ObjectKey,
    },
    storage::{
        self, AdapterOptions, Encryption, ObjectStorage, PayloadSigning, PresignedUrl, S3Credentials,
        S3Options, StorageOptions,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Reads an environment variable that one of the scripts sets.
pub(crate) fn setting(name: &str, script: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run through scripts/with-garage scripts/with-moto ({script} sets it)")
    })
}

fn options(endpoint: String, region: &str, bucket: &str, access_key: String, secret: String) -> S3Options {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    S3Options {
        endpoint: Some(endpoint),
        region: region.to_owned(),
        bucket: bucket.to_owned(),
        bucket_per_tenant: false,
        abandoned_multipart_days: None,
        virtual_hosted_style: false,
        credentials: S3Credentials::Static {
            access_key_id: access_key,
            secret_access_key: secret.into(),
            session_token: None,
        },
        payload_signing: PayloadSigning::Auto,
        encryption: Encryption::None,
        storage_class: None,
        archive_storage_class: None,
        tags: Vec::new(),
        conditional_writes: false,
        allow_http: true,
        request_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(5),
        ca_file: None,
    }
}

/// Returns the options for the Garage that `scripts/with-garage` started.
pub(crate) fn garage_options() -> S3Options {
    let of = |name: &str| setting(name, "scripts/with-garage");
    options(
        of("STRONGROOM_TEST_S3_ENDPOINT"),
        &of("STRONGROOM_TEST_S3_REGION"),
        &of("STRONGROOM_TEST_S3_BUCKET"),
        of("STRONGROOM_TEST_S3_ACCESS_KEY"),
        of("STRONGROOM_TEST_S3_SECRET_KEY"),
    )
}

/// Returns the options for the moto that `scripts/with-moto` started, with a bucket that only this test uses.
pub(crate) fn moto_options() -> S3Options {
    let bucket = format!("test-{}", SystemIds.uuid().simple());
    let endpoint = setting("STRONGROOM_TEST_MOTO_ENDPOINT", "scripts/with-moto");
    let moto = options(endpoint, "eu-central-1", &bucket, "key".to_owned(), "secret".to_owned());
    S3Options { conditional_writes: true, ..moto }
}

/// Returns options with the given number of attempts, and without pauses between them.
pub(crate) fn storage_options(s3: S3Options, retry_attempts_max: u32) -> StorageOptions {
    StorageOptions {
        provider: "s3".to_owned(),
        adapter: AdapterOptions::S3(Box::new(s3)),
        retry_attempts_max,
        retry_backoff_base: Duration::ZERO,
        retry_backoff_max: Duration::ZERO,
    }
}

/// Opens the adapter without retries.
pub(crate) fn open_without_retries(s3: S3Options) -> Arc<dyn ObjectStorage> {
    storage::open(&storage_options(s3, 1), Arc::new(SystemClock), Arc::new(SystemIds)).unwrap()
}

pub(crate) fn new_tenant() -> TenantId {
    TenantId::from_uuid(SystemIds.uuid())
}

pub(crate) fn new_key(tenant: TenantId) -> ObjectKey {
    let day = NaiveDate::from_ymd_opt(2026, 1, 2).unwrap();
    ObjectKey::for_blob("storage-test", tenant, "avatar", day, BlobId::from_uuid(SystemIds.uuid())).unwrap()
}

pub(crate) fn body(size_bytes: usize) -> Bytes {
    (0..size_bytes).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>().into()
}

/// Sends the GET request of a presigned URL. Resolves the host to this machine, because it is not in DNS.
pub(crate) async fn fetch(url: &PresignedUrl) -> reqwest::Response {
    let host = url.url.host_str().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], url.url.port().unwrap()));
    let client = reqwest::Client::builder().no_proxy().resolve(host, address).build().unwrap();
    client.get(url.url.clone()).send().await.unwrap()
}

/// Starts a proxy that forwards everything but changes the text `CORRUPT-ME`. It handles one request per
/// connection.
pub(crate) async fn start_corrupting_proxy(endpoint: &str) -> String {
    let target = endpoint.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(forward_corrupted(client, server));
        }
    });
    format!("http://{address}")
}

async fn forward_corrupted(mut client: TcpStream, mut server: TcpStream) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    let requests = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let marker = b"CORRUPT-ME";
            if let Some(at) = buffer[..read].windows(marker.len()).position(|window| window == marker) {
                buffer[at] ^= 1;
            }
            to_server.write_all(&buffer[..read]).await.unwrap();
        }
    };
    let responses = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = requests => {}
        _ = responses => {}
    }
}
