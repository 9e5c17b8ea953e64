//! Direct uploads to the URLs of an in-process store: their errors, and the verification that must precede a
//! read. `direct_versions.rs` tests new versions, `tests/e2e/direct.rs` uses real URLs.

use chrono::Duration;
use strongroom::{
    app::uploads::expire::expire_uploads,
    domain::object_key::ObjectKey,
    proto::v1::{
        Category, CompleteUploadRequest, CompletedPart, FileSizeLimits, FileState, FileStateReason,
        GetUploadRequest, Quota, UploadSpec, Visibility,
    },
    storage::{
        PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};
use tonic::Code;

use crate::{
    categories::category,
    harness::{
        Caller, DirectUpload, PART, Service, direct_test, pattern, reason, service_test, sha256, spec,
        violated_fields,
    },
};

/// The size of a single PUT, and a size of three parts.
const SIZES: [usize; 2] = [1_000, 2 * PART + 7];

fn sized(name: &str, size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec(name) }
}

fn png(size: usize) -> Vec<u8> {
    let mut bytes = pattern(size);
    bytes[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    bytes
}

/// Uploads a file and completes it. Returns its id before the file is verified.
pub(crate) async fn complete_without_verification(
    s: &Service,
    caller: &Caller,
    spec: UploadSpec,
    bytes: &[u8],
) -> String {
    let spec = UploadSpec { size_bytes: Some(bytes.len() as i64), ..spec };
    let direct = caller.create_direct_upload(spec).await.unwrap();
    let sent = s.put_parts(&direct, bytes).await;
    caller.complete_direct_upload(&direct.id, &sent).await.unwrap().file.unwrap().id
}

#[test]
fn store_without_urls_rejects_direct_upload() {
    service_test(|s| async move {
        let alice = s.alice();
        let error = alice.create_direct_upload(sized("a.bin", 1000)).await.unwrap_err();
        assert_eq!(
            (error.code(), reason(&error)),
            (Code::FailedPrecondition, "DIRECT_UPLOAD_UNSUPPORTED".to_owned())
        );
        assert!(error.message().contains("UploadFile"), "{error:?}");
        assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
    });
}

#[test]
fn direct_upload_needs_size_within_limits() {
    direct_test(|s| async move {
        let alice = s.alice();
        let nameless = UploadSpec::default();
        let too_large = UploadSpec { size_bytes: Some(1001 * (5 << 30)), ..UploadSpec::default() };
        let negative = UploadSpec { size_bytes: Some(-1), ..UploadSpec::default() };
        for bad in [nameless, too_large, negative] {
            let error = alice.create_direct_upload(bad).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            let mut fields = violated_fields(&error);
            fields.sort();
            assert_eq!(fields, ["spec.name", "spec.size_bytes"]);
        }
        assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
    });
}

#[test]
fn one_request_id_creates_one_direct_upload() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = "0198c0de-0000-7000-8000-000000000001".to_owned();
        let sized_spec = UploadSpec { request_id: id, ..sized("a.bin", 2 * PART + 7) };
        let mut created = Vec::new();
        let at_once = (0..8).map(|_| alice.create_direct_upload(sized_spec.clone()));
        for result in futures::future::join_all(at_once).await {
            match result {
                Ok(direct) => created.push(direct),
                Err(busy) => assert_eq!(reason(&busy), "REQUEST_IN_PROGRESS"),
            }
        }
        let first = alice.create_direct_upload(sized_spec.clone()).await.unwrap();
        assert_eq!(first.parts.len(), 3);
        assert!(created.iter().all(|direct| direct.id == first.id), "{created:?}");
        // The requests that lost the race abort their multipart uploads.
        let multiparts = s.store.list_multiparts("", None, 10).await.unwrap().multiparts;
        assert_eq!(multiparts.len(), 1, "{multiparts:?}");
        assert_eq!(alice.quota().await.unwrap().reserved_bytes, sized_spec.size_bytes.unwrap());
        assert_eq!(reason(&alice.create_upload(sized_spec).await.unwrap_err()), "REQUEST_ID_REUSED");
        alice.cancel_upload(&first.id).await.unwrap();
    });
}

