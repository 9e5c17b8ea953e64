//! Tests against moto, which supports the headers that Garage ignores.

use std::sync::Arc;

use futures::future::join_all;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use strongroom::{
    domain::{checksum::Crc64, object_key::ObjectKey, storage_class::StorageClass},
    storage::{
        Encryption, InitOptions, InitOutcome, ObjectStorage, Payload, PayloadSigning, PutOptions, S3Options,
        StorageErrorKind::AlreadyExists,
    },
};

use crate::settings::{body, moto_options, new_key, new_tenant, open_without_retries};

const PART_SIZE_BYTES: u64 = 5 * 1024 * 1024;

async fn open_initialized(options: &S3Options) -> Arc<dyn ObjectStorage> {
    let store = open_without_retries(options.clone());
    store.initialize(&InitOptions { abort_incomplete_after_days: None }).await.unwrap();
    store
}

/// Returns the URL of an object. moto verifies no signature, so tests can request it directly.
fn object_url(options: &S3Options, name: &str) -> String {
    format!("{}/{}/{name}", options.endpoint.as_deref().unwrap(), options.bucket)
}

/// Creates a client with a placeholder signature, which moto accepts.
fn client() -> reqwest::Client {
    let signature = "AWS4-HMAC-SHA256 Credential=key/20260102/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(signature))]);
    reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap()
}

async fn get_headers(options: &S3Options, key: &ObjectKey) -> HeaderMap {
    let response = client().head(object_url(options, key.as_str())).send().await.unwrap();
    response.error_for_status().unwrap().headers().clone()
}

async fn get_text(url: String) -> String {
    client().get(url).send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
}

