//! Tests with scripted responses that no real store returns on demand: lost, late, truncated or contradictory
//! ones.

mod batch_deletion;
mod complete;
mod requests;
mod script;
mod versions;

use std::time::Duration;

use self::script::{Reply, Script};
use super::*;
use crate::storage::{StorageErrorKind, tests::key};

pub(super) fn options(endpoint: &str) -> S3Options {
    S3Options {
        endpoint: Some(endpoint.to_owned()),
        region: "us-east-1".to_owned(),
        bucket: "bucket".to_owned(),
        bucket_per_tenant: false,
        abandoned_multipart_days: None,
        virtual_hosted_style: false,
        credentials: S3Credentials::Static {
            access_key_id: "AKID".to_owned(),
            secret_access_key: "secret".to_owned().into(),
            session_token: None,
        },
        payload_signing: PayloadSigning::Auto,
        encryption: Encryption::None,
        storage_class: None,
        archive_storage_class: None,
        tags: Vec::new(),
        conditional_writes: false,
        allow_http: true,
        request_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(5),
        ca_file: None,
    }
}

/// Creates the adapter with a store that returns these replies in order.
async fn scripted(replies: Vec<Reply>) -> (S3, Script) {
    scripted_with(replies, |_| {}).await
}

async fn scripted_with(replies: Vec<Reply>, change: impl FnOnce(&mut S3Options)) -> (S3, Script) {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let script = Script::start(replies).await;
    let mut options = options(&script.endpoint);
    change(&mut options);
    (S3::open(&options).unwrap(), script)
}

fn head(size_bytes: u64) -> Reply {
    Reply::new(200, "")
        .header("content-length", size_bytes)
        .header("last-modified", "Fri, 02 Jan 2026 03:04:05 GMT")
}

fn error(status: u16, code: &str) -> Reply {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as scripted</Message></Error>");
    Reply::new(status, &body)
}

#[tokio::test]
async fn classifies_every_rejection() {
    use StorageErrorKind::{
        AlreadyExists, InvalidInput, NoSpace, NotFound, Other, PartsDiffer, Transient, Unavailable,
    };
    for (status, code, kind) in [
        (404, "NoSuchKey", NotFound),
        (404, "NoSuchBucket", Unavailable),
        (403, "AccessDenied", Unavailable),
        (403, "SignatureDoesNotMatch", Unavailable),
        (403, "", Unavailable),
        (301, "PermanentRedirect", Unavailable),
        (412, "PreconditionFailed", AlreadyExists),
        (409, "", AlreadyExists),
        (409, "ConditionalRequestConflict", Transient),
        (400, "BadDigest", Transient),
        (400, "XAmzContentSHA256Mismatch", Transient),
        (400, "EntityTooLarge", InvalidInput),
        (400, "InvalidPart", PartsDiffer),
        (400, "InvalidPartOrder", PartsDiffer),
        (400, "EntityTooSmall", PartsDiffer),
        (400, "InvalidRequest", Other),
        (400, "Whatever", Other),
        (400, "", Other),
        (416, "", InvalidInput),
        (429, "", Transient),
        (500, "InternalError", Transient),
        (502, "", Transient),
        (503, "SlowDown", Transient),
        (507, "", NoSpace),
        (409, "QuotaExceeded", NoSpace),
    ] {
        let (s3, _script) = scripted(vec![error(status, code)]).await;
        let body = Payload::from(bytes::Bytes::from_static(b"x"));
        let failure = s3.put(&key(), body, &PutOptions::default()).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{status} {code}");
    }
}

#[tokio::test]
async fn error_contains_neither_url_nor_credentials() {
    let key = key();
    let reply = "<Error><Code>SignatureDoesNotMatch</Code><Message>AKID wrote secret</Message></Error>";
    let (s3, script) = scripted(vec![Reply::new(403, reply)]).await;
    let error = s3.get(&key, 0..1).await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), format!("get object {key}: store is unavailable"));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("403 SignatureDoesNotMatch: "), "{source}");
    assert!(!source.contains("AKID") && !source.contains("secret") && !source.contains(&script.endpoint));
}

#[tokio::test]
async fn interrupted_response_is_transient() {
    for reply in [Reply::hang_up(), Reply::new(200, "<Error").header("content-length", 5000)] {
        let (s3, _script) = scripted(vec![reply]).await;
        assert_eq!(s3.list("", None, 10).await.unwrap_err().kind, StorageErrorKind::Transient);
    }
}

#[tokio::test]
async fn truncated_download_is_an_error() {
    use futures::TryStreamExt;
    let range = |length: u64| {
        Reply::new(206, "0123456789")
            .header("content-range", "bytes 0-19/100")
            .header("content-length", length)
    };
    // Truncated by the connection, and by a store that announces fewer bytes than requested.
    for reply in [range(20), range(10)] {
        let (s3, _script) = scripted(vec![reply]).await;
        let stream = s3.get(&key(), 0..20).await.unwrap();
        let error = stream.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Transient);
    }
}

#[tokio::test]
async fn rejects_a_response_with_another_range() {
    let shifted = Reply::new(206, "0123456789").header("content-range", "bytes 5-14/100");
    let whole = Reply::new(200, "0123456789");
    for reply in [shifted, whole] {
        let (s3, _script) = scripted(vec![reply]).await;
        let error = s3.get(&key(), 0..5).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Transient);
    }
}

#[tokio::test]
async fn rejects_a_truncated_page_without_a_marker() {
    let page = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    let (s3, _script) = scripted(vec![Reply::new(200, page)]).await;
    assert_eq!(s3.list("", None, 10).await.unwrap_err().kind, StorageErrorKind::Transient);
}
