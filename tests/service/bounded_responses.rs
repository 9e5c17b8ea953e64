//! Every response fits into the 4 MiB that most clients accept, and no record is lost between two pages.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::{ListValue, Struct, Value, value::Kind};
use strongroom::proto::{
    admin::v1::ListTenantsRequest,
    v1::{
        BatchGetFilesRequest, EntityRef, File, FileFilter, FileState, FileView, ListFileVersionsRequest,
        ListFilesRequest, ListUploadsRequest, ListWebhookDeliveriesRequest, ListWebhooksRequest, UploadSpec,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{Caller, Service, file_id, service_test, spec},
    tenants::new_tenant,
    webhooks::local_test,
};

/// The largest message that most clients accept.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The limits of metadata.
const METADATA_BYTES_MAX: usize = 16 * 1024;
const ELEMENTS_MAX: usize = 1_000;
const DEPTH_MAX: usize = 16;

fn text(text: String) -> Value {
    Value { kind: Some(Kind::StringValue(text)) }
}

fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

fn object(value: Value) -> Struct {
    Struct { fields: BTreeMap::from([("k".to_owned(), value)]) }
}

/// Metadata of exactly this encoded size.
fn metadata_of_bytes(bytes: usize) -> Struct {
    // Short of the size by enough that the lengths of all fields take as many bytes as in the result.
    let short = bytes - 100;
    let overhead = object(text("x".repeat(short))).encoded_len() - short;
    let metadata = object(text("x".repeat(bytes - overhead)));
    assert_eq!(metadata.encoded_len(), bytes);
    metadata
}

/// Metadata with this number of elements: a field with a list, and the values of the list.
fn metadata_of_elements(count: usize) -> Struct {
    object(list(vec![Value { kind: Some(Kind::NullValue(0)) }; count - 1]))
}

/// Metadata of this depth: structs and lists in turn.
fn metadata_of_depth(depth: usize) -> Struct {
    let mut value = text("innermost".to_owned());
    for level in 1..depth {
        value = match level % 2 {
            0 => list(vec![value]),
            _ => Value { kind: Some(Kind::StructValue(object(value))) },
        };
    }
    object(value)
}

/// Returns a spec in which every text and every list is as large as allowed. Characters have four bytes.
fn largest_spec(number: usize) -> UploadSpec {
    let unique = |index: usize, length: usize| format!("{index:03}{}", "𝄞".repeat(length - 3));
    UploadSpec {
        title: "𝄞".repeat(255),
        description: "x".repeat(4_096),
        tags: (0..50).map(|index| unique(index, 64)).collect(),
        metadata: Some(metadata_of_bytes(METADATA_BYTES_MAX)),
        attachments: (0..100)
            .map(|index| EntityRef {
                r#type: "x".repeat(64), id: unique(index, 255), field: "𝄞".repeat(64)
            })
            .collect(),
        ..spec(&unique(number, 255))
    }
}

/// Uploads files at their limits and returns their ids, in order.
async fn upload_largest_files(caller: &Caller, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(file_id(&caller.upload(largest_spec(number), b"").await.unwrap()));
    }
    ids
}

fn ids(files: &[File]) -> Vec<String> {
    files.iter().map(|file| file.id.clone()).collect()
}

#[test]
fn pages_of_large_files_return_each_file_once() {
    service_test(|s| async move {
        let alice = s.alice();
        let mut expected = upload_largest_files(&alice, 60).await;
        for (order_by, view, pages_min) in [
            ("name", FileView::Full, 3),
            ("create_time desc", FileView::Full, 3),
            ("name", FileView::Basic, 1),
        ] {
            let mut request = ListFilesRequest {
                page_size: 1_000,
                view: view.into(),
                order_by: order_by.to_owned(),
                ..ListFilesRequest::default()
            };
            let (mut listed, mut page_count) = (Vec::new(), 0);
            loop {
                let page = alice.list(request.clone()).await.unwrap();
                assert!(page.encoded_len() <= RESPONSE_BYTES_MAX, "{} bytes", page.encoded_len());
                assert!(!page.files.is_empty());
                assert!(
                    page.files.iter().all(|file| view == FileView::Basic || file.attachments.len() == 100)
                );
                listed.extend(ids(&page.files));
                page_count += 1;
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            if order_by.ends_with("desc") {
                listed.reverse();
            }
            assert!(page_count >= pages_min, "{page_count} pages {order_by} in view {view:?}");
            expected.sort_unstable();
            let mut sorted = listed.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, expected, "{order_by}");
            assert_eq!(listed, expected, "the files were uploaded in the order of their names and ids");
        }
    });
}

