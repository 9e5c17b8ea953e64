//! Objects of others in a real bucket, as imports read them: names of any kind, more than a page, more than a part.

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
    storage::{ForeignBucket, ForeignStore, S3Credentials, S3Options, StorageErrorKind},
};

use crate::settings::{body, garage, stack};

/// Whoever filled the bucket before us.
fn others(options: &S3Options) -> AmazonS3 {
    let S3Credentials::Static { access_key_id, secret_access_key, .. } = &options.credentials else {
        panic!("a static key")
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

/// A place of this test's own in the bucket.
fn place() -> String {
    format!("foreign-{}/", SystemIds.uuid().simple())
}

async fn put(store: &AmazonS3, key: &str, body: Vec<u8>) {
    let path = Path::parse(key).unwrap();
    assert_eq!(path.as_ref(), key);
    store.put(&path, PutPayload::from(body)).await.unwrap();
}

/// A bucket to import from, below a prefix, in pages of so many.
fn source(options: &S3Options, prefix: &str, page_length: usize) -> ForeignStore {
    let options = stack(options.clone(), 3);
    let bucket = ForeignBucket::with_pages(&options, prefix, Arc::new(SystemIds), page_length);
    ForeignStore::Bucket(bucket.unwrap())
}

async fn listed(store: &ForeignStore, prefix: &str) -> Vec<String> {
    let mut walk = store.walk(prefix);
    let mut keys = Vec::new();
    while let Some(key) = walk.next().await.unwrap() {
        keys.push(key);
    }
    keys
}

async fn read(store: &ForeignStore, key: &str) -> Vec<u8> {
    let object = store.get(key).await.unwrap();
    let size_bytes = object.size_bytes;
    let pieces: Vec<_> = object.body.try_collect().await.unwrap();
    let bytes = pieces.concat();
    assert_eq!(bytes.len() as u64, size_bytes, "{key}");
    bytes
}

#[tokio::test]
async fn names_of_any_kind_are_listed_in_their_order_and_read() {
    let (options, place) = (garage(), place());
    let others = others(&options);
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
    .map(|name| format!("{place}{name}"))
    .into();
    for key in &keys {
        put(&others, key, key.as_bytes().to_vec()).await;
    }
    keys.sort();
    for page_length in [1, 3, 1_000] {
        let store = source(&options, &place, page_length);
        assert_eq!(listed(&store, "").await, keys, "in pages of {page_length}");
        let narrow: Vec<_> =
            keys.iter().filter(|key| key.starts_with(&format!("{place}a"))).cloned().collect();
        assert_eq!(listed(&store, &format!("{place}a")).await, narrow);
        assert!(listed(&store, "foreign-none/").await.is_empty());
    }
    let store = source(&options, &place, 1_000);
    for key in &keys {
        assert_eq!(read(&store, key).await, key.as_bytes(), "{key}");
    }
    for absent in [format!("{place}absent ü"), "elsewhere".to_owned()] {
        assert_eq!(store.get(&absent).await.err().unwrap().kind, StorageErrorKind::NotFound, "{absent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_objects_than_a_page_holds_are_all_listed_once() {
    let (options, place) = (garage(), place());
    let others = others(&options);
    let keys: Vec<String> = (0..1_050).map(|number| format!("{place}{number:04}")).collect();
    stream::iter(&keys)
        .map(|key| put(&others, key, b"x".to_vec()))
        .buffer_unordered(16)
        .collect::<Vec<()>>()
        .await;
    let bucket = ForeignBucket::open(&stack(options, 3), &place, Arc::new(SystemIds)).unwrap();
    assert_eq!(listed(&ForeignStore::Bucket(bucket), "").await, keys);
}

#[tokio::test]
async fn an_object_of_several_parts_and_an_empty_one_are_read_whole() {
    let (options, place) = (garage(), place());
    let others = others(&options);
    let large = body(13 * 1024 * 1024 + 7);
    let key = format!("{place}large");
    let upload = others.put_multipart(&Path::parse(&key).unwrap()).await.unwrap();
    let mut upload = WriteMultipart::new_with_chunk_size(upload, 5 * 1024 * 1024);
    upload.write(&large);
    upload.finish().await.unwrap();
    put(&others, &format!("{place}empty"), Vec::new()).await;
    let store = source(&options, &place, 1_000);
    assert!(read(&store, &key).await == large);
    assert_eq!(read(&store, &format!("{place}empty")).await, b"");
}

#[tokio::test]
async fn a_listing_that_the_store_refuses_is_an_error_and_no_end() {
    let options = S3Options { bucket: format!("missing-{}", SystemIds.uuid().simple()), ..garage() };
    let store = source(&options, "", 1_000);
    assert_eq!(store.walk("").next().await.unwrap_err().kind, StorageErrorKind::Unavailable);
    assert_eq!(store.get("a").await.err().unwrap().kind, StorageErrorKind::Unavailable);
}
