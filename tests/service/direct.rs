//! Direct uploads, by the URLs of a store that stands in this process: what they are refused for, and what nobody reads.
//! Further versions are in `direct_versions.rs`, real URLs in `tests/e2e/direct.rs`.

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
        Caller, Direct, PART, Service, direct_test, pattern, reason, service_test, sha256, spec,
        violated_fields,
    },
};

/// One piece, and three parts.
const SIZES: [usize; 2] = [1_000, 2 * PART + 7];

fn sized(name: &str, size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec(name) }
}

fn png(size: usize) -> Vec<u8> {
    let mut bytes = pattern(size);
    bytes[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    bytes
}

/// A file that nobody has verified yet.
async fn processing(s: &Service, caller: &Caller, spec: UploadSpec, bytes: &[u8]) -> String {
    let spec = UploadSpec { size_bytes: Some(bytes.len() as i64), ..spec };
    let direct = caller.create_direct(spec).await.unwrap();
    let sent = s.send(&direct, bytes).await;
    caller.complete_direct(&direct.id, &sent).await.unwrap().file.unwrap().id
}

#[test]
fn a_store_without_urls_takes_no_direct_upload_and_nothing_is_reserved() {
    service_test(|s| async move {
        let alice = s.alice();
        let refused = alice.create_direct(sized("a.bin", 1000)).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::FailedPrecondition, "DIRECT_UPLOAD_UNSUPPORTED".to_owned())
        );
        assert!(refused.message().contains("UploadFile"), "{refused:?}");
        assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
    });
}

#[test]
fn a_direct_upload_needs_a_size_that_its_parts_can_have_and_all_that_is_wrong_is_named() {
    direct_test(|s| async move {
        let alice = s.alice();
        let nameless = UploadSpec::default();
        let too_large = UploadSpec { size_bytes: Some(1001 * (5 << 30)), ..UploadSpec::default() };
        let negative = UploadSpec { size_bytes: Some(-1), ..UploadSpec::default() };
        for bad in [nameless, too_large, negative] {
            let refused = alice.create_direct(bad).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            let mut fields = violated_fields(&refused);
            fields.sort();
            assert_eq!(fields, ["spec.name", "spec.size_bytes"]);
        }
        assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
    });
}

#[test]
fn one_request_id_is_one_direct_upload_with_fresh_urls_and_no_other_kind_of_upload() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = "0198c0de-0000-7000-8000-000000000001".to_owned();
        let asked = UploadSpec { request_id: id, ..sized("a.bin", 2 * PART + 7) };
        let mut created = Vec::new();
        let at_once = (0..8).map(|_| alice.create_direct(asked.clone()));
        for answer in futures::future::join_all(at_once).await {
            match answer {
                Ok(direct) => created.push(direct),
                Err(busy) => assert_eq!(reason(&busy), "REQUEST_IN_PROGRESS"),
            }
        }
        let first = alice.create_direct(asked.clone()).await.unwrap();
        assert_eq!(first.parts.len(), 3);
        assert!(created.iter().all(|direct| direct.id == first.id), "{created:?}");
        // What those made who came too late goes with them.
        let multiparts = s.store.list_multiparts("", None, 10).await.unwrap().multiparts;
        assert_eq!(multiparts.len(), 1, "{multiparts:?}");
        assert_eq!(alice.quota().await.unwrap().reserved_bytes, asked.size_bytes.unwrap());
        assert_eq!(reason(&alice.create(asked).await.unwrap_err()), "REQUEST_ID_REUSED");
        alice.cancel(&first.id).await.unwrap();
    });
}

#[test]
fn an_upload_through_the_service_has_no_urls_and_takes_no_parts() {
    service_test(|s| async move {
        let alice = s.alice();
        let upload_id = alice.create(spec("a.bin")).await.unwrap().id;
        let parts = [CompletedPart { number: 1, etag: "x".to_owned() }];
        let refused = alice.complete_direct(&upload_id, &parts).await.unwrap_err();
        assert_eq!(reason(&refused), "UPLOAD_NOT_DIRECT");
        let request = GetUploadRequest { upload_id: upload_id.clone(), with_urls: true };
        let refused = alice.uploads.clone().get_upload(request).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::FailedPrecondition, "UPLOAD_NOT_DIRECT".to_owned())
        );
        alice.cancel(&upload_id).await.unwrap();
    });
}