#[test]
fn batch_of_large_files_lists_unread_files() {
    service_test(|s| async move {
        let alice = s.alice();
        let mut expected = upload_largest_files(&alice, 99).await;
        let missing = "0198c0de-7777-7000-8000-00000000abcd".to_owned();
        expected.reverse();
        let mut requested = [&expected[..50], std::slice::from_ref(&missing), &expected[50..]].concat();
        let (mut read, mut response_count) = (Vec::new(), 0);
        while !requested.is_empty() {
            let request = BatchGetFilesRequest { file_ids: requested, view: FileView::Full.into() };
            let response = alice.files.clone().batch_get_files(request).await.unwrap().into_inner();
            assert!(response.encoded_len() <= RESPONSE_BYTES_MAX, "{} bytes", response.encoded_len());
            assert!(!response.files.is_empty());
            let is_first = response_count == 0;
            assert_eq!(response.missing_file_ids, vec![missing.clone(); usize::from(is_first)]);
            read.extend(ids(&response.files));
            assert_eq!(response.unread_file_ids, expected[read.len()..], "in the order of the request");
            requested = response.unread_file_ids;
            response_count += 1;
        }
        assert_eq!(read, expected);
        assert!(response_count >= 4, "{response_count} responses");

        // A read of this metadata logs an error, which fails the test: records are read in batches of 64.
        let last = &expected[expected.len() - 1];
        let damage = format!("UPDATE files SET metadata = '{{\"n\": 1e400}}' WHERE id = '{last}'");
        s.superuser.execute(&damage).await;
        let request = BatchGetFilesRequest { file_ids: expected.clone(), view: FileView::Full.into() };
        let full = alice.files.clone().batch_get_files(request).await.unwrap().into_inner();
        assert!(full.files.len() < 64, "{} records", full.files.len());
        s.superuser.execute("UPDATE files SET metadata = '{}'").await;

        let request = BatchGetFilesRequest { file_ids: expected, view: FileView::Basic.into() };
        let basic = alice.files.clone().batch_get_files(request).await.unwrap().into_inner();
        assert_eq!((basic.files.len(), basic.unread_file_ids.len()), (99, 0), "a small record fits");
    });
}

#[test]
fn metadata_is_read_only_to_be_returned() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"").await.unwrap());
        // A read of this metadata logs an error, which fails the test.
        s.superuser.execute("UPDATE files SET metadata = '{\"n\": 1e400}'").await;
        for (view, name_prefix, count) in
            [(FileView::Basic, "", 1), (FileView::Basic, "a", 1), (FileView::Full, "b", 0)]
        {
            let filter = Some(FileFilter { name_prefix: name_prefix.to_owned(), ..FileFilter::default() });
            let request = ListFilesRequest { view: view.into(), filter, ..ListFilesRequest::default() };
            let files = alice.list(request).await.unwrap().files;
            assert_eq!(files.len(), count, "{view:?} {name_prefix}");
            assert!(files.iter().all(|file| file.state() == FileState::Available), "{files:?}");
        }
        let request = BatchGetFilesRequest { file_ids: vec![id], view: FileView::Basic.into() };
        let batch = alice.files.clone().batch_get_files(request).await.unwrap().into_inner();
        assert_eq!(batch.files[0].state(), FileState::Available);
        s.superuser.execute("UPDATE files SET metadata = '{}'").await;
    });
}

