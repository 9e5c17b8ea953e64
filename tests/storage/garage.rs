//! Tests against Garage: conformance, and the signatures and checksums that Garage verifies.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use strongroom::{
    domain::{
        checksum::Crc64,
        clock::{IdSource, SystemIds},
        object_key::ObjectKey,
    },
    storage::{
        InitOptions, InitOutcome, Payload, PayloadSigning, PresignRequest, PutOptions, S3Credentials,
        S3Options, StorageErrorKind,
        conformance::check_conformance,
        flaky::{Flaky, Plan},
        with_retries,
    },
};

use crate::settings::{
    body, fetch, garage_options, new_key, new_tenant, open_without_retries, start_corrupting_proxy,
    storage_options,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garage_conforms() {
    check_conformance(open_without_retries(garage_options()), Arc::new(SystemIds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garage_conforms_with_unsigned_payloads_and_checksums() {
    // Garage has no storage classes and ignores a requested one.
    let archive_storage_class = Some("GLACIER_IR".to_owned());
    let options =
        S3Options { payload_signing: PayloadSigning::Never, archive_storage_class, ..garage_options() };
    check_conformance(open_without_retries(options), Arc::new(SystemIds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_conform_if_one_garage_call_in_ten_fails() {
    let flaky = Flaky::new(open_without_retries(garage_options()), Plan::new().with_random_faults(7, 10));
    let store = with_retries(flaky, &storage_options(garage_options(), 12), Arc::new(SystemIds));
    check_conformance(store, Arc::new(SystemIds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bucket_per_tenant_conforms() {
    check_conformance(
        open_without_retries(S3Options { bucket_per_tenant: true, ..garage_options() }),
        Arc::new(SystemIds),
    )
    .await;
}

#[tokio::test]
async fn missing_bucket_is_reported_until_initialized() {
    let bucket = format!("missing-{}", SystemIds.uuid().simple());
    let store = open_without_retries(S3Options { bucket, ..garage_options() });
    let key = new_key(new_tenant());
    let errors = [
        store.head(&key).await.unwrap_err(),
        store.put(&key, Payload::from(body(10)), &PutOptions::default()).await.unwrap_err(),
        store.list("", None, 10).await.unwrap_err(),
        store.check().await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind, StorageErrorKind::Unavailable, "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("strongroom storage init"), "{source}");
    }
    let options = InitOptions { abort_incomplete_after_days: Some(7) };
    for outcome in [InitOutcome::Done, InitOutcome::AlreadyExists] {
        let report = store.initialize(&options).await.unwrap();
        let outcomes: Vec<_> = report.steps.into_iter().map(|step| step.outcome).collect();
        assert_eq!(outcomes, [outcome.clone(), outcome]);
    }
    store.check().await.unwrap();
    assert_eq!(store.head(&key).await.unwrap_err().kind, StorageErrorKind::NotFound);
}

#[tokio::test]
async fn wrong_secret_is_rejected_and_not_in_the_error() {
    let secret = "0123456789abcdef".repeat(4);
    let right = garage_options();
    let S3Credentials::Static { access_key_id, .. } = &right.credentials else {
        panic!("expected static credentials")
    };
    let credentials = S3Credentials::Static {
        access_key_id: access_key_id.clone(),
        secret_access_key: secret.clone().into(),
        session_token: None,
    };
    let store = open_without_retries(S3Options { credentials, ..right.clone() });
    let error = store.head(&new_key(new_tenant())).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unavailable);
    for text in [format!("{error}"), format!("{error:?}"), format!("{:?}", right)] {
        assert!(!text.contains(&secret) && !text.contains("X-Amz-Signature"), "{text}");
    }
}

#[tokio::test]
async fn store_detects_a_byte_changed_in_transit() {
    for payload_signing in [PayloadSigning::Always, PayloadSigning::Never] {
        let endpoint = start_corrupting_proxy(&garage_options().endpoint.unwrap()).await;
        let store =
            open_without_retries(S3Options { endpoint: Some(endpoint), payload_signing, ..garage_options() });
        let key = new_key(new_tenant());
        let corrupted = Payload::from(Bytes::from_static(b"some bytes, including CORRUPT-ME, and more"));
        let error = store.put(&key, corrupted.clone(), &PutOptions::default()).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Transient, "{payload_signing:?} {error:?}");
        assert_eq!(store.head(&key).await.unwrap_err().kind, StorageErrorKind::NotFound);
        let id = store.start_multipart(&key, 5 * 1024 * 1024, &PutOptions::default()).await.unwrap();
        let error = store.put_part(&key, &id, 1, corrupted).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Transient, "{payload_signing:?} {error:?}");
        assert_eq!(store.list_parts(&key, &id).await.unwrap(), []);
        store.abort_multipart(&key, &id).await.unwrap();
    }
}

#[tokio::test]
async fn url_rejects_a_body_of_another_length() {
    let store = open_without_retries(garage_options());
    let (key, expires_in) = (new_key(new_tenant()), Duration::from_secs(60));
    let multipart = store.start_multipart(&key, 5 * 1024 * 1024, &PutOptions::default()).await.unwrap();
    let put = PresignRequest::Put { key: key.clone(), size_bytes: 1, expires_in, content_type: None };
    let (id, number, size_bytes) = (multipart.clone(), 1, 1);
    let part = PresignRequest::Part { key: key.clone(), multipart: id, number, size_bytes, expires_in };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for request in [put, part] {
        let url = store.presign(&request).await.unwrap().unwrap().url;
        for size in [0, 2, 1_000_000] {
            let response = client.put(url.clone()).body(body(size)).send().await.unwrap();
            assert!(response.status().is_client_error(), "{size} bytes instead of one: {response:?}");
        }
    }
    assert_eq!(store.head(&key).await.unwrap_err().kind, StorageErrorKind::NotFound);
    assert_eq!(store.list_parts(&key, &multipart).await.unwrap(), []);
    store.abort_multipart(&key, &multipart).await.unwrap();
}

#[tokio::test]
async fn virtual_hosted_url_reads_the_object() {
    let key = new_key(new_tenant());
    open_without_retries(garage_options())
        .put(&key, Payload::from(body(1000)), &PutOptions::default())
        .await
        .unwrap();
    let endpoint = garage_options().endpoint.unwrap().replace("127.0.0.1", "localhost");
    let options = S3Options { endpoint: Some(endpoint), virtual_hosted_style: true, ..garage_options() };
    let expires_in = Duration::from_secs(60);
    let get =
        PresignRequest::Get { key: key.clone(), expires_in, content_type: None, content_disposition: None };
    let url = open_without_retries(options).presign(&get).await.unwrap().unwrap();
    assert_eq!(url.url.host_str(), Some("strongroom.localhost"));
    assert_eq!(url.url.path(), format!("/{key}"));
    let response = fetch(&url).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.bytes().await.unwrap(), body(1000));
}

#[tokio::test]
async fn first_object_creates_the_tenant_bucket() {
    let bucket = format!("files-{}", &SystemIds.uuid().simple().to_string()[20..]);
    let store = open_without_retries(S3Options {
        bucket: bucket.clone(),
        bucket_per_tenant: true,
        ..garage_options()
    });
    let (first, second) = (new_tenant(), new_tenant());
    assert_eq!(store.head(&new_key(first)).await.unwrap_err().kind, StorageErrorKind::NotFound);
    store.delete(&new_key(first)).await.unwrap();
    let mut keys = vec![new_key(first), new_key(first), new_key(second)];
    for key in &keys {
        store.put(key, Payload::from(body(6_000_000)), &PutOptions::default()).await.unwrap();
    }
    keys.sort();
    for limit in [1, 2, 10] {
        let mut listed: Vec<ObjectKey> = Vec::new();
        loop {
            let page = store.list("storage-test/", listed.last(), limit).await.unwrap();
            listed.extend(page.objects.into_iter().map(|object| object.key));
            if page.is_last {
                break;
            }
        }
        assert_eq!(listed, keys, "in pages of {limit}");
    }
    let alone = open_without_retries(S3Options {
        bucket: format!("{bucket}-{}", first.as_uuid().simple()),
        ..garage_options()
    });
    assert_eq!(alone.list("", None, 10).await.unwrap().objects.len(), 2, "the bucket of the first tenant");
}

#[tokio::test]
async fn another_process_completes_a_resumed_upload() {
    let key = new_key(new_tenant());
    let id = open_without_retries(garage_options())
        .start_multipart(&key, 5 * 1024 * 1024, &PutOptions::default())
        .await
        .unwrap();
    let first = open_without_retries(garage_options())
        .put_part(&key, &id, 1, Payload::from(body(5 * 1024 * 1024)))
        .await
        .unwrap();
    let other = open_without_retries(garage_options());
    assert_eq!(
        other.list_parts(&key, &id).await.unwrap(),
        std::slice::from_ref(&first),
        "the listed part equals the one that put_part returned"
    );
    let second = other.put_part(&key, &id, 2, Payload::from(body(7))).await.unwrap();
    let info = other.complete_multipart(&key, &id, &[first, second], None).await.unwrap();
    assert_eq!(info.size_bytes, 5 * 1024 * 1024 + 7);
}

#[tokio::test]
async fn garage_verifies_the_checksum_of_a_whole_object() {
    let options = S3Options { payload_signing: PayloadSigning::Never, ..garage_options() };
    let store = open_without_retries(options);
    let parts = [body(5 * 1024 * 1024), body(7)];
    let right = Crc64::compute(&parts.concat());
    for (crc64nvme, is_right) in [(right, true), (Crc64::compute(b"other bytes"), false)] {
        let key = new_key(new_tenant());
        let id = store.start_multipart(&key, 5 * 1024 * 1024, &PutOptions::default()).await.unwrap();
        let mut receipts = Vec::new();
        for (number, part) in (1..).zip(&parts) {
            receipts.push(store.put_part(&key, &id, number, Payload::from(part.clone())).await.unwrap());
        }
        let completed = store.complete_multipart(&key, &id, &receipts, Some(crc64nvme)).await;
        match is_right {
            true => assert_eq!(completed.unwrap().size_bytes, 5 * 1024 * 1024 + 7),
            false => assert_eq!(completed.unwrap_err().kind, StorageErrorKind::Damaged),
        }
    }
}

#[tokio::test]
async fn garage_keeps_no_versions() {
    assert_eq!(open_without_retries(garage_options()).list_protections().await.unwrap(), []);
}
