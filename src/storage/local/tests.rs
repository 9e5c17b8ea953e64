//! Tests of file system behavior: modes, paths, restarts and crashes between two steps.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use bytes::Bytes;
use futures::TryStreamExt;

use super::*;
use crate::{
    domain::clock::SystemIds,
    storage::{ObjectStorageExt, StorageErrorKind, tests::key},
};

const PART_SIZE_BYTES: u64 = 8;

fn open(root: &Path) -> Local {
    Local::open(root, Arc::new(SystemIds)).unwrap()
}

fn body(text: &'static str) -> Payload {
    Payload::from(Bytes::from_static(text.as_bytes()))
}

async fn start(store: &Local, key: &ObjectKey) -> MultipartId {
    store.start_multipart(key, PART_SIZE_BYTES, &PutOptions::default()).await.unwrap()
}

async fn read(store: &Local, key: &ObjectKey) -> Vec<u8> {
    let size_bytes = store.head(key).await.unwrap().size_bytes;
    store.get_bytes(key, 0..size_bytes).await.unwrap().to_vec()
}

/// Returns a path and everything below it.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            found.extend(tree(&entry.unwrap().path()));
        }
    }
    found
}

fn unfinished_files(root: &Path) -> usize {
    tree(&root.join("multipart")).len() - 1
}

#[tokio::test]
async fn files_are_owner_only_and_inside_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("store");
    let store = open(&root);
    let (whole, parts, left) = (key(), key(), key());
    store.put(&whole, body("whole"), &PutOptions::default()).await.unwrap();
    let id = start(&store, &parts).await;
    let receipt = store.put_part(&parts, &id, 1, body("part")).await.unwrap();
    store.complete_multipart(&parts, &id, &[receipt], None).await.unwrap();
    start(&store, &left).await;
    for path in tree(&root) {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(root.join("objects").join(whole.as_str()).is_file());
    assert_eq!(unfinished_files(&root), 1, "only the open upload");
}

#[tokio::test]
async fn open_upload_survives_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let (kept, spoiled) = (key(), key());
    let store = open(root.path());
    let (id, other) = (start(&store, &kept).await, start(&store, &spoiled).await);
    let one = store.put_part(&kept, &id, 1, body("12345678")).await.unwrap();
    let lost = store.put_part(&spoiled, &other, 1, body("12345678")).await.unwrap();
    drop(store);

    let path = tree(&root.path().join("multipart"))
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(other.as_str()));
    fs::write(path.unwrap(), "1234567x").unwrap();

    let store = open(root.path());
    let open_uploads = store.list_multiparts("live/", None, 10).await.unwrap().multiparts;
    assert_eq!(open_uploads.len(), 2);
    let two = store.put_part(&kept, &id, 2, body("9")).await.unwrap();
    store.complete_multipart(&kept, &id, &[one, two], None).await.unwrap();
    assert_eq!(read(&store, &kept).await, b"123456789");

    let error = store.complete_multipart(&spoiled, &other, &[lost], None).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::PartsDiffer, "the bytes do not match the receipt");
    store.abort_multipart(&spoiled, &other).await.unwrap();
    assert_eq!(unfinished_files(root.path()), 0);
}

#[tokio::test]
async fn larger_parts_are_read_again_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let (store, whole, fragments) = (open(root.path()), key(), key());
    let growing = PutOptions { equal_parts: Some(1), ..PutOptions::default() };
    let id = store.start_multipart(&whole, 4, &growing).await.unwrap();
    let copied = store.put(&fragments, body("45678901"), &PutOptions::default()).await.unwrap();
    let third = store.put_part(&whole, &id, 3, body("tail")).await.unwrap();
    let second = store.copy_part(&whole, &id, 2, &copied).await.unwrap();
    let first = store.put_part(&whole, &id, 1, body("0123")).await.unwrap();
    let store = open(root.path());
    let info = store.complete_multipart(&whole, &id, &[first, second, third], None).await.unwrap();
    assert_eq!((info.size_bytes, read(&store, &whole).await), (16, b"012345678901tail".to_vec()));
}

#[tokio::test]
async fn completion_recovers_from_a_crash_after_the_link() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let key = key();
    let id = start(&store, &key).await;
    let receipt = store.put_part(&key, &id, 1, body("whole")).await.unwrap();
    let upload = UnfinishedId::parse(&id).unwrap();
    store.disk.link(&store.disk.unfinished_path(&key, &upload), &key).unwrap();

    let late = store.put_part(&key, &id, 1, body("later")).await.unwrap_err();
    assert_eq!(late.kind, StorageErrorKind::NotFound, "a complete object must not be written to");
    let store = open(root.path());
    store.complete_multipart(&key, &id, &[receipt], None).await.unwrap();
    assert_eq!(read(&store, &key).await, b"whole");
    assert_eq!(unfinished_files(root.path()), 0);
}

