//! URLs that open one object for a while, where the store has them.

use std::time::Duration;

use super::{
    super::{PresignRequest, PresignedUrl},
    *,
};

const HOUR: Duration = Duration::from_secs(3600);

pub(super) async fn all(ground: &Ground) {
    let key = ground.key();
    let get = get(&key, HOUR);
    let url = ground.store.presign(&get).await.expect("presign");
    assert_eq!(url.is_some(), ground.store.capabilities().presigned_urls, "does the store have URLs?");
    if url.is_some() {
        a_url_reads_its_object_as_the_type_that_was_asked_for(ground).await;
        a_url_writes_its_object(ground).await;
        urls_write_the_parts_of_an_upload_until_it_ends(ground).await;
        an_expiry_that_no_store_takes_is_refused(ground).await;
    }
}

fn get(key: &ObjectKey, expires_in: Duration) -> PresignRequest {
    let content_disposition =
        Some("attachment; filename=\"a b+c.pdf\"; filename*=UTF-8''a%20b.pdf".to_owned());
    let content_type = Some("application/pdf".to_owned());
    PresignRequest::Get { key: key.clone(), expires_in, content_type, content_disposition }
}

async fn url(ground: &Ground, request: PresignRequest) -> PresignedUrl {
    ground.store.presign(&request).await.expect("presign").expect("a URL")
}

/// Sends what the holder of the URL would send.
async fn fetch(url: &PresignedUrl, body: &Bytes) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let mut request = match url.method {
        "PUT" => client.put(url.url.clone()).body(body.clone()),
        _ => client.get(url.url.clone()),
    };
    for (name, value) in &url.headers {
        request = request.header(name, value);
    }
    request.send().await.expect("an answer")
}

async fn a_url_reads_its_object_as_the_type_that_was_asked_for(ground: &Ground) {
    let (key, body) = (ground.key(), content(300, 5000));
    ground.put(&key, &body).await.expect("put object");
    let answer = fetch(&url(ground, get(&key, HOUR)).await, &Bytes::new()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/pdf");
    let disposition = answer.headers()["content-disposition"].to_str().expect("text");
    assert_eq!(disposition, "attachment; filename=\"a b+c.pdf\"; filename*=UTF-8''a%20b.pdf");
    assert_eq!(answer.bytes().await.expect("a body"), body);
}

async fn a_url_writes_its_object(ground: &Ground) {
    let (key, body) = (ground.key(), content(301, 5000));
    let content_type = Some("image/png".to_owned());
    let put = PresignRequest::Put { key: key.clone(), expires_in: HOUR, content_type };
    let answer = fetch(&url(ground, put).await, &body).await;
    assert!(answer.status().is_success(), "{answer:?}");
    assert_eq!(ground.read_all(&key).await, body);
}

async fn urls_write_the_parts_of_an_upload_until_it_ends(ground: &Ground) {
    let key = ground.key();
    let bodies = [content(302, PART_SIZE_BYTES), content(303, 77)];
    let options = PutOptions { has_parts_by_url: true, ..PutOptions::default() };
    let multipart = ground.store.start_multipart(&key, PART_SIZE_BYTES, &options).await;
    let multipart = multipart.expect("start multipart upload");
    let part = |number: u32| PresignRequest::Part {
        key: key.clone(),
        multipart: multipart.clone(),
        number,
        expires_in: HOUR,
    };
    for (body, number) in bodies.iter().zip(1..) {
        let answer = fetch(&url(ground, part(number)).await, body).await;
        assert!(answer.status().is_success(), "{answer:?}");
    }
    let receipts = ground.store.list_parts(&key, &multipart).await.expect("list parts");
    ground.store.complete_multipart(&key, &multipart, &receipts).await.expect("complete multipart upload");
    let late = fetch(&url(ground, part(1)).await, &content(304, 5)).await;
    assert!(late.status().is_client_error(), "{late:?}");
    assert!(ground.read_all(&key).await == bodies.concat());
}

async fn an_expiry_that_no_store_takes_is_refused(ground: &Ground) {
    for seconds in [0, 7 * 24 * 3600 + 1] {
        let refused = ground.store.presign(&get(&ground.key(), Duration::from_secs(seconds))).await;
        assert_kind(refused, StorageErrorKind::InvalidInput);
    }
}