#[test]
fn streamed_upload_has_no_urls_and_accepts_no_parts() {
    service_test(|s| async move {
        let alice = s.alice();
        let upload_id = alice.create_upload(spec("a.bin")).await.unwrap().id;
        let parts = [CompletedPart { number: 1, etag: "x".to_owned() }];
        let error = alice.complete_direct_upload(&upload_id, &parts).await.unwrap_err();
        assert_eq!(reason(&error), "UPLOAD_NOT_DIRECT");
        let request = GetUploadRequest { upload_id: upload_id.clone(), with_urls: true };
        let error = alice.uploads.clone().get_upload(request).await.unwrap_err();
        assert_eq!(
            (error.code(), reason(&error)),
            (Code::FailedPrecondition, "UPLOAD_NOT_DIRECT".to_owned())
        );
        alice.cancel_upload(&upload_id).await.unwrap();
    });
}

#[test]
fn service_rejects_bytes_of_direct_upload() {
    direct_test(|s| async move {
        let alice = s.alice();
        let direct = alice.create_direct_upload(sized("a.bin", 4)).await.unwrap();
        for error in [
            alice.resume_upload(&direct.id, b"four", 0, true).await.unwrap_err(),
            alice.upload_part(&direct.id, 0, b"four").await.unwrap_err(),
        ] {
            assert_eq!(
                (error.code(), reason(&error)),
                (Code::FailedPrecondition, "UPLOAD_IS_DIRECT".to_owned())
            );
        }
        let sent = s.put_parts(&direct, b"four").await;
        alice.complete_direct_upload(&direct.id, &sent).await.unwrap();
        worker::run_due_jobs(&s.app).await;
    });
}

#[test]
fn only_creator_gets_urls_while_upload_is_open() {
    direct_test(|s| async move {
        let alice = s.alice();
        let direct = alice.create_direct_upload(sized("a.bin", 2 * PART + 7)).await.unwrap();
        assert_eq!(alice.get_upload_urls(&direct.id).await.unwrap().len(), 3);
        assert_eq!(
            s.ada().get_upload(&direct.id).await.unwrap().id,
            direct.id,
            "an admin can see the upload"
        );
        let random = uuid::Uuid::from_u128(7).to_string();
        for (other, id) in
            [(s.bob(), &direct.id), (s.ada(), &direct.id), (s.gus(), &direct.id), (alice.clone(), &random)]
        {
            assert_eq!(other.get_upload_urls(id).await.unwrap_err().code(), Code::NotFound);
            assert_eq!(other.complete_direct_upload(id, &[]).await.unwrap_err().code(), Code::NotFound);
        }
        let sent = s.put_parts(&direct, &pattern(2 * PART + 7)).await;
        alice.complete_direct_upload(&direct.id, &sent).await.unwrap();
        assert!(
            alice.get_upload_urls(&direct.id).await.unwrap().is_empty(),
            "a completed upload has no URLs"
        );
        assert_eq!(s.put_part(&direct.parts[0], b"late").await, Err(StorageErrorKind::NotFound));
        worker::run_due_jobs(&s.app).await;
    });
}

#[test]
fn cancelled_or_expired_upload_cannot_be_completed() {
    direct_test(|s| async move {
        for size in SIZES {
            let alice = s.alice();
            let (cancelled, expired) = (
                alice.create_direct_upload(sized("a.bin", size)).await.unwrap(),
                alice.create_direct_upload(sized("b.bin", size)).await.unwrap(),
            );
            let sent = s.put_parts(&cancelled, &pattern(size)).await;
            s.put_parts(&expired, &pattern(size)).await;
            alice.cancel_upload(&cancelled.id).await.unwrap();
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, size as i64);
            s.clock.advance(Duration::hours(25));
            let alice = s.alice();
            for upload in [&cancelled, &expired] {
                assert_eq!(alice.get_upload_urls(&upload.id).await.unwrap_err().code(), Code::NotFound);
                assert_eq!(
                    alice.complete_direct_upload(&upload.id, &sent).await.unwrap_err().code(),
                    Code::NotFound
                );
            }
            expire_uploads(&s.app).await.unwrap();
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
        }
        assert!(s.store.list("", None, 10).await.unwrap().objects.is_empty());
    });
}