/// Reads all pages, of which none is larger than 4 MiB. `read` returns the ids and the token of a page, and
/// the encoded size of its response.
async fn walk<F>(mut read: F) -> (Vec<String>, usize)
where
    F: AsyncFnMut(String) -> (Vec<String>, String, usize),
{
    let (mut listed, mut page_token, mut page_count) = (Vec::new(), String::new(), 0);
    loop {
        let (ids, next_page_token, bytes) = read(page_token).await;
        assert!(!ids.is_empty() && bytes <= RESPONSE_BYTES_MAX, "{} records, {bytes} bytes", ids.len());
        listed.extend(ids);
        page_count += 1;
        if next_page_token.is_empty() {
            return (listed, page_count);
        }
        page_token = next_page_token;
    }
}

/// Makes a text of five records so large that two of them fit on a page.
async fn enlarge(s: &Service, table: &str, assignment: &str) {
    s.superuser.execute_without_triggers(table, &format!("UPDATE {table} SET {assignment}")).await;
}

const LARGE: &str = "repeat('x', 1400000)";

#[test]
fn pages_of_large_versions_return_each_version_once() {
    service_test(|s| async move {
        let alice = s.alice();
        let file_id = file_id(&alice.upload(spec("a"), b"").await.unwrap());
        for _ in 1..5 {
            alice.upload_version(&file_id, b"").await.unwrap();
        }
        enlarge(&s, "versions", &format!("change_description = {LARGE}")).await;
        let (listed, page_count) = walk(async |page_token| {
            let request = ListFileVersionsRequest { file_id: file_id.clone(), page_size: 1_000, page_token };
            let page = alice.files.clone().list_file_versions(request).await.unwrap().into_inner();
            let bytes = page.encoded_len();
            (page.versions.iter().map(|one| one.version.to_string()).collect(), page.next_page_token, bytes)
        })
        .await;
        assert_eq!((listed, page_count), (["5", "4", "3", "2", "1"].map(str::to_owned).to_vec(), 3));
    });
}

#[test]
fn pages_of_large_uploads_return_each_upload_once() {
    service_test(|s| async move {
        let alice = s.alice();
        let mut expected = Vec::new();
        for _ in 0..5 {
            expected.push(alice.create_upload(spec("a")).await.unwrap().id);
        }
        enlarge(
            &s,
            "uploads",
            &format!("spec = jsonb_set(spec, '{{checked,destination,NewFile,name}}', to_jsonb({LARGE}))"),
        )
        .await;
        let (listed, page_count) = walk(async |page_token| {
            let request = ListUploadsRequest { page_size: 1_000, page_token };
            let page = alice.uploads.clone().list_uploads(request).await.unwrap().into_inner();
            let bytes = page.encoded_len();
            (page.uploads.into_iter().map(|one| one.id).collect(), page.next_page_token, bytes)
        })
        .await;
        assert_eq!((&listed, page_count), (&expected, 3));
        for id in listed {
            alice.cancel_upload(&id).await.unwrap();
        }
    });
}

#[test]
fn pages_of_large_webhooks_return_each_webhook_once() {
    service_test(|s| async move {
        let mut expected = Vec::new();
        for number in 0..5 {
            expected.push(s.create_webhook_to(&format!("https://hooks{number}.example.org/")).await.0);
        }
        enlarge(&s, "webhooks", &format!("last_error = {LARGE}")).await;
        let (listed, page_count) = walk(async |page_token| {
            let request = ListWebhooksRequest { page_size: 1_000, page_token };
            let page = s.ada().webhooks.list_webhooks(request).await.unwrap().into_inner();
            let bytes = page.encoded_len();
            (page.webhooks.into_iter().map(|one| one.id).collect(), page.next_page_token, bytes)
        })
        .await;
        assert_eq!((listed, page_count), (expected, 3));
    });
}

#[test]
fn pages_of_large_deliveries_return_each_delivery_once() {
    local_test(
        |config| config.attempts_max = 1,
        |s, receiver| async move {
            let (webhook_id, _) = s.create_webhook_to(&receiver.url).await;
            receiver.respond_with(&[500; 5]);
            let mut expected = s.upload_files(&["a", "b", "c", "d", "e"]).await;
            expected.reverse();
            assert_eq!(s.deliver_all().await, 5);
            enlarge(&s, "webhook_deliveries", &format!("last_error = {LARGE}")).await;
            let (listed, page_count) = walk(async |page_token| {
                let request = ListWebhookDeliveriesRequest {
                    webhook_id: webhook_id.clone(),
                    page_size: 1_000,
                    page_token,
                };
                let page = s.ada().webhooks.list_webhook_deliveries(request).await.unwrap().into_inner();
                let bytes = page.encoded_len();
                (page.deliveries.into_iter().map(|one| one.file_id).collect(), page.next_page_token, bytes)
            })
            .await;
            assert_eq!((listed, page_count), (expected, 3));
        },
    );
}

