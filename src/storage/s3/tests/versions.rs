//! Deletions in buckets that keep versions.

use super::*;

/// The reply to a deletion that only hid the object.
fn hidden() -> Reply {
    Reply::new(204, "").header("x-amz-delete-marker", "true").header("x-amz-version-id", "m2")
}

/// A page of versions. Versions and markers alternate, and the last one belongs to another key.
fn versions(next: Option<&str>, ids: &[(&str, &str)]) -> Reply {
    let key = key_text();
    let mut page = String::from("<ListVersionsResult><Name>bucket</Name><KeyMarker></KeyMarker>");
    for (element, id) in ids {
        page.push_str(&format!(
            "<{element}><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>false</IsLatest></{element}>"
        ));
    }
    match next {
        Some(id) => page.push_str(&format!(
            "<IsTruncated>true</IsTruncated><NextKeyMarker>{key}</NextKeyMarker>\
             <NextVersionIdMarker>{id}</NextVersionIdMarker>"
        )),
        None => page.push_str(
            "<Version><Key>another</Key><VersionId>x</VersionId></Version><IsTruncated>false</IsTruncated>",
        ),
    }
    Reply::new(200, &format!("{page}</ListVersionsResult>"))
}

/// The key of these tests, which replies have to contain.
fn key_text() -> String {
    "live/0198c0de-0000-7000-8000-00000000000a/avatar/2026/01/02/0198c0de-0000-7000-8000-00000000000b"
        .to_owned()
}

fn fixed_key() -> ObjectKey {
    ObjectKey::parse(&key_text()).unwrap()
}

#[tokio::test]
async fn deletion_deletes_all_versions_and_markers() {
    let deleted = || Reply::new(204, "");
    let replies = vec![
        hidden(),
        versions(Some("v1"), &[("DeleteMarker", "m2"), ("Version", "v2"), ("DeleteMarker", "m1")]),
        versions(None, &[("Version", "v1")]),
        deleted(),
        error(404, "NoSuchVersion"),
        deleted(),
        deleted(),
    ];
    let (s3, script) = scripted(replies).await;
    s3.delete(&fixed_key()).await.unwrap();
    let lines = script.lines();
    assert!(lines[2].contains("version-id-marker=v1"), "{lines:?}");
    let deletions: Vec<_> = lines[3..].iter().filter_map(|line| line.split_once("versionId=")).collect();
    let ids: Vec<&str> = deletions.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids, ["v2", "v1", "m2", "m1"], "the markers last");
    assert!(lines.iter().all(|line| !line.contains("versionId=x")), "{lines:?}");
}

#[tokio::test]
async fn deletion_without_versions_takes_one_request() {
    let (s3, script) = scripted(vec![Reply::new(204, "")]).await;
    s3.delete(&fixed_key()).await.unwrap();
    assert_eq!(script.lines().len(), 1);
}

#[tokio::test]
async fn protected_version_stays_hidden() {
    let locked = vec![hidden(), versions(None, &[("Version", "v1")]), error(403, "AccessDenied")];
    let unlisted = vec![hidden(), error(403, "AccessDenied")];
    for replies in [locked, unlisted] {
        let (s3, _script) = scripted(replies).await;
        s3.delete(&fixed_key()).await.unwrap();
    }
    let (s3, _script) = scripted(vec![hidden(), error(503, "SlowDown")]).await;
    assert_eq!(s3.delete(&fixed_key()).await.unwrap_err().kind, StorageErrorKind::Transient);
}

#[tokio::test]
async fn reports_buckets_that_keep_bytes() {
    let versioning = |status: &str| {
        Reply::new(200, &format!("<VersioningConfiguration>{status}</VersioningConfiguration>"))
    };
    let lock = Reply::new(
        200,
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>",
    );
    let no_lock = || error(404, "ObjectLockConfigurationNotFoundError");
    let enabled = || versioning("<Status>Enabled</Status>");
    for (replies, expected) in [
        (vec![versioning(""), no_lock()], None),
        (vec![error(501, "NotImplemented"), error(501, "NotImplemented")], None),
        (vec![enabled(), no_lock()], Some((true, false))),
        (vec![versioning("<Status>Suspended</Status>"), no_lock()], Some((true, false))),
        (vec![enabled(), lock], Some((true, true))),
    ] {
        let (s3, _script) = scripted(replies).await;
        let found = s3.list_protections().await.unwrap();
        let found = found.first().map(|protection| (protection.has_versions, protection.has_object_lock));
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn batch_deletes_versions_of_hidden_objects() {
    let key = fixed_key();
    let entry = format!("<Deleted><Key>{key}</Key><DeleteMarker>true</DeleteMarker></Deleted>");
    let replies = vec![
        Reply::new(200, &format!("<DeleteResult>{entry}</DeleteResult>")),
        versions(None, &[("Version", "v1")]),
        Reply::new(204, ""),
    ];
    let (s3, script) = scripted(replies).await;
    let results = s3.delete_batch(std::slice::from_ref(&key)).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let lines = script.lines();
    assert!(lines.len() == 3 && lines[2].ends_with("versionId=v1"), "{lines:?}");
}
