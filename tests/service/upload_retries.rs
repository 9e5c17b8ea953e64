//! Retried uploads: a request id has one effect and one response.

use bytes::Bytes;
use futures::future::join_all;
use strongroom::{
    domain::clock::Clock as _,
    proto::v1::{CompleteUploadRequest, ListFilesRequest, UploadFileResponse, UploadSpec},
    storage::flaky::Operation,
    worker,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{PART, direct_test, file_id, reason, service_test, sha256, spec, spec_message},
    upload::pattern,
};

const REQUEST_ID: &str = "0198c0de-1111-7000-8000-000000000001";

pub(crate) fn spec_with_id(name: &str, id: &str, sha256: Option<Bytes>) -> UploadSpec {
    UploadSpec { request_id: id.to_owned(), sha256, ..spec(name) }
}

#[test]
fn request_id_stores_one_file() {
    service_test(|s| async move {
        let alice = s.alice();
        for (n, size) in [5, 3 * PART].into_iter().enumerate() {
            let id = format!("0198c0de-1111-7000-8000-00000000010{n}");
            let data = pattern(size);
            let first = alice.upload(spec_with_id("a", &id, None), &data).await.unwrap();
            let again = alice.upload(spec_with_id("a", &id, None), &data).await.unwrap();
            assert_eq!(first, again);
            assert_eq!(s.quota_row(&alice).await.file_count, n as i64 + 1);
        }
    });
}

#[test]
fn retry_with_digest_needs_only_first_message() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(3 * PART);
        let spec_sent = spec_with_id("a", REQUEST_ID, Some(sha256(&data)));
        let first = alice.upload(spec_sent.clone(), &data).await.unwrap();
        s.faults.set_plan(Default::default());
        // Sends neither bytes nor a finish message.
        let again = alice.send_messages(vec![spec_message(spec_sent)]).await.unwrap();
        assert_eq!((first, s.faults.call_count(Operation::PutPart)), (again, 0));
    });
}

#[test]
fn retry_without_digest_stores_no_bytes() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(3 * PART);
        let first = alice.upload(spec_with_id("a", REQUEST_ID, None), &data).await.unwrap();
        s.faults.set_plan(Default::default());
        let again = alice.upload(spec_with_id("a", REQUEST_ID, None), &data).await.unwrap();
        let written = s.faults.call_count(Operation::PutPart) + s.faults.call_count(Operation::Put);
        assert_eq!((first, written), (again, 0));
        let unfinished =
            alice.send_messages(vec![spec_message(spec_with_id("a", REQUEST_ID, None))]).await.unwrap_err();
        assert_eq!(reason(&unfinished), "UPLOAD_NOT_FINISHED");
    });
}

#[test]
fn rejects_request_id_with_another_payload() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        alice.upload(spec_with_id("a", REQUEST_ID, None), b"bytes").await.unwrap();
        let results = [
            alice.upload(spec_with_id("a", REQUEST_ID, None), b"other").await,
            alice.upload(spec_with_id("b", REQUEST_ID, None), b"bytes").await,
            alice.upload(spec_with_id("a", REQUEST_ID, Some(sha256(b"other"))), b"other").await,
            alice
                .upload(
                    UploadSpec { tags: vec!["t".into()], ..spec_with_id("a", REQUEST_ID, None) },
                    b"bytes",
                )
                .await,
            bob.upload(spec_with_id("a", REQUEST_ID, None), b"bytes").await,
        ];
        for result in results {
            let status = result.unwrap_err();
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::InvalidArgument, "REQUEST_ID_REUSED")
            );
        }
        assert_eq!(s.quota_row(&alice).await.file_count, 1);
    });
}

#[test]
fn request_ids_are_scoped_to_tenant() {
    service_test(|s| async move {
        let of_acme = s.alice().upload(spec_with_id("a", REQUEST_ID, None), b"bytes").await.unwrap();
        let of_globex = s.mallory().upload(spec_with_id("a", REQUEST_ID, None), b"bytes").await.unwrap();
        assert_ne!(file_id(&of_acme), file_id(&of_globex));
    });
}