#[test]
fn pages_of_large_tenants_return_each_tenant_once() {
    service_test(|s| async move {
        let operator = s.operator();
        let mut expected = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            expected.push(operator.create_tenant(new_tenant(name)).await.unwrap().id);
        }
        enlarge(&s, "tenants", &format!("state_reason = {LARGE}")).await;
        let (listed, page_count) = walk(async |page_token| {
            let request = ListTenantsRequest { page_size: 1_000, page_token };
            let page = operator.tenants.clone().list_tenants(request).await.unwrap().into_inner();
            let bytes = page.encoded_len();
            (page.tenants.into_iter().map(|one| one.id).collect(), page.next_page_token, bytes)
        })
        .await;
        assert_eq!((listed, page_count), (expected, 3));
    });
}

fn violations(status: &Status) -> Vec<(String, String)> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let bad = status.get_details_bad_request().unwrap();
    bad.field_violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

#[test]
fn metadata_beyond_a_limit_is_refused_with_its_value() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = file_id(&alice.upload(spec("a"), b"").await.unwrap());
        for (accepted, refused, description) in [
            (
                metadata_of_bytes(METADATA_BYTES_MAX),
                metadata_of_bytes(METADATA_BYTES_MAX + 1),
                "must have at most 16384 encoded bytes, has 16385",
            ),
            (
                metadata_of_elements(ELEMENTS_MAX),
                metadata_of_elements(ELEMENTS_MAX + 1),
                "must have at most 1000 elements, has 1001",
            ),
            (
                metadata_of_depth(DEPTH_MAX),
                metadata_of_depth(DEPTH_MAX + 1),
                "must have at most 16 levels of nesting, has 17",
            ),
        ] {
            let with = |metadata: &Struct| UploadSpec { metadata: Some(metadata.clone()), ..spec("a") };
            let stored = alice.upload(with(&accepted), b"").await.unwrap().file.unwrap();
            assert_eq!(stored.metadata, Some(accepted.clone()), "accepted metadata is unchanged");
            let status = alice.upload(with(&refused), b"").await.unwrap_err();
            assert_eq!(violations(&status), [("spec.metadata".to_owned(), description.to_owned())]);

            let file = |metadata| File { id: id.clone(), metadata: Some(metadata), ..File::default() };
            alice.update(file(accepted), &["metadata"]).await.unwrap();
            let status = alice.update(file(refused), &["metadata"]).await.unwrap_err();
            assert_eq!(violations(&status), [("file.metadata".to_owned(), description.to_owned())]);
        }
    });
}

#[test]
fn all_violations_of_metadata_are_reported_together() {
    service_test(|s| async move {
        let mut metadata = metadata_of_depth(20);
        metadata.fields.insert("large".to_owned(), text("x".repeat(METADATA_BYTES_MAX)));
        metadata.fields.insert("nan".to_owned(), Value { kind: Some(Kind::NumberValue(f64::NAN)) });
        metadata.fields.insert("many".to_owned(), list(vec![Value { kind: None }; ELEMENTS_MAX]));
        let bytes = metadata.encoded_len();
        let spec = UploadSpec { metadata: Some(metadata), ..spec("a") };
        let status = s.alice().upload(spec, b"").await.unwrap_err();
        let descriptions: Vec<String> =
            violations(&status).into_iter().map(|(_, description)| description).collect();
        let expected = [
            format!("must have at most 16384 encoded bytes, has {bytes}"),
            "must have at most 1000 elements, has 1023".to_owned(),
            "must have at most 16 levels of nesting, has 20".to_owned(),
            "must not contain infinite numbers or NaN".to_owned(),
        ];
        assert_eq!(descriptions, expected);
    });
}
