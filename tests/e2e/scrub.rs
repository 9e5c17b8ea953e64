//! The `strongroom scrub` command, and the damage that it and `strongroom fsck` find.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
};

use serde_json::Value;
use strongroom::proto::v1::UploadSpec;

use crate::server::Site;

const CONTENT: &[u8] = b"content of the only file";

/// Returns the files in a directory and in those below it.
fn list_files(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { list_files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_of_scrub_report_damage() {
    let site = Site::new("scrub").await;
    let server = site.start_server().await;
    let client = site.client(&server, "alice").await;
    let spec = UploadSpec { name: "a.txt".to_owned(), ..UploadSpec::default() };
    client.upload_reader(spec, Cursor::new(CONTENT.to_vec()), |_| {}).await.unwrap();
    let count = |reports: &Value, name: &str| reports[0][name].as_u64().unwrap();
    let (code, reports) = site.run_json(&["scrub", "--now", "--dry-run", "--json"]).await;
    assert_eq!((code, count(&reports, "left_objects")), (Some(0), 1), "{reports}");
    let (code, reports) = site.run_json(&["scrub", "--now", "--json"]).await;
    assert_eq!((code, count(&reports, "verified_objects")), (Some(0), 1), "{reports}");

    let objects = list_files(&site.path("objects"));
    let is_content = |path: &&PathBuf| fs::read(path).unwrap() == CONTENT;
    fs::write(objects.iter().find(is_content).unwrap(), b"CONTENT of the only file").unwrap();
    let (code, reports) = site.run_json(&["scrub", "--now", "--json"]).await;
    assert_eq!((code, count(&reports, "damaged_objects")), (Some(3), 1), "{reports}");
    // What is marked is no violation, and is not read again.
    let (is_clean, report) = site.run_fsck(&["--deep"]).await;
    assert!(is_clean, "{report}");
    let (code, reports) = site.run_json(&["scrub", "--now", "--json"]).await;
    assert_eq!((code, count(&reports, "verified_objects")), (Some(0), 0), "{reports}");
    server.kill().await;
    site.close().await;
}
