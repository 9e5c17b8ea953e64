//! Batch deletions with results that differ between keys.

use super::*;
use crate::domain::object_key::ObjectKey;

fn deleted(keys: &[&ObjectKey]) -> String {
    keys.iter().map(|key| format!("\n  <Deleted><Key>{key}</Key></Deleted>\n")).collect()
}

fn result(entries: &str) -> Reply {
    Reply::new(200, &format!("<?xml version=\"1.0\"?><DeleteResult>{entries}</DeleteResult>"))
}

fn failed(key: &ObjectKey, code: &str) -> String {
    format!("<Error><Key>{key}</Key><Code>{code}</Code><Message>as scripted</Message></Error>")
}

async fn delete(s3: &S3, keys: &[ObjectKey]) -> Vec<Option<StorageErrorKind>> {
    let results = s3.delete_batch(keys).await.unwrap();
    results.into_iter().map(|result| result.err().map(|error| error.kind)).collect()
}

#[tokio::test]
async fn one_request_deletes_all_keys() {
    let keys = [key(), key()];
    let (s3, script) = scripted(vec![result(&deleted(&[&keys[1], &keys[0]]))]).await;
    assert_eq!(delete(&s3, &keys).await, [None, None]);
    assert_eq!(script.lines(), ["POST /bucket/?delete="]);
    let request = &script.requests()[0];
    for key in &keys {
        assert!(request.contains(&format!("<Object><Key>{key}</Key></Object>")), "{request}");
    }
    assert!(request.contains("x-amz-checksum-sha256: "), "{request}");
}

#[tokio::test]
async fn each_key_has_its_own_error() {
    let keys = [key(), key(), key(), key(), key()];
    let entries = [
        failed(&keys[0], "AccessDenied"),
        deleted(&[&keys[1]]),
        failed(&keys[2], "InternalError"),
        failed(&keys[3], "NoSuchKey"),
    ];
    let (s3, _script) = scripted(vec![result(&entries.concat())]).await;
    let (unavailable, transient) = (Some(StorageErrorKind::Unavailable), Some(StorageErrorKind::Transient));
    assert_eq!(delete(&s3, &keys).await, [unavailable, None, transient, None, transient]);
}

#[tokio::test]
async fn rejected_request_fails_all_keys() {
    for (reply, kind) in [
        (error(503, "SlowDown"), StorageErrorKind::Transient),
        (error(403, "AccessDenied"), StorageErrorKind::Unavailable),
        (Reply::new(200, "what?"), StorageErrorKind::Transient),
    ] {
        let (s3, _script) = scripted(vec![reply]).await;
        assert_eq!(delete(&s3, &[key(), key()]).await, [Some(kind), Some(kind)]);
    }
}

#[tokio::test]
async fn store_without_batches_gets_one_request_per_key() {
    let gone = || Reply::new(200, "");
    let replies = vec![error(501, "NotImplemented"), gone(), error(403, "AccessDenied"), gone()];
    let (s3, script) = scripted(replies).await;
    let results = delete(&s3, &[key(), key()]).await;
    assert_eq!(results.iter().filter(|result| result.is_none()).count(), 1, "{results:?}");
    assert_eq!(delete(&s3, &[key()]).await, [None], "the store is not asked again");
    let methods: Vec<_> =
        script.lines().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(methods, ["POST", "DELETE", "DELETE", "DELETE"]);
}

#[tokio::test]
async fn batch_of_several_tenant_buckets_is_split() {
    let keys = [key(), key()];
    let replies = vec![error(404, "NoSuchBucket"), error(404, "NoSuchBucket")];
    let (s3, script) = scripted_with(replies, |options| options.bucket_per_tenant = true).await;
    assert_eq!(delete(&s3, &keys).await, [None, None], "a bucket that was not created has no objects");
    assert_eq!(script.lines().len(), 2);
}

#[tokio::test]
async fn batch_has_at_most_a_thousand_keys() {
    let (s3, script) = scripted(Vec::new()).await;
    let keys: Vec<ObjectKey> = (0..1_001).map(|_| key()).collect();
    assert_eq!(s3.delete_batch(&keys).await.unwrap_err().kind, StorageErrorKind::InvalidInput);
    assert!(script.lines().is_empty());
}
