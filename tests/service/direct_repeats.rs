//! Direct uploads that are completed again: with the same content, which returns the same file, or with another one.

use strongroom::{
    proto::v1::{CompleteUploadRequest, CompletedPart, UploadSpec},
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{DirectUpload, PART, direct_test, pattern, reason, sha256, spec, violated_fields};

/// The size of a single PUT, and a size of three parts.
const SIZES: [usize; 2] = [1_000, 2 * PART + 7];

fn sized(size: usize) -> UploadSpec {
    UploadSpec { size_bytes: Some(size as i64), ..spec("a.bin") }
}

fn request_for(direct: &DirectUpload, parts: &[CompletedPart]) -> CompleteUploadRequest {
    CompleteUploadRequest { upload_id: direct.id.clone(), parts: parts.to_vec(), ..Default::default() }
}

/// Returns the parts with another etag of the last one.
fn with_other_etag(parts: &[CompletedPart]) -> Vec<CompletedPart> {
    let (last, rest) = parts.split_last().unwrap();
    let other = CompletedPart { number: last.number, etag: "another".to_owned() };
    [rest, &[other]].concat()
}

fn assert_part_differs(error: &Status, sent: &[CompletedPart]) {
    let number = sent.last().unwrap().number;
    assert_eq!(
        (error.code(), reason(error).as_str()),
        (Code::InvalidArgument, "CHECKSUM_MISMATCH"),
        "{error:?}"
    );
    assert_eq!(error.get_details_error_info().unwrap().metadata["part_number"], number.to_string());
}

#[test]
fn direct_upload_is_completed_again_only_as_the_same_file() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let bytes = pattern(size);
            let direct = alice.create_direct_upload(sized(size)).await.unwrap();
            let sent = s.put_parts(&direct, &bytes).await;
            let named = CompleteUploadRequest { sha256: Some(sha256(&bytes)), ..request_for(&direct, &sent) };
            let file = alice.complete_upload_with(named.clone()).await.unwrap().file.unwrap();
            for is_verified in [false, true] {
                if is_verified {
                    assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
                }
                let complete = async |request: CompleteUploadRequest| {
                    alice.complete_upload_with(request).await.map(|response| response.file.unwrap().id)
                };
                let quoted: Vec<_> = sent
                    .iter()
                    .map(|part| CompletedPart { etag: format!("\"{}\"", part.etag), ..part.clone() })
                    .collect();
                for parts in [&sent[..], &quoted[..], &sent[..1], &sent[..0]] {
                    assert_eq!(complete(request_for(&direct, parts)).await.unwrap(), file.id, "{parts:?}");
                }
                assert_eq!(complete(named.clone()).await.unwrap(), file.id);

                let error = complete(request_for(&direct, &with_other_etag(&sent))).await.unwrap_err();
                assert_part_differs(&error, &sent);
                let other_digest = CompleteUploadRequest { sha256: Some(sha256(b"x")), ..named.clone() };
                assert_eq!(reason(&complete(other_digest).await.unwrap_err()), "CHECKSUM_MISMATCH");
                let other_size = CompleteUploadRequest { size_bytes: Some(1), ..named.clone() };
                assert_eq!(reason(&complete(other_size).await.unwrap_err()), "SIZE_MISMATCH");
                let number = sent.last().unwrap().number + 1;
                let unknown = CompletedPart { number, etag: "x".to_owned() };
                let error = complete(request_for(&direct, &[unknown])).await.unwrap_err();
                assert_eq!(violated_fields(&error), ["parts[0].number"]);
            }
            assert!(alice.read(&file.id).await.unwrap() == bytes);
        }
        assert_eq!(alice.quota().await.unwrap().file_count, 2);
    });
}

/// Asserts that the digest is refused because nothing can be compared with it.
fn assert_digest_unknown(error: &Status, state: &str) {
    assert_eq!(
        (error.code(), reason(error).as_str()),
        (Code::FailedPrecondition, "FILE_NOT_AVAILABLE"),
        "{error:?}"
    );
    assert_eq!(error.get_details_error_info().unwrap().metadata["state"], state);
}

#[test]
fn digest_that_comes_later_is_never_ignored() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let bytes = pattern(size);
            let direct = alice.create_direct_upload(sized(size)).await.unwrap();
            let sent = s.put_parts(&direct, &bytes).await;
            let unnamed = request_for(&direct, &sent);
            let file = alice.complete_upload_with(unnamed.clone()).await.unwrap().file.unwrap();
            let with_digest = |data| CompleteUploadRequest { sha256: Some(sha256(data)), ..unnamed.clone() };
            let (same, other) = (with_digest(&bytes), with_digest(b"x"));
            for request in [&same, &other] {
                let error = alice.complete_upload_with(request.clone()).await.unwrap_err();
                assert_digest_unknown(&error, "FILE_STATE_PROCESSING");
            }
            let again = alice.complete_upload_with(unnamed.clone()).await.unwrap().file.unwrap();
            assert_eq!(again.id, file.id);

            assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
            assert_eq!(alice.complete_upload_with(same).await.unwrap().file.unwrap().id, file.id);
            let error = alice.complete_upload_with(other).await.unwrap_err();
            assert_eq!(reason(&error), "CHECKSUM_MISMATCH");
            assert!(alice.read(&file.id).await.unwrap() == bytes);
        }
    });
}

#[test]
fn digest_of_content_that_was_lost_stays_unknown() {
    direct_test(|s| async move {
        s.allow_lost_objects();
        s.allow_logged_errors();
        let (alice, bytes) = (s.alice(), pattern(SIZES[0]));
        let direct = alice.create_direct_upload(sized(bytes.len())).await.unwrap();
        let sent = s.put_parts(&direct, &bytes).await;
        let unnamed = request_for(&direct, &sent);
        alice.complete_upload_with(unnamed.clone()).await.unwrap();
        let object = s.store.list("", None, 10).await.unwrap().objects.remove(0);
        s.store.delete(&object.key).await.unwrap();
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        let named = CompleteUploadRequest { sha256: Some(sha256(&bytes)), ..unnamed };
        let error = alice.complete_upload_with(named).await.unwrap_err();
        assert_digest_unknown(&error, "FILE_STATE_ERROR");
    });
}

#[test]
fn retry_after_lost_response_of_store_compares_parts() {
    direct_test(|s| async move {
        let (alice, bytes) = (s.alice(), pattern(2 * PART + 7));
        let direct = alice.create_direct_upload(sized(bytes.len())).await.unwrap();
        let sent = s.put_parts(&direct, &bytes).await;
        let lost = Fault::After(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::CompleteMultipart, 1, lost));
        let error = alice.complete_direct_upload(&direct.id, &sent).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        s.faults.set_plan(Plan::new());
        // The object is assembled, so its parts are no longer in the store.
        for _ in 0..2 {
            let error = alice.complete_direct_upload(&direct.id, &with_other_etag(&sent)).await.unwrap_err();
            assert_part_differs(&error, &sent);
        }
        let id = alice.complete_direct_upload(&direct.id, &sent).await.unwrap().file.unwrap().id;
        let error = alice.complete_direct_upload(&direct.id, &with_other_etag(&sent)).await.unwrap_err();
        assert_part_differs(&error, &sent);
        worker::run_due_jobs(&s.app).await;
        assert!(alice.read(&id).await.unwrap() == bytes);
    });
}
