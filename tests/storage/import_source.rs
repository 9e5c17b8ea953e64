//! Import sources on a real bucket: keys with any characters, listings of several pages, and multipart
//! objects.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    ObjectStoreExt, PutPayload, WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use secrecy::ExposeSecret;
use strongroom::{
    domain::clock::{IdSource, SystemIds},
    storage::{ImportSource, S3Credentials, S3Options, SourceBucket, SourceEntry, StorageErrorKind},
};

use crate::settings::{body, garage_options, storage_options};

/// Returns a client that stores objects as another application would.
fn other_client(options: &S3Options) -> AmazonS3 {
    let S3Credentials::Static { access_key_id, secret_access_key, .. } = &options.credentials else {
        panic!("expected static credentials")
    };
    AmazonS3Builder::new()
        .with_endpoint(options.endpoint.as_deref().unwrap())
        .with_allow_http(true)
        .with_region(&options.region)
        .with_bucket_name(&options.bucket)
        .with_access_key_id(access_key_id)
        .with_secret_access_key(secret_access_key.expose_secret())
        .build()
        .unwrap()
}

/// Returns a key prefix that only this test uses.
fn unique_prefix() -> String {
    format!("import-{}/", SystemIds.uuid().simple())
}

async fn put(store: &AmazonS3, key: &str, body: Vec<u8>) {
    let path = Path::parse(key).unwrap();
    assert_eq!(path.as_ref(), key);
    store.put(&path, PutPayload::from(body)).await.unwrap();
}

/// Opens an import source with a prefix and a page length.
fn source(options: &S3Options, prefix: &str, page_length: usize) -> ImportSource {
    let options = storage_options(options.clone(), 3);
    let bucket = SourceBucket::with_page_length(&options, prefix, Arc::new(SystemIds), page_length);
    ImportSource::Bucket(bucket.unwrap())
}

async fn list_all(store: &ImportSource, prefix: &str) -> Vec<String> {
    let mut listing = store.list_keys(prefix);
    let mut keys = Vec::new();
    while let Some(entry) = listing.next().await.unwrap() {
        let SourceEntry::Key(key) = entry else { panic!("{entry:?}") };
        keys.push(key);
    }
    keys
}

async fn read(store: &ImportSource, key: &str) -> Vec<u8> {
    let object = store.get(key).await.unwrap();
    let size_bytes = object.size_bytes;
    let pieces: Vec<_> = object.body.try_collect().await.unwrap();
    let bytes = pieces.concat();
    assert_eq!(bytes.len() as u64, size_bytes, "{key}");
    bytes
}

#[tokio::test]
async fn lists_and_reads_keys_with_any_characters() {
    let (options, prefix) = (garage_options(), unique_prefix());
    let client = other_client(&options);
    let mut keys: Vec<String> = [
        "plain.txt",
        "with space/and+plus & more.txt",
        " leading and trailing ",
        "Übung/Käse (1).pdf",
        "履歴書/🦀.png",
        "percent=100,'quoted';$@!:.txt",
        "a/b/c",
        "a-b",
    ]
    .map(|name| format!("{prefix}{name}"))
    .into();
    for key in &keys {
        put(&client, key, key.as_bytes().to_vec()).await;
    }
    keys.sort();
    for page_length in [1, 3, 1_000] {
        let store = source(&options, &prefix, page_length);
        assert_eq!(list_all(&store, "").await, keys, "in pages of {page_length}");
        let matching: Vec<_> =
            keys.iter().filter(|key| key.starts_with(&format!("{prefix}a"))).cloned().collect();
        assert_eq!(list_all(&store, &format!("{prefix}a")).await, matching);
        assert!(list_all(&store, "import-none/").await.is_empty());
    }
    let store = source(&options, &prefix, 1_000);
    for key in &keys {
        assert_eq!(read(&store, key).await, key.as_bytes(), "{key}");
    }
    for absent in [format!("{prefix}absent ü"), "elsewhere".to_owned()] {
        assert_eq!(store.get(&absent).await.err().unwrap().kind, StorageErrorKind::NotFound, "{absent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_all_objects_of_several_pages() {
    let (options, prefix) = (garage_options(), unique_prefix());
    let client = other_client(&options);
    let keys: Vec<String> = (0..1_050).map(|number| format!("{prefix}{number:04}")).collect();
    stream::iter(&keys)
        .map(|key| put(&client, key, b"x".to_vec()))
        .buffer_unordered(16)
        .collect::<Vec<()>>()
        .await;
    let bucket = SourceBucket::open(&storage_options(options, 3), &prefix, Arc::new(SystemIds)).unwrap();
    assert_eq!(list_all(&ImportSource::Bucket(bucket), "").await, keys);
}

#[tokio::test]
async fn reads_multipart_and_empty_objects() {
    let (options, prefix) = (garage_options(), unique_prefix());
    let client = other_client(&options);
    let large = body(13 * 1024 * 1024 + 7);
    let key = format!("{prefix}large");
    let upload = client.put_multipart(&Path::parse(&key).unwrap()).await.unwrap();
    let mut upload = WriteMultipart::new_with_chunk_size(upload, 5 * 1024 * 1024);
    upload.write(&large);
    upload.finish().await.unwrap();
    put(&client, &format!("{prefix}empty"), Vec::new()).await;
    let store = source(&options, &prefix, 1_000);
    assert!(read(&store, &key).await == large);
    assert_eq!(read(&store, &format!("{prefix}empty")).await, b"");
}

#[tokio::test]
async fn rejected_listing_is_an_error() {
    let options = S3Options { bucket: format!("missing-{}", SystemIds.uuid().simple()), ..garage_options() };
    let store = source(&options, "", 1_000);
    assert_eq!(store.list_keys("").next().await.unwrap_err().kind, StorageErrorKind::Unavailable);
    assert_eq!(store.get("a").await.err().unwrap().kind, StorageErrorKind::Unavailable);
}
