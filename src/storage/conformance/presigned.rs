//! Presigned URLs, on stores that support them.

use std::time::Duration;

use bytes::Bytes;

use super::{
    super::{PresignRequest, PresignedUrl, PutOptions, StorageErrorKind},
    fixture::{Fixture, PART_SIZE_BYTES, assert_kind, content},
};
use crate::domain::object_key::ObjectKey;

const HOUR: Duration = Duration::from_secs(3600);

pub(super) async fn check_all(fixture: &Fixture) {
    let key = fixture.key();
    let get = get(&key, HOUR);
    let url = fixture.store.presign(&get).await.expect("presign");
    assert_eq!(
        url.is_some(),
        fixture.store.capabilities().presigned_urls,
        "presigned_urls does not match the behavior"
    );
    if url.is_some() {
        url_reads_its_object_with_the_requested_type(fixture).await;
        url_writes_its_object(fixture).await;
        urls_write_parts_until_the_upload_ends(fixture).await;
        rejects_an_expiry_outside_the_limits(fixture).await;
    }
}

fn get(key: &ObjectKey, expires_in: Duration) -> PresignRequest {
    let content_disposition =
        Some("attachment; filename=\"a b+c.pdf\"; filename*=UTF-8''a%20b.pdf".to_owned());
    let content_type = Some("application/pdf".to_owned());
    PresignRequest::Get { key: key.clone(), expires_in, content_type, content_disposition }
}

async fn url(fixture: &Fixture, request: PresignRequest) -> PresignedUrl {
    fixture.store.presign(&request).await.expect("presign").expect("a URL")
}

/// Sends the request of a URL's holder.
async fn fetch(url: &PresignedUrl, body: &Bytes) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let mut request = match url.method {
        "PUT" => client.put(url.url.clone()).body(body.clone()),
        _ => client.get(url.url.clone()),
    };
    for (name, value) in &url.headers {
        request = request.header(name, value);
    }
    request.send().await.expect("a response")
}

async fn url_reads_its_object_with_the_requested_type(fixture: &Fixture) {
    let (key, body) = (fixture.key(), content(300, 5000));
    fixture.put(&key, &body).await.expect("put object");
    let response = fetch(&url(fixture, get(&key, HOUR)).await, &Bytes::new()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/pdf");
    let disposition = response.headers()["content-disposition"].to_str().expect("text");
    assert_eq!(disposition, "attachment; filename=\"a b+c.pdf\"; filename*=UTF-8''a%20b.pdf");
    assert_eq!(response.bytes().await.expect("a body"), body);
}

async fn url_writes_its_object(fixture: &Fixture) {
    let (key, body) = (fixture.key(), content(301, 5000));
    let content_type = Some("image/png".to_owned());
    let size_bytes = body.len() as u64;
    let put = PresignRequest::Put { key: key.clone(), size_bytes, expires_in: HOUR, content_type };
    let url = url(fixture, put).await;
    let signed =
        url.url.query_pairs().find(|(name, _)| name == "X-Amz-SignedHeaders").expect("a signature").1;
    assert!(signed.split(';').any(|name| name == "content-length"), "{signed}");
    let response = fetch(&url, &body).await;
    assert!(response.status().is_success(), "{response:?}");
    assert_eq!(fixture.read_all(&key).await, body);
}

async fn urls_write_parts_until_the_upload_ends(fixture: &Fixture) {
    let key = fixture.key();
    let bodies = [content(302, PART_SIZE_BYTES), content(303, 77)];
    let options = PutOptions { has_presigned_parts: true, ..PutOptions::default() };
    let multipart = fixture.store.start_multipart(&key, PART_SIZE_BYTES, &options).await;
    let multipart = multipart.expect("start multipart upload");
    let part = |number: u32, body: &Bytes| PresignRequest::Part {
        key: key.clone(),
        multipart: multipart.clone(),
        number,
        size_bytes: body.len() as u64,
        expires_in: HOUR,
    };
    for (body, number) in bodies.iter().zip(1..) {
        let response = fetch(&url(fixture, part(number, body)).await, body).await;
        assert!(response.status().is_success(), "{response:?}");
    }
    let receipts = fixture.store.list_parts(&key, &multipart).await.expect("list parts");
    fixture
        .store
        .complete_multipart(&key, &multipart, &receipts, None)
        .await
        .expect("complete multipart upload");
    let late_body = content(304, 5);
    let late = fetch(&url(fixture, part(1, &late_body)).await, &late_body).await;
    assert!(late.status().is_client_error(), "{late:?}");
    assert!(fixture.read_all(&key).await == bodies.concat());
}

async fn rejects_an_expiry_outside_the_limits(fixture: &Fixture) {
    for seconds in [0, 7 * 24 * 3600 + 1] {
        let result = fixture.store.presign(&get(&fixture.key(), Duration::from_secs(seconds))).await;
        assert_kind(result, StorageErrorKind::InvalidInput);
    }
}