#[test]
fn the_bytes_of_a_direct_upload_do_not_come_through_the_service() {
    direct_test(|s| async move {
        let alice = s.alice();
        let direct = alice.create_direct(sized("a.bin", 4)).await.unwrap();
        for refused in [
            alice.go_on(&direct.id, b"four", 0, true).await.unwrap_err(),
            alice.part(&direct.id, 0, b"four").await.unwrap_err(),
        ] {
            assert_eq!(
                (refused.code(), reason(&refused)),
                (Code::FailedPrecondition, "UPLOAD_IS_DIRECT".to_owned())
            );
        }
        let sent = s.send(&direct, b"four").await;
        alice.complete_direct(&direct.id, &sent).await.unwrap();
        worker::run_due_jobs(&s.app).await;
    });
}

#[test]
fn urls_are_their_creators_alone_while_the_upload_is_open() {
    direct_test(|s| async move {
        let alice = s.alice();
        let direct = alice.create_direct(sized("a.bin", 2 * PART + 7)).await.unwrap();
        assert_eq!(alice.urls(&direct.id).await.unwrap().len(), 3);
        assert_eq!(s.ada().upload_at(&direct.id).await.unwrap().id, direct.id, "an admin sees it");
        let random = uuid::Uuid::from_u128(7).to_string();
        for (other, id) in
            [(s.bob(), &direct.id), (s.ada(), &direct.id), (s.gus(), &direct.id), (alice.clone(), &random)]
        {
            assert_eq!(other.urls(id).await.unwrap_err().code(), Code::NotFound);
            assert_eq!(other.complete_direct(id, &[]).await.unwrap_err().code(), Code::NotFound);
        }
        let sent = s.send(&direct, &pattern(2 * PART + 7)).await;
        alice.complete_direct(&direct.id, &sent).await.unwrap();
        assert!(alice.urls(&direct.id).await.unwrap().is_empty(), "it is a file");
        assert_eq!(s.put(&direct.parts[0], b"late").await, Err(StorageErrorKind::NotFound));
        worker::run_due_jobs(&s.app).await;
    });
}

#[test]
fn what_is_cancelled_or_was_silent_for_too_long_is_not_completed_and_leaves_nothing() {
    direct_test(|s| async move {
        for size in SIZES {
            let alice = s.alice();
            let (cancelled, silent) = (
                alice.create_direct(sized("a.bin", size)).await.unwrap(),
                alice.create_direct(sized("b.bin", size)).await.unwrap(),
            );
            let sent = s.send(&cancelled, &pattern(size)).await;
            s.send(&silent, &pattern(size)).await;
            alice.cancel(&cancelled.id).await.unwrap();
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, size as i64);
            s.clock.advance(Duration::hours(25));
            let alice = s.alice();
            for gone in [&cancelled, &silent] {
                assert_eq!(alice.urls(&gone.id).await.unwrap_err().code(), Code::NotFound);
                assert_eq!(alice.complete_direct(&gone.id, &sent).await.unwrap_err().code(), Code::NotFound);
            }
            expire_uploads(&s.app).await.unwrap();
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
        }
        assert!(s.store.list("", None, 10).await.unwrap().objects.is_empty());
    });
}

/// Completes with these parts; answers the reason and the violated fields of the refusal.
async fn refused(caller: &Caller, direct: &Direct, parts: &[CompletedPart]) -> (String, Vec<String>) {
    let refused = caller.complete_direct(&direct.id, parts).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let fields = if reason(&refused) == "INVALID_FIELD" { violated_fields(&refused) } else { Vec::new() };
    (reason(&refused), fields)
}

fn invalid(fields: &[&str]) -> (String, Vec<String>) {
    ("INVALID_FIELD".to_owned(), fields.iter().map(|field| (*field).to_owned()).collect())
}

#[test]
fn one_piece_is_completed_when_it_is_there_and_as_large_as_was_said() {
    direct_test(|s| async move {
        let alice = s.alice();
        let direct = alice.create_direct(sized("a.bin", 1000)).await.unwrap();
        assert_eq!(refused(&alice, &direct, &[]).await, invalid(&["upload_id"]), "nothing was sent");
        for size in [999, 1001] {
            s.put(&direct.parts[0], &pattern(size)).await.unwrap();
            assert_eq!(refused(&alice, &direct, &[]).await.0, "SIZE_MISMATCH");
        }
        let etag = s.put(&direct.parts[0], &pattern(1000)).await.unwrap();
        let part = |number| CompletedPart { number, etag: etag.clone() };
        assert_eq!(refused(&alice, &direct, &[part(2)]).await, invalid(&["parts[0].number"]));
        assert_eq!(refused(&alice, &direct, &[part(1), part(1)]).await, invalid(&["parts[1].number"]));
        assert_eq!(s.store.list("", None, 10).await.unwrap().objects.len(), 1, "what was sent, and no copy");
        let id = alice.complete_direct(&direct.id, &[part(1)]).await.unwrap().file.unwrap().id;
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.read(&id).await.unwrap(), pattern(1000));
    });
}

