//! Completion with ambiguous responses.

use super::*;

const ETAG: &str = "\"0123456789abcdef\"";

fn parts() -> Vec<PartReceipt> {
    vec![PartReceipt { number: 1, size_bytes: 10, etag: ETAG.to_owned() }]
}

async fn complete(s3: &S3) -> Result<ObjectInfo, StorageErrorKind> {
    let id = MultipartId::new("upload");
    s3.complete_multipart(&key(), &id, &parts()).await.map_err(|error| error.kind)
}

fn done() -> Reply {
    Reply::new(200, "<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>")
}

fn late_error() -> Reply {
    Reply::new(
        200,
        "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>sorry</Message></Error>",
    )
}

#[tokio::test]
async fn successful_completion_is_checked_against_the_object_size() {
    let (s3, script) = scripted(vec![done(), head(10)]).await;
    assert_eq!(complete(&s3).await.unwrap().size_bytes, 10);
    let request = &script.requests()[0];
    assert!(request.contains("uploadId=upload"), "{request}");
    assert!(
        request.contains("<PartNumber>1</PartNumber><ETag>&quot;0123456789abcdef&quot;</ETag>"),
        "{request}"
    );
    let (s3, _script) = scripted(vec![done(), head(9)]).await;
    assert_eq!(complete(&s3).await.unwrap_err(), StorageErrorKind::Damaged);
}

#[tokio::test]
async fn ambiguous_completion_succeeds_if_the_object_exists() {
    for reply in [
        Reply::hang_up(),
        Reply::new(200, "").header("content-length", 100),
        late_error(),
        Reply::new(200, "what?"),
        error(500, "InternalError"),
        error(404, "NoSuchUpload"),
    ] {
        let (s3, script) = scripted(vec![reply, head(10)]).await;
        assert_eq!(complete(&s3).await.unwrap().size_bytes, 10, "{:?}", script.lines());
        assert!(script.lines()[1].starts_with("HEAD /bucket/"), "{:?}", script.lines());
    }
}

#[tokio::test]
async fn failed_completion_without_an_object_returns_its_error() {
    let bucket_exists = || Reply::new(200, "");
    for (reply, kind) in [
        (Reply::hang_up(), StorageErrorKind::Transient),
        (late_error(), StorageErrorKind::Transient),
        (error(503, "SlowDown"), StorageErrorKind::Transient),
        (error(404, "NoSuchUpload"), StorageErrorKind::NotFound),
    ] {
        let (s3, _script) = scripted(vec![reply, Reply::new(404, ""), bucket_exists()]).await;
        assert_eq!(complete(&s3).await.unwrap_err(), kind);
    }
}

#[tokio::test]
async fn completion_rejects_an_object_of_another_size() {
    let (s3, _script) = scripted(vec![error(404, "NoSuchUpload"), head(11)]).await;
    assert_eq!(complete(&s3).await.unwrap_err(), StorageErrorKind::NotFound);
}

#[tokio::test]
async fn completion_fails_if_the_object_cannot_be_checked() {
    let (s3, _script) = scripted(vec![Reply::hang_up(), error(503, "")]).await;
    assert_eq!(complete(&s3).await.unwrap_err(), StorageErrorKind::Transient);
}

#[tokio::test]
async fn rejected_parts_cause_no_object_lookup() {
    let (s3, script) = scripted(vec![error(400, "InvalidPart")]).await;
    assert_eq!(complete(&s3).await.unwrap_err(), StorageErrorKind::InvalidInput);
    assert_eq!(script.lines().len(), 1);
}

#[tokio::test]
async fn existing_key_is_ours_only_if_our_upload_is_gone() {
    let key_exists = || error(412, "PreconditionFailed");
    let conditional = |options: &mut S3Options| options.conditional_writes = true;
    let gone = error(404, "NoSuchUpload");
    let (s3, script) = scripted_with(vec![key_exists(), gone, head(10)], conditional).await;
    assert_eq!(complete(&s3).await.unwrap().size_bytes, 10);
    assert!(script.requests()[0].contains("if-none-match: *"), "{:?}", script.requests());
    let open = Reply::new(200, "<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>");
    let (s3, _script) = scripted_with(vec![key_exists(), open], conditional).await;
    assert_eq!(complete(&s3).await.unwrap_err(), StorageErrorKind::AlreadyExists);
}