#[tokio::test]
async fn interrupted_put_is_listed_and_can_be_aborted() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let key = key();
    let id = UnfinishedId::put(SystemIds.uuid());
    store.disk.start_multipart(&key, &id, &[]).unwrap();
    let page = store.list_multiparts("", None, 10).await.unwrap();
    assert_eq!(page.multiparts[0].key, key);
    let error = store.put_part(&key, &page.multiparts[0].id, 1, body("x")).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::InvalidInput);
    store.abort_multipart(&key, &page.multiparts[0].id).await.unwrap();
    assert_eq!(unfinished_files(root.path()), 0);
}

#[test]
fn abandoned_put_leaves_no_files() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let key = key();
    let id = UnfinishedId::put(SystemIds.uuid());
    store.disk.put(&key, &id, &body("abandoned"), &[], &AtomicBool::new(true)).unwrap_err();
    assert_eq!(store.disk.head(&key, "head object").unwrap_err().kind, StorageErrorKind::NotFound);
    assert_eq!(unfinished_files(root.path()), 0);
}

#[tokio::test]
async fn rejects_ids_that_the_store_did_not_generate() {
    let root = tempfile::tempdir().unwrap();
    let store = open(&root.path().join("store"));
    let victim = root.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    for id in [
        "../../victim",
        "",
        "x",
        "0198c0de-0000-7000-8000-00000000000b",
        "0198C0DE-0000-7000-8000-00000000000B.8",
    ] {
        let error = store.abort_multipart(&key(), &MultipartId::new(id)).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::InvalidInput, "{id:?}");
    }
    assert!(victim.exists());
}

#[tokio::test]
async fn reports_damage_if_a_file_became_shorter() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let key = key();
    let large = Payload::from(Bytes::from(vec![1; 3 * 1024 * 1024]));
    store.put(&key, large, &PutOptions::default()).await.unwrap();
    let mut stream = store.get(&key, 0..3 * 1024 * 1024).await.unwrap();
    stream.try_next().await.unwrap();
    fs::OpenOptions::new().write(true).open(store.disk.object_path(&key)).unwrap().set_len(600_000).unwrap();
    let error = stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Damaged);
}

#[tokio::test]
async fn listings_skip_unknown_files() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let key = key();
    store.put(&key, body("ours"), &PutOptions::default()).await.unwrap();
    fs::write(root.path().join("objects/README"), "not ours").unwrap();
    fs::write(root.path().join("multipart/README"), "not ours").unwrap();
    let page = store.list("", None, 10).await.unwrap();
    assert_eq!(page.objects.iter().map(|object| &object.key).collect::<Vec<_>>(), [&key]);
    assert_eq!(store.list_multiparts("", None, 10).await.unwrap().multiparts, []);
}

#[tokio::test]
async fn check_fails_if_the_directory_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    store.check().await.unwrap();
    assert_eq!(unfinished_files(root.path()), 0);
    fs::remove_dir(root.path().join("multipart")).unwrap();
    store.check().await.unwrap_err();
}

#[tokio::test]
async fn metadata_survives_in_the_attributes_of_files() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let entry = |value: &str| vec![("label".to_owned(), value.to_owned())];
    let options = PutOptions { metadata: entry("whole"), ..PutOptions::default() };
    let (whole, parts) = (key(), key());
    store.put(&whole, body("whole"), &options).await.unwrap();
    let options = PutOptions { metadata: entry("parts"), ..PutOptions::default() };
    let id = store.start_multipart(&parts, PART_SIZE_BYTES, &options).await.unwrap();
    let receipt = store.put_part(&parts, &id, 1, body("parts")).await.unwrap();
    store.complete_multipart(&parts, &id, &[receipt], None).await.unwrap();
    let copy = key();
    let options = PutOptions { metadata: entry("copy"), ..PutOptions::default() };
    store.copy(&whole, &copy, &options).await.unwrap();
    let store = open(directory.path());
    let mut read = Vec::new();
    for key in [whole, parts, copy] {
        read.extend(store.read_metadata(&key).await.unwrap());
    }
    // A file system without extended attributes drops metadata.
    let probe = fs::File::create(directory.path().join("probe")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::fsetxattr(&probe, "user.probe", b"x", flags) {
        Ok(()) => assert_eq!(read, [entry("whole"), entry("parts"), entry("copy")].concat()),
        Err(_) => assert_eq!(read, []),
    }
}

#[tokio::test]
async fn metadata_that_does_not_fit_is_dropped_from_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let metadata = vec![("a".to_owned(), "first".to_owned()), ("b".to_owned(), "x".repeat(5_000))];
    let options = PutOptions { metadata: metadata.clone(), ..PutOptions::default() };
    let key = key();
    store.put(&key, body("x"), &options).await.unwrap();
    let read = store.read_metadata(&key).await.unwrap();
    assert!(read.is_empty() || read == metadata[..1], "{read:?}");
}