/// Completes with these parts, which must fail. Returns the error reason and the violated fields.
async fn completion_error(
    caller: &Caller,
    direct: &DirectUpload,
    parts: &[CompletedPart],
) -> (String, Vec<String>) {
    let rejected = caller.complete_direct_upload(&direct.id, parts).await.unwrap_err();
    assert_eq!(rejected.code(), Code::InvalidArgument);
    let fields = if reason(&rejected) == "INVALID_FIELD" { violated_fields(&rejected) } else { Vec::new() };
    (reason(&rejected), fields)
}

fn invalid_fields(fields: &[&str]) -> (String, Vec<String>) {
    ("INVALID_FIELD".to_owned(), fields.iter().map(|field| (*field).to_owned()).collect())
}

#[test]
fn single_put_is_completed_if_size_matches() {
    direct_test(|s| async move {
        let alice = s.alice();
        let direct = alice.create_direct_upload(sized("a.bin", 1000)).await.unwrap();
        assert_eq!(
            completion_error(&alice, &direct, &[]).await,
            invalid_fields(&["upload_id"]),
            "nothing was sent"
        );
        for size in [999, 1001] {
            s.put_part(&direct.parts[0], &pattern(size)).await.unwrap();
            assert_eq!(completion_error(&alice, &direct, &[]).await.0, "SIZE_MISMATCH");
            let objects = s.store.list("", None, 10).await.unwrap().objects;
            assert!(objects.is_empty(), "the object of the wrong size is deleted at once: {objects:?}");
        }
        let etag = s.put_part(&direct.parts[0], &pattern(1000)).await.unwrap();
        let part = |number| CompletedPart { number, etag: etag.clone() };
        assert_eq!(completion_error(&alice, &direct, &[part(2)]).await, invalid_fields(&["parts[0].number"]));
        assert_eq!(
            completion_error(&alice, &direct, &[part(1), part(1)]).await,
            invalid_fields(&["parts[1].number"])
        );
        assert_eq!(
            s.store.list("", None, 10).await.unwrap().objects.len(),
            1,
            "there is one object and no copy"
        );
        let id = alice.complete_direct_upload(&direct.id, &[part(1)]).await.unwrap().file.unwrap().id;
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.read(&id).await.unwrap(), pattern(1000));
    });
}

#[test]
fn parts_are_completed_if_numbers_and_etags_match() {
    direct_test(|s| async move {
        let (alice, bytes) = (s.alice(), pattern(2 * PART + 7));
        let direct = alice.create_direct_upload(sized("a.bin", bytes.len())).await.unwrap();
        assert_eq!(
            completion_error(&alice, &direct, &[]).await,
            invalid_fields(&["parts[0]", "parts[1]", "parts[2]"])
        );
        let sent = s.put_parts(&direct, &bytes).await;
        assert_eq!(completion_error(&alice, &direct, &sent[..2]).await, invalid_fields(&["parts[2]"]));
        let stale = CompletedPart { number: 2, etag: "stale".to_owned() };
        let wrong = [sent[0].clone(), stale, sent[2].clone()];
        assert_eq!(completion_error(&alice, &direct, &wrong).await, invalid_fields(&["parts[1]"]));
        let unknown = |number| CompletedPart { number, etag: sent[0].etag.clone() };
        let wrong = [sent.clone(), vec![unknown(0), unknown(4), unknown(1)]].concat();
        let fields = ["parts[3].number", "parts[4].number", "parts[5].number"];
        assert_eq!(completion_error(&alice, &direct, &wrong).await, invalid_fields(&fields));

        s.put_part(&direct.parts[2], b"short").await.unwrap();
        assert_eq!(completion_error(&alice, &direct, &sent).await.0, "SIZE_MISMATCH");
        let etag = s.put_part(&direct.parts[2], &bytes[2 * PART..]).await.unwrap();
        let sent = [sent[0].clone(), sent[1].clone(), CompletedPart { number: 3, etag }];
        // The store rejects the completion, as if a part was replaced at the same moment.
        let fault = Fault::Before(StorageErrorKind::PartsDiffer);
        s.faults.set_plan(Plan::new().with_fault(Operation::CompleteMultipart, 1, fault));
        assert_eq!(completion_error(&alice, &direct, &sent).await, invalid_fields(&["parts"]));
        let id = alice.complete_direct_upload(&direct.id, &sent).await.unwrap().file.unwrap().id;
        worker::run_due_jobs(&s.app).await;
        assert!(alice.read(&id).await.unwrap() == bytes);
    });
}