#[test]
fn parts_are_completed_when_each_is_there_and_named_as_the_store_has_it() {
    direct_test(|s| async move {
        let (alice, bytes) = (s.alice(), pattern(2 * PART + 7));
        let direct = alice.create_direct(sized("a.bin", bytes.len())).await.unwrap();
        assert_eq!(refused(&alice, &direct, &[]).await, invalid(&["parts[0]", "parts[1]", "parts[2]"]));
        let sent = s.send(&direct, &bytes).await;
        assert_eq!(refused(&alice, &direct, &sent[..2]).await, invalid(&["parts[2]"]));
        let stale = CompletedPart { number: 2, etag: "stale".to_owned() };
        let wrong = [sent[0].clone(), stale, sent[2].clone()];
        assert_eq!(refused(&alice, &direct, &wrong).await, invalid(&["parts[1]"]));
        let unknown = |number| CompletedPart { number, etag: sent[0].etag.clone() };
        let wrong = [sent.clone(), vec![unknown(0), unknown(4), unknown(1)]].concat();
        let fields = ["parts[3].number", "parts[4].number", "parts[5].number"];
        assert_eq!(refused(&alice, &direct, &wrong).await, invalid(&fields));

        s.put(&direct.parts[2], b"short").await.unwrap();
        assert_eq!(refused(&alice, &direct, &sent).await.0, "SIZE_MISMATCH");
        let etag = s.put(&direct.parts[2], &bytes[2 * PART..]).await.unwrap();
        let sent = [sent[0].clone(), sent[1].clone(), CompletedPart { number: 3, etag }];
        // A part that comes again in the very moment.
        let fault = Fault::Before(StorageErrorKind::InvalidInput);
        s.faults.set_plan(Plan::new().with_fault(Operation::CompleteMultipart, 1, fault));
        assert_eq!(refused(&alice, &direct, &sent).await, invalid(&["parts"]));
        let id = alice.complete_direct(&direct.id, &sent).await.unwrap().file.unwrap().id;
        worker::run_due_jobs(&s.app).await;
        assert!(alice.read(&id).await.unwrap() == bytes);
    });
}

#[test]
fn size_and_digest_that_are_said_at_the_end_must_be_those_that_were_declared() {
    direct_test(|s| async move {
        let alice = s.alice();
        let bytes = pattern(1000);
        let declared = UploadSpec { sha256: Some(sha256(&bytes)), ..sized("a.bin", bytes.len()) };
        let direct = alice.create_direct(declared).await.unwrap();
        s.send(&direct, &bytes).await;
        let request =
            CompleteUploadRequest { upload_id: direct.id.clone(), ..CompleteUploadRequest::default() };
        for digest in [sha256(b"other"), bytes::Bytes::from_static(b"short")] {
            let wrong =
                CompleteUploadRequest { size_bytes: Some(999), sha256: Some(digest), ..request.clone() };
            let refused = alice.complete_with(wrong).await.unwrap_err();
            assert_eq!(violated_fields(&refused), ["size_bytes", "sha256"]);
        }
        let right = CompleteUploadRequest { size_bytes: Some(1000), sha256: Some(sha256(&bytes)), ..request };
        let id = alice.complete_with(right).await.unwrap().file.unwrap().id;
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.get(&id).await.unwrap().sha256, sha256(&bytes));
    });
}

#[test]
fn completing_twice_also_at_once_answers_one_file_that_is_charged_and_verified_once() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let direct = alice.create_direct(sized("a.bin", size)).await.unwrap();
            let sent = s.send(&direct, &pattern(size)).await;
            let at_once = (0..4).map(|_| alice.complete_direct(&direct.id, &sent));
            let mut answers = Vec::new();
            for answer in futures::future::join_all(at_once).await {
                match answer {
                    Ok(answer) => answers.push(answer.file.unwrap()),
                    Err(refused) => {
                        assert_eq!(refused.code(), Code::Aborted, "it may come again: {refused:?}")
                    }
                }
            }
            answers.push(alice.complete_direct(&direct.id, &sent).await.unwrap().file.unwrap());
            assert!(answers.iter().all(|file| *file == answers[0]), "{answers:?}");
            assert_eq!(worker::run_due_jobs(&s.app).await, 1);
        }
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.file_count), (SIZES.iter().sum::<usize>() as i64, 2));
    });
}

