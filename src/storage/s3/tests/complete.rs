//! Completion with ambiguous responses.

use super::*;
use crate::domain::checksum::Crc64;

const ETAG: &str = "\"0123456789abcdef\"";

fn parts() -> Vec<PartReceipt> {
    vec![PartReceipt { number: 1, size_bytes: 10, etag: ETAG.to_owned() }]
}

async fn complete(s3: &S3) -> Result<ObjectInfo, StorageErrorKind> {
    let id = MultipartId::new("upload");
    s3.complete_multipart(&key(), &id, &parts(), None).await.map_err(|error| error.kind)
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
    for code in ["InvalidPart", "InvalidPartOrder", "EntityTooSmall"] {
        let (s3, script) = scripted(vec![error(400, code)]).await;
        assert_eq!(complete(&s3).await.unwrap_err(), StorageErrorKind::PartsDiffer, "{code}");
        assert_eq!(script.lines().len(), 1);
    }
}

#[tokio::test]
async fn no_other_rejection_means_that_parts_differ_or_are_gone() {
    let codes = ["InvalidRequest", "InvalidArgument", "MalformedXML", "MalformedPolicy", "Whatever", ""];
    let rejections = codes.map(|code| (400, code)).into_iter();
    let rejections =
        rejections.chain([(404, ""), (404, "NotFound"), (405, ""), (411, ""), (413, ""), (418, "")]);
    for (status, code) in rejections {
        // The object does not exist, but its bucket does.
        let replies = vec![error(status, code), Reply::new(404, ""), Reply::new(200, "")];
        let (s3, _script) = scripted(replies).await;
        let kind = complete(&s3).await.unwrap_err();
        assert!(
            matches!(kind, StorageErrorKind::Other | StorageErrorKind::Unavailable),
            "{status} {code}: {kind:?}"
        );
    }
    for (status, code) in [(404, ""), (404, "NoSuchKey"), (400, "InvalidRequest")] {
        let (s3, _script) = scripted(vec![error(status, code)]).await;
        let id = MultipartId::new("upload");
        let body = Payload::from(bytes::Bytes::from_static(b"x"));
        let failure = s3.put_part(&key(), &id, 1, body).await.unwrap_err();
        assert_ne!(failure.kind, StorageErrorKind::NotFound, "{status} {code}");
        let (s3, _script) = scripted(vec![error(status, code)]).await;
        let failure = s3.list_parts(&key(), &id).await.unwrap_err();
        assert_ne!(failure.kind, StorageErrorKind::NotFound, "{status} {code}");
    }
}

const WHOLE: Crc64Text = Crc64Text { hex: "ae8b14860a799888", base64: "rosUhgp5mIg=" };

/// A checksum, as text.
struct Crc64Text {
    hex: &'static str,
    base64: &'static str,
}

/// The checksum of `123456789`, which [`WHOLE`] is the text of.
fn crc64nvme() -> Crc64 {
    let crc64nvme = Crc64::compute(b"123456789");
    assert_eq!(crc64nvme.to_string(), WHOLE.hex);
    crc64nvme
}

/// Opens a store that sends checksums, and starts an upload to which the store replies with these headers.
async fn started(headers: &[(&'static str, &str)], mut replies: Vec<Reply>) -> (S3, Script) {
    let started = Reply::new(
        200,
        "<InitiateMultipartUploadResult><UploadId>upload</UploadId></InitiateMultipartUploadResult>",
    );
    replies.insert(0, headers.iter().fold(started, |reply, (name, value)| reply.header(name, value)));
    let unsigned = |options: &mut S3Options| options.payload_signing = PayloadSigning::Never;
    let (s3, script) = scripted_with(replies, unsigned).await;
    let id = s3.start_multipart(&key(), 5 * 1024 * 1024, &PutOptions::default()).await.unwrap();
    assert_eq!(id.as_str(), "upload");
    (s3, script)
}

async fn complete_whole(s3: &S3) -> Result<ObjectInfo, StorageErrorKind> {
    let id = MultipartId::new("upload");
    s3.complete_multipart(&key(), &id, &parts(), Some(crc64nvme())).await.map_err(|error| error.kind)
}

const SUPPORTED: [(&str, &str); 2] =
    [("x-amz-checksum-algorithm", "CRC64NVME"), ("x-amz-checksum-type", "FULL_OBJECT")];

fn reported(value: &str, kind: &str) -> Reply {
    head(10).header("x-amz-checksum-crc64nvme", value).header("x-amz-checksum-type", kind)
}

#[tokio::test]
async fn checksum_of_the_whole_is_sent_where_the_store_takes_it() {
    let (s3, script) = started(&SUPPORTED, vec![done(), reported(WHOLE.base64, "FULL_OBJECT")]).await;
    complete_whole(&s3).await.unwrap();
    let requests = script.requests();
    for header in SUPPORTED {
        assert!(requests[0].contains(&format!("{}: {}\r\n", header.0, header.1)), "{}", requests[0]);
    }
    let sent = format!("x-amz-checksum-crc64nvme: {}\r\n", WHOLE.base64);
    assert!(requests[1].contains(&sent), "{}", requests[1]);
    assert!(requests[1].contains("x-amz-checksum-type: FULL_OBJECT\r\n"), "{}", requests[1]);
    assert!(requests[2].contains("x-amz-checksum-mode: ENABLED\r\n"), "{}", requests[2]);
    // Another store reports nothing and gets nothing.
    for headers in [vec![], vec![("x-amz-checksum-type", "COMPOSITE")]] {
        let (s3, script) = started(&headers, vec![done(), head(10)]).await;
        complete_whole(&s3).await.unwrap();
        assert!(!script.requests()[1].contains("x-amz-checksum"), "{headers:?}");
    }
}

#[tokio::test]
async fn refused_checksum_is_omitted_from_the_completion() {
    for (status, code) in [(400, "InvalidRequest"), (400, "InvalidDigest"), (501, "NotImplemented")] {
        let replies = vec![error(status, code), done(), head(10)];
        let (s3, script) = started(&SUPPORTED, replies).await;
        complete_whole(&s3).await.unwrap();
        let requests = script.requests();
        assert!(requests[1].contains("x-amz-checksum-crc64nvme"), "{}", requests[1]);
        assert!(!requests[2].contains("x-amz-checksum-crc64nvme"), "{}", requests[2]);
    }
}

#[tokio::test]
async fn another_checksum_of_the_whole_is_damage() {
    let other = "AAAAAAAAAAA=";
    for replies in [
        vec![done(), reported(other, "FULL_OBJECT")],
        // The outcome of the completion is unknown, and the object has other bytes.
        vec![Reply::hang_up(), reported(other, "FULL_OBJECT")],
        vec![error(400, "BadDigest"), Reply::new(404, ""), Reply::new(200, "")],
    ] {
        let (s3, _script) = started(&SUPPORTED, replies).await;
        assert_eq!(complete_whole(&s3).await.unwrap_err(), StorageErrorKind::Damaged);
    }
    // The checksum of the parts' checksums, and a checksum of another length.
    for (value, kind) in [("AAAAAAAAAAA=-2", "COMPOSITE"), ("AAAAAA==", "FULL_OBJECT"), ("?", "FULL_OBJECT")]
    {
        let (s3, _script) = started(&SUPPORTED, vec![done(), reported(value, kind)]).await;
        complete_whole(&s3).await.unwrap();
    }
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