#[test]
fn completion_rejects_other_size_or_digest_than_declared() {
    direct_test(|s| async move {
        let alice = s.alice();
        let bytes = pattern(1000);
        let declared = UploadSpec { sha256: Some(sha256(&bytes)), ..sized("a.bin", bytes.len()) };
        let direct = alice.create_direct_upload(declared).await.unwrap();
        s.put_parts(&direct, &bytes).await;
        let request =
            CompleteUploadRequest { upload_id: direct.id.clone(), ..CompleteUploadRequest::default() };
        for digest in [sha256(b"other"), bytes::Bytes::from_static(b"short")] {
            let wrong =
                CompleteUploadRequest { size_bytes: Some(999), sha256: Some(digest), ..request.clone() };
            let error = alice.complete_upload_with(wrong).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["size_bytes", "sha256"]);
        }
        let right = CompleteUploadRequest { size_bytes: Some(1000), sha256: Some(sha256(&bytes)), ..request };
        let id = alice.complete_upload_with(right).await.unwrap().file.unwrap().id;
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.get(&id).await.unwrap().sha256, sha256(&bytes));
    });
}

#[test]
fn concurrent_completions_charge_and_verify_one_file() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let direct = alice.create_direct_upload(sized("a.bin", size)).await.unwrap();
            let sent = s.put_parts(&direct, &pattern(size)).await;
            let at_once = (0..4).map(|_| alice.complete_direct_upload(&direct.id, &sent));
            let mut files = Vec::new();
            for result in futures::future::join_all(at_once).await {
                match result {
                    Ok(response) => files.push(response.file.unwrap()),
                    Err(error) => {
                        assert_eq!(error.code(), Code::Aborted, "the caller may retry: {error:?}")
                    }
                }
            }
            files.push(alice.complete_direct_upload(&direct.id, &sent).await.unwrap().file.unwrap());
            assert!(files.iter().all(|file| *file == files[0]), "{files:?}");
            assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        }
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.file_count), (SIZES.iter().sum::<usize>() as i64, 2));
    });
}

#[test]
fn completion_rejects_wrong_type_and_too_large_file() {
    direct_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let texts = Category { types: vec!["text/plain".to_owned()], ..category("texts", Visibility::Owner) };
        ada.create_category(texts).await.unwrap();
        let limits = FileSizeLimits { image_bytes: 999, ..FileSizeLimits::default() };
        let quota = Quota { file_size_max_bytes: Some(limits), ..Quota::default() };
        ada.update_quota("", quota, &["file_size_max_bytes.image_bytes"]).await.unwrap();
        for size in SIZES {
            let text = UploadSpec { category: "texts".to_owned(), ..sized("a.txt", size) };
            for (spec, why) in [(text, "INVALID_FIELD"), (sized("a", size), "FILE_TOO_LARGE")] {
                let direct = alice.create_direct_upload(spec).await.unwrap();
                let sent = s.put_parts(&direct, &png(size)).await;
                for _ in 0..2 {
                    let error = alice.complete_direct_upload(&direct.id, &sent).await.unwrap_err();
                    assert_eq!(reason(&error), why);
                }
                alice.cancel_upload(&direct.id).await.unwrap();
            }
        }
        assert!(s.store.list("", None, 10).await.unwrap().objects.is_empty());
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.reserved_bytes, quota.file_count), (0, 0, 0));
    });
}