#[test]
fn a_type_that_its_category_does_not_take_and_what_is_too_large_for_its_kind_are_refused_at_the_end() {
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
                let direct = alice.create_direct(spec).await.unwrap();
                let sent = s.send(&direct, &png(size)).await;
                for _ in 0..2 {
                    let refused = alice.complete_direct(&direct.id, &sent).await.unwrap_err();
                    assert_eq!(reason(&refused), why);
                }
                alice.cancel(&direct.id).await.unwrap();
            }
        }
        assert!(s.store.list("", None, 10).await.unwrap().objects.is_empty());
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.reserved_bytes, quota.file_count), (0, 0, 0));
    });
}

#[test]
fn what_is_not_as_declared_when_it_is_read_is_never_readable_and_says_why() {
    direct_test(|s| async move {
        s.expect_lost_objects();
        s.expect_errors_in_the_log();
        let alice = s.alice();
        let others = UploadSpec { sha256: Some(sha256(b"others")), ..spec("others") };
        let others = processing(&s, &alice, others, &pattern(1000)).await;
        let mut broken = vec![(others, FileStateReason::ChecksumMismatch)];
        let replaced = [
            (None, FileStateReason::ObjectMissing),
            (Some(pattern(999)), FileStateReason::ObjectDamaged),
            (Some(png(1000)), FileStateReason::ObjectDamaged),
        ];
        for (bytes, why) in replaced {
            let id = processing(&s, &alice, spec("a"), &pattern(1000)).await;
            let key = format!(
                "SELECT storage_key FROM blobs AS b JOIN versions AS v ON v.blob_id = b.id WHERE v.file_id = '{id}'"
            );
            let key = ObjectKey::parse(&s.owner.texts(&key).await[0]).unwrap();
            s.store.delete(&key).await.unwrap();
            if let Some(bytes) = bytes {
                s.store.put(&key, vec![bytes.into()].into(), &PutOptions::default()).await.unwrap();
            }
            broken.push((id, why));
        }
        assert_eq!(worker::run_due_jobs(&s.app).await, 4);
        for (id, why) in &broken {
            let file = alice.get(id).await.unwrap();
            assert_eq!((file.state(), file.state_reason()), (FileState::Error, *why));
            alice.read(id).await.unwrap_err();
        }
        let refusals = "SELECT count(*) FROM events WHERE kind = 71";
        assert_eq!(s.owner.number(refusals).await, 4);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 4000, "charged until it is purged");
        for (id, _) in &broken {
            alice.purge(id).await.unwrap();
        }
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.file_count), (0, 0));
    });
}

#[test]
fn a_read_that_breaks_or_ends_early_says_nothing_about_the_bytes_and_is_tried_again() {
    direct_test(|s| async move {
        let (alice, bytes) = (s.alice(), pattern(1000));
        let faults = [
            Fault::Before(StorageErrorKind::Unavailable),
            Fault::CutStream { after_bytes: 500 },
            Fault::EndStream { after_bytes: 500 },
        ];
        for fault in faults {
            let id = processing(&s, &alice, spec("a.bin"), &bytes).await;
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, fault));
            assert_eq!(worker::run_due_jobs(&s.app).await, 0, "it was not done");
            assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Processing);
            assert_eq!(reason(&alice.read(&id).await.unwrap_err()), "FILE_NOT_AVAILABLE");
            s.clock.advance(Duration::minutes(10));
            assert_eq!(worker::run_due_jobs(&s.app).await, 1);
            let alice = s.alice();
            assert_eq!(alice.get(&id).await.unwrap().sha256, sha256(&bytes));
            assert_eq!(alice.read(&id).await.unwrap(), bytes);
        }
    });
}

#[test]
fn a_file_whose_category_was_removed_before_the_end_gives_its_room_and_its_bytes_back() {
    direct_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        for size in SIZES {
            let name = format!("texts_{size}");
            ada.create_category(category(&name, Visibility::Owner)).await.unwrap();
            let told = UploadSpec { category: name.clone(), ..sized("a.bin", size) };
            let direct = alice.create_direct(told).await.unwrap();
            let sent = s.send(&direct, &pattern(size)).await;
            // As a removal that did not see the upload yet.
            s.owner.run(&format!("UPDATE tenants SET policy = policy #- '{{categories,{name}}}'")).await;
            let refused = alice.complete_direct(&direct.id, &sent).await.unwrap_err();
            assert_eq!(violated_fields(&refused), ["spec.category"]);
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
            assert_eq!(alice.upload_at(&direct.id).await.unwrap_err().code(), Code::NotFound);
        }
        assert!(s.store.list("", None, 10).await.unwrap().objects.is_empty());
    });
}
