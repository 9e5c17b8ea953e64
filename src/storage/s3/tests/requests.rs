//! The requests that the adapter sends.

use bytes::Bytes;

use super::*;

const SHA_256_OF_X: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

async fn put_request(change: impl FnOnce(&mut S3Options)) -> String {
    let (s3, script) = scripted_with(vec![Reply::new(200, "").header("etag", "\"1\"")], change).await;
    // The reply has no date, so the adapter sends a HEAD afterwards, which does not matter here.
    let _ = s3.put(&key(), Payload::from(Bytes::from_static(b"x")), &PutOptions::default()).await;
    script.requests().remove(0)
}

#[tokio::test]
async fn body_is_hashed_for_the_signature_or_for_the_checksum() {
    for (payload_signing, is_signed) in
        [(PayloadSigning::Auto, true), (PayloadSigning::Always, true), (PayloadSigning::Never, false)]
    {
        let request = put_request(|options| options.payload_signing = payload_signing).await;
        let digest = if is_signed { SHA_256_OF_X } else { "UNSIGNED-PAYLOAD" };
        assert!(request.contains(&format!("x-amz-content-sha256: {digest}\r\n")), "{request}");
        assert_eq!(request.contains("x-amz-checksum-crc64nvme: "), !is_signed, "{request}");
        assert!(request.contains("content-length: 1\r\n") && !request.contains("chunked"), "{request}");
    }
}

#[tokio::test]
async fn tls_requests_sign_the_body_only_if_configured() {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for (payload_signing, sends_checksum) in
        [(PayloadSigning::Auto, true), (PayloadSigning::Always, false), (PayloadSigning::Never, true)]
    {
        let options = S3Options { payload_signing, ..options("https://s3.example.org") };
        assert_eq!(S3::open(&options).unwrap().client.sends_checksum(), sends_checksum);
    }
}

#[tokio::test]
async fn bucket_is_in_the_path_or_in_the_host() {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let address = |virtual_hosted_style, endpoint: Option<&str>| {
        let endpoint = endpoint.map(str::to_owned);
        let options = S3Options { virtual_hosted_style, endpoint, ..options("") };
        S3::open(&options).unwrap().client.bucket_url("b")
    };
    let minio = Some("https://minio.example.org:9000/s3/");
    assert_eq!(address(false, minio), "https://minio.example.org:9000/s3/b");
    assert_eq!(address(true, minio), "https://b.minio.example.org:9000/s3");
    assert_eq!(address(true, None), "https://b.s3.us-east-1.amazonaws.com");
}

#[tokio::test]
async fn rejects_invalid_endpoints() {
    for (endpoint, allow_http) in
        [("http://s3.example.org", false), ("ftp://x", true), ("s3.example.org", true)]
    {
        let options = S3Options { allow_http, ..options(endpoint) };
        assert_eq!(S3::open(&options).unwrap_err().kind, StorageErrorKind::InvalidInput, "{endpoint}");
    }
}

#[tokio::test]
async fn large_copy_uses_parts_that_cover_it_exactly() {
    const MIB: u64 = 1024 * 1024;
    let copied = || Reply::new(200, "<CopyPartResult><ETag>\"p\"</ETag></CopyPartResult>");
    let started = Reply::new(
        200,
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
    );
    let replies = vec![head(12 * MIB), started, copied(), copied(), copied(), copied(), head(12 * MIB)];
    let (mut s3, script) = scripted(replies).await;
    s3.single_copy_size_bytes_max = 5 * MIB;
    let (from, to) = (key(), key());
    let info = s3.copy(&from, &to, &PutOptions::default()).await.unwrap();
    assert_eq!(info.size_bytes, 12 * MIB);
    let mut ranges: Vec<_> = script
        .requests()
        .iter()
        .filter_map(|request| request.lines().find_map(|line| line.strip_prefix("x-amz-copy-source-range: ")))
        .map(str::to_owned)
        .collect();
    ranges.sort();
    assert_eq!(ranges, ["bytes=0-5242879", "bytes=10485760-12582911", "bytes=5242880-10485759"]);
    assert!(script.requests()[2].contains(&format!("x-amz-copy-source: /bucket/{from}")));
}

#[tokio::test]
async fn new_tenant_bucket_is_used_even_if_its_rule_fails() {
    let stored = || Reply::new(200, "").header("etag", "\"1\"");
    for reply in [Reply::new(200, ""), error(501, "NotImplemented"), error(500, "InternalError")] {
        let no_rules = error(404, "NoSuchLifecycleConfiguration");
        let replies = vec![Reply::new(404, ""), Reply::new(200, ""), no_rules, reply, stored(), head(1)];
        let (s3, script) = scripted_with(replies, |options| {
            options.bucket_per_tenant = true;
            options.abandoned_multipart_days = Some(9);
        })
        .await;
        let key = key();
        s3.put(&key, Payload::from(Bytes::from_static(b"x")), &PutOptions::default()).await.unwrap();
        let bucket = format!("/bucket-{}", key.tenant().as_uuid().simple());
        let lines = script.lines();
        assert_eq!(lines[1], format!("PUT {bucket}/"));
        assert_eq!(lines[3], format!("PUT {bucket}/?lifecycle="));
        assert_eq!(lines[4], format!("PUT {bucket}/{key}"));
    }
}