#[test]
fn concurrent_uploads_with_one_id_have_one_effect() {
    service_test(|s| async move {
        let alice = s.alice();
        for (n, size) in [5, 2 * PART + 9].into_iter().enumerate() {
            let id = format!("0198c0de-1111-7000-8000-00000000020{n}");
            let data = pattern(size);
            let attempts = (0..12).map(|_| alice.upload(spec_with_id("a", &id, None), &data));
            let mut responses: Vec<UploadFileResponse> = Vec::new();
            for outcome in join_all(attempts).await {
                match outcome {
                    Ok(response) => responses.push(response),
                    Err(status) => {
                        let actual = (status.code(), reason(&status));
                        assert_eq!(actual, (Code::Aborted, "REQUEST_IN_PROGRESS".to_owned()));
                        assert!(status.get_error_details().retry_info().is_some());
                    }
                }
            }
            assert!(!responses.is_empty());
            assert!(responses.iter().all(|response| file_id(response) == file_id(&responses[0])));
        }
        assert_eq!(alice.list(ListFilesRequest::default()).await.unwrap().files.len(), 2);
    });
}

#[test]
fn request_id_expires_after_a_day() {
    service_test(|s| async move {
        let first = s.alice().upload(spec_with_id("a", REQUEST_ID, None), b"bytes").await.unwrap();
        s.clock.advance(chrono::Duration::hours(23));
        let same = s.alice().upload(spec_with_id("a", REQUEST_ID, None), b"bytes").await.unwrap();
        s.clock.advance(chrono::Duration::hours(2));
        let fresh = s.alice().upload(spec_with_id("a", REQUEST_ID, None), b"bytes").await.unwrap();
        assert_eq!(file_id(&first), file_id(&same));
        assert_ne!(file_id(&first), file_id(&fresh));
    });
}

#[test]
fn rejected_upload_does_not_use_up_request_id() {
    service_test(|s| async move {
        let alice = s.alice();
        alice.send_messages(vec![spec_message(spec_with_id("a", REQUEST_ID, None))]).await.unwrap_err();
        alice.upload(spec_with_id("a", REQUEST_ID, None), b"bytes").await.unwrap();
    });
}

#[test]
fn retry_succeeds_after_expire_time_of_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let expire_time = prost_types::Timestamp {
            seconds: (s.clock.now() + chrono::Duration::minutes(5)).timestamp(),
            nanos: 0,
        };
        let other_id = REQUEST_ID.replace("1111", "2222");
        let specs =
            [spec_with_id("a", REQUEST_ID, None), spec_with_id("b", &other_id, Some(sha256(b"bytes")))]
                .map(|spec| UploadSpec { expire_time: Some(expire_time), ..spec });
        let mut first = Vec::new();
        for spec in &specs {
            first.push(alice.upload(spec.clone(), b"bytes").await.unwrap());
        }
        s.clock.advance(chrono::Duration::minutes(10));
        for (spec, first) in specs.into_iter().zip(first) {
            assert_eq!(alice.upload(spec, b"bytes").await.unwrap(), first);
        }
    });
}

#[test]
fn retry_needs_no_free_quota() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let data = pattern(2 * PART);
        let spec_sent =
            UploadSpec { size_bytes: Some(data.len() as i64), ..spec_with_id("a", REQUEST_ID, None) };
        let first = alice.upload(spec_sent.clone(), &data).await.unwrap();
        ada.set_limit_bytes(data.len() as i64).await;
        let again = alice.upload(spec_sent, &data).await.unwrap();
        assert_eq!(file_id(&first), file_id(&again));
    });
}

#[test]
fn direct_upload_is_completed_again_only_as_the_same_file() {
    direct_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(1_000));
        let sized = UploadSpec { size_bytes: Some(1_000), ..spec("a") };
        let direct = alice.create_direct_upload(sized).await.unwrap();
        s.put_parts(&direct, &data).await;
        let completion = CompleteUploadRequest { upload_id: direct.id.clone(), ..Default::default() };
        let first = alice.complete_upload_with(completion.clone()).await.unwrap();
        let other_size = CompleteUploadRequest { size_bytes: Some(999), ..completion.clone() };
        let refused = alice.complete_upload_with(other_size).await.unwrap_err();
        assert_eq!(reason(&refused), "SIZE_MISMATCH");

        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        // The digest is known after the verification.
        let with_digest = |digest| CompleteUploadRequest { sha256: Some(digest), ..completion.clone() };
        let refused = alice.complete_upload_with(with_digest(sha256(b"other"))).await.unwrap_err();
        assert_eq!(reason(&refused), "CHECKSUM_MISMATCH");
        let again = alice.complete_upload_with(with_digest(sha256(&data))).await.unwrap();
        assert_eq!(again.file.unwrap().id, first.file.unwrap().id);
    });
}