/// Creates an object in each of the three ways: put, multipart upload and copy.
async fn put_in_every_way(store: &dyn ObjectStorage, options: &PutOptions) -> [ObjectKey; 3] {
    let keys = [new_key(new_tenant()), new_key(new_tenant()), new_key(new_tenant())];
    let [whole, in_parts, copied] = &keys;
    store.put(whole, Payload::from(body(10)), options).await.unwrap();
    let id = store.start_multipart(in_parts, PART_SIZE_BYTES, options).await.unwrap();
    let part = store.put_part(in_parts, &id, 1, Payload::from(body(10))).await.unwrap();
    store.complete_multipart(in_parts, &id, &[part], None).await.unwrap();
    store.copy(whole, copied, options).await.unwrap();
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_of_sixteen_writers_succeeds() {
    let store = open_initialized(&moto_options()).await;
    assert!(store.capabilities().conditional_writes);
    let key = new_key(new_tenant());
    let put = |size_bytes| {
        let (store, key) = (&store, &key);
        async move { store.put(key, Payload::from(body(size_bytes)), &PutOptions::default()).await }
    };
    let results = join_all((1..=16).map(put)).await;
    let winners: Vec<_> = results.iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert!(
        results.iter().filter_map(|result| result.as_ref().err()).all(|error| error.kind == AlreadyExists)
    );
    assert_eq!(store.head(&key).await.unwrap().size_bytes, winners[0].size_bytes);
}

#[tokio::test]
async fn completion_is_idempotent_and_never_overwrites() {
    let store = open_initialized(&moto_options()).await;
    let (key, put) = (new_key(new_tenant()), PutOptions::default());
    let mut uploads = Vec::new();
    for size_bytes in [10, 11] {
        let id = store.start_multipart(&key, PART_SIZE_BYTES, &put).await.unwrap();
        let part = store.put_part(&key, &id, 1, Payload::from(body(size_bytes))).await.unwrap();
        uploads.push((id, [part]));
    }
    let [(first, first_parts), (second, second_parts)] = uploads.as_slice() else {
        panic!("expected two uploads")
    };
    for _ in 0..2 {
        let info = store.complete_multipart(&key, first, first_parts, None).await.unwrap();
        assert_eq!(info.size_bytes, 10);
    }
    let error = store.complete_multipart(&key, second, second_parts, None).await.unwrap_err();
    assert_eq!(error.kind, AlreadyExists);
    assert_eq!(store.head(&key).await.unwrap().size_bytes, 10);
}

#[tokio::test]
async fn object_has_type_metadata_tags_class_and_encryption() {
    let options = S3Options {
        encryption: Encryption::Aes256,
        storage_class: Some("STANDARD_IA".to_owned()),
        tags: vec![("team".to_owned(), "a + b=c".to_owned()), ("env".to_owned(), "test".to_owned())],
        ..moto_options()
    };
    let store = open_initialized(&options).await;
    let metadata = vec![("user-id".to_owned(), "Zoë 7".to_owned())];
    let put = PutOptions { content_type: Some("image/png".to_owned()), metadata, ..PutOptions::default() };
    for key in put_in_every_way(&*store, &put).await {
        let headers = get_headers(&options, &key).await;
        assert_eq!(headers["content-type"], "image/png");
        assert_eq!(headers["x-amz-meta-user-id"], "Zo%C3%AB%207");
        assert_eq!(headers["x-amz-storage-class"], "STANDARD_IA");
        assert_eq!(headers["x-amz-server-side-encryption"], "AES256");
        let tags = get_text(object_url(&options, &format!("{key}?tagging"))).await;
        assert!(tags.contains("<Value>a + b=c</Value>") && tags.contains("<Key>env</Key>"), "{tags}");
    }
}

#[tokio::test]
async fn archived_objects_use_the_archive_storage_class() {
    let archiving = |new_class: Option<&str>| S3Options {
        archive_storage_class: Some("GLACIER_IR".to_owned()),
        storage_class: new_class.map(str::to_owned),
        ..moto_options()
    };
    for (new_class, expected) in [(None, None), (Some("STANDARD_IA"), Some("STANDARD_IA"))] {
        let options = archiving(new_class);
        let store = open_initialized(&options).await;
        assert!(store.capabilities().storage_classes);
        let class = async |key: &ObjectKey| {
            let headers = get_headers(&options, key).await;
            headers.get("x-amz-storage-class").map(|class| class.to_str().unwrap().to_owned())
        };
        let archived = PutOptions::default().with_class(StorageClass::Archive);
        for key in put_in_every_way(&*store, &archived).await {
            assert_eq!(class(&key).await.as_deref(), Some("GLACIER_IR"));
            let back = new_key(new_tenant());
            store.copy(&key, &back, &PutOptions::default()).await.unwrap();
            assert_eq!(class(&back).await.as_deref(), expected, "a copy has the requested class");
        }
        for key in put_in_every_way(&*store, &PutOptions::default()).await {
            assert_eq!(class(&key).await.as_deref(), expected);
        }
    }
    let options = moto_options();
    let store = open_initialized(&options).await;
    assert!(!store.capabilities().storage_classes);
    let archived = PutOptions::default().with_class(StorageClass::Archive);
    for key in put_in_every_way(&*store, &archived).await {
        assert!(!get_headers(&options, &key).await.contains_key("x-amz-storage-class"));
    }
}

#[tokio::test]
async fn object_is_encrypted_with_the_configured_key() {
    let key_id = "arn:aws:kms:eu-central-1:123456789012:key/strongroom".to_owned();
    let options = S3Options { encryption: Encryption::Kms { key_id: key_id.clone() }, ..moto_options() };
    let store = open_initialized(&options).await;
    for key in put_in_every_way(&*store, &PutOptions::default()).await {
        let headers = get_headers(&options, &key).await;
        assert_eq!(headers["x-amz-server-side-encryption"], "aws:kms");
        assert_eq!(headers["x-amz-server-side-encryption-aws-kms-key-id"], key_id.as_str());
    }
}

#[tokio::test]
async fn excess_metadata_is_dropped() {
    let options = moto_options();
    let store = open_initialized(&options).await;
    let long = |name: &str| (name.to_owned(), "ü".repeat(200));
    let metadata = vec![("not a name".to_owned(), "x".to_owned()), long("first"), long("second")];
    let put = PutOptions { content_type: Some("naïve".to_owned()), metadata, ..PutOptions::default() };
    let key = new_key(new_tenant());
    store.put(&key, Payload::from(body(10)), &put).await.unwrap();
    let headers = get_headers(&options, &key).await;
    assert!(
        headers.contains_key("x-amz-meta-first") && !headers.contains_key("x-amz-meta-second"),
        "{headers:?}"
    );
}

#[tokio::test]
async fn initialize_adds_one_rule_and_keeps_other_rules() {
    let options = moto_options();
    let store = open_initialized(&options).await;
    let others = "<LifecycleConfiguration><Rule><ID>archive</ID><Status>Enabled</Status><Filter><Prefix>old/</Prefix></Filter>\
                  <Expiration><Days>900</Days></Expiration></Rule></LifecycleConfiguration>";
    let lifecycle = object_url(&options, "?lifecycle");
    client().put(&lifecycle).body(others).send().await.unwrap().error_for_status().unwrap();
    for (days, outcome) in [(7, InitOutcome::Done), (7, InitOutcome::AlreadyExists), (9, InitOutcome::Done)] {
        let init = InitOptions { abort_incomplete_after_days: Some(days) };
        let report = store.initialize(&init).await.unwrap();
        assert_eq!(report.steps[0].outcome, InitOutcome::AlreadyExists);
        assert_eq!(report.steps[1].outcome, outcome, "{report:?}");
        let rules = get_text(lifecycle.clone()).await;
        assert!(rules.contains("<ID>archive</ID>") && rules.contains("<Days>900</Days>"), "{rules}");
        assert!(rules.contains(&format!("<DaysAfterInitiation>{days}</DaysAfterInitiation>")), "{rules}");
        assert_eq!(rules.matches("<Rule>").count(), 2, "{rules}");
    }
}

#[tokio::test]
async fn listing_skips_unknown_names() {
    let options = moto_options();
    let store = open_initialized(&options).await;
    let key = new_key(new_tenant());
    store.put(&key, Payload::from(body(10)), &PutOptions::default()).await.unwrap();
    for name in ["a//b", "readme.txt", "storage-test/~", "zzz"] {
        client().put(object_url(&options, name)).body("x").send().await.unwrap().error_for_status().unwrap();
    }
    let page = store.list("", None, 1).await.unwrap();
    assert_eq!(page.objects.iter().map(|object| &object.key).collect::<Vec<_>>(), [&key]);
    let rest = store.list("", Some(&key), 10).await.unwrap();
    assert!(rest.objects.is_empty() && rest.is_last);
}

#[tokio::test]
async fn put_and_copy_reject_an_existing_key() {
    let store = open_initialized(&moto_options()).await;
    let (existing, other) = (new_key(new_tenant()), new_key(new_tenant()));
    for key in [&existing, &other] {
        store.put(key, Payload::from(body(10)), &PutOptions::default()).await.unwrap();
    }
    let error = store.put(&existing, Payload::from(body(11)), &PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, AlreadyExists);
    let error = store.copy(&other, &existing, &PutOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, AlreadyExists);
}

#[tokio::test]
async fn moto_completes_with_the_checksum_of_the_whole() {
    let options = S3Options { payload_signing: PayloadSigning::Never, ..moto_options() };
    let store = open_initialized(&options).await;
    let (key, bytes) = (new_key(new_tenant()), body(100));
    let id = store.start_multipart(&key, PART_SIZE_BYTES, &PutOptions::default()).await.unwrap();
    let part = store.put_part(&key, &id, 1, Payload::from(bytes.clone())).await.unwrap();
    // moto reports a checksum of another algorithm under this name, which is not compared.
    let crc64nvme = Some(Crc64::compute(&bytes));
    let info = store.complete_multipart(&key, &id, &[part], crc64nvme).await.unwrap();
    assert_eq!(info.size_bytes, 100);
}

#[tokio::test]
async fn deletion_in_a_bucket_with_versions_leaves_no_version() {
    let options = moto_options();
    let store = open_initialized(&options).await;
    assert_eq!(store.list_protections().await.unwrap(), []);
    let enabled = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                   <Status>Enabled</Status></VersioningConfiguration>";
    let versioning = object_url(&options, "?versioning");
    client().put(versioning).body(enabled).send().await.unwrap().error_for_status().unwrap();
    let init = InitOptions { abort_incomplete_after_days: None };
    let report = store.initialize(&init).await.unwrap();
    let noted = report.steps.last().unwrap();
    assert!(matches!(&noted.outcome, InitOutcome::Noted(text) if text.contains("versioning")), "{report:?}");
    let protections = store.list_protections().await.unwrap();
    assert!(protections[0].has_versions && !protections[0].has_object_lock, "{protections:?}");

    let keys = put_in_every_way(&*store, &PutOptions::default()).await;
    let [deleted, others @ ..] = &keys;
    for _ in 0..2 {
        store.delete(deleted).await.unwrap();
        let versions = get_text(object_url(&options, &format!("?versions&prefix={deleted}"))).await;
        assert!(!versions.contains("<VersionId>"), "{versions}");
    }
    for key in others {
        assert_eq!(store.head(key).await.unwrap().size_bytes, 10, "other objects are not deleted");
    }
    let deleted = store.delete_batch(others).await.unwrap();
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    for key in others {
        let versions = get_text(object_url(&options, &format!("?versions&prefix={key}"))).await;
        assert!(!versions.contains("<VersionId>"), "a batch leaves no version either: {versions}");
    }
}