#[test]
fn file_that_fails_verification_is_unreadable_with_reason() {
    direct_test(|s| async move {
        s.allow_lost_objects();
        s.allow_logged_errors();
        let alice = s.alice();
        let others = UploadSpec { sha256: Some(sha256(b"others")), ..spec("others") };
        let others = complete_without_verification(&s, &alice, others, &pattern(1000)).await;
        let mut broken = vec![(others, FileStateReason::ChecksumMismatch)];
        let replaced = [
            (None, FileStateReason::ObjectMissing),
            (Some(pattern(999)), FileStateReason::ObjectDamaged),
            (Some(png(1000)), FileStateReason::ObjectDamaged),
        ];
        for (bytes, why) in replaced {
            let id = complete_without_verification(&s, &alice, spec("a"), &pattern(1000)).await;
            let key = format!(
                "SELECT storage_key FROM blobs AS b JOIN versions AS v ON v.blob_id = b.id WHERE v.file_id = '{id}'"
            );
            let key = ObjectKey::parse(&s.superuser.query_texts(&key).await[0]).unwrap();
            s.store.delete(&key).await.unwrap();
            if let Some(bytes) = bytes {
                s.store.put(&key, vec![bytes.into()].into(), &PutOptions::default()).await.unwrap();
            }
            broken.push((id, why));
        }
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 4);
        for (id, why) in &broken {
            let file = alice.get(id).await.unwrap();
            assert_eq!((file.state(), file.state_reason()), (FileState::Error, *why));
            alice.read(id).await.unwrap_err();
        }
        let refusals = "SELECT count(*) FROM events WHERE kind = {event_kind.file_refused}";
        assert_eq!(s.superuser.query_number(refusals).await, 4);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 4000, "charged until it is purged");
        for (id, _) in &broken {
            alice.purge(id).await.unwrap();
        }
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.file_count), (0, 0));
    });
}

#[test]
fn verification_is_retried_after_broken_read() {
    direct_test(|s| async move {
        let (alice, bytes) = (s.alice(), pattern(1000));
        let faults = [
            Fault::Before(StorageErrorKind::Unavailable),
            Fault::CutStream { after_bytes: 500 },
            Fault::EndStream { after_bytes: 500 },
        ];
        for fault in faults {
            let id = complete_without_verification(&s, &alice, spec("a.bin"), &bytes).await;
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, fault));
            assert_eq!(worker::run_due_jobs(&s.app).await.done, 0, "the verification fails");
            assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Processing);
            assert_eq!(reason(&alice.read(&id).await.unwrap_err()), "FILE_NOT_AVAILABLE");
            s.clock.advance(Duration::minutes(10));
            assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
            let alice = s.alice();
            assert_eq!(alice.get(&id).await.unwrap().sha256, sha256(&bytes));
            assert_eq!(alice.read(&id).await.unwrap(), bytes);
        }
    });
}

#[test]
fn completion_into_deleted_category_releases_reservation() {
    direct_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        for size in SIZES {
            let name = format!("texts_{size}");
            ada.create_category(category(&name, Visibility::Owner)).await.unwrap();
            let spec = UploadSpec { category: name.clone(), ..sized("a.bin", size) };
            let direct = alice.create_direct_upload(spec).await.unwrap();
            let sent = s.put_parts(&direct, &pattern(size)).await;
            // Simulates a deletion that does not see the upload.
            s.superuser
                .execute(&format!("UPDATE tenants SET policy = policy #- '{{categories,{name}}}'"))
                .await;
            let error = alice.complete_direct_upload(&direct.id, &sent).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["spec.category"]);
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
            assert_eq!(alice.get_upload(&direct.id).await.unwrap_err().code(), Code::NotFound);
        }
        assert!(s.store.list("", None, 10).await.unwrap().objects.is_empty());
    });
}
