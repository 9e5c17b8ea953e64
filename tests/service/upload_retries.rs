//! A retried upload has one effect and one answer.

use bytes::Bytes;
use futures::future::join_all;
use strongroom::{
    domain::clock::Clock as _,
    proto::v1::{ListFilesRequest, UploadFileResponse, UploadSpec},
    storage::flaky::Operation,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{PART, file_id, reason, service_test, sha256, spec, spec_message},
    upload::pattern,
};

const ID: &str = "0198c0de-1111-7000-8000-000000000001";

pub(crate) fn with_id(name: &str, id: &str, sha256: Option<Bytes>) -> UploadSpec {
    UploadSpec { request_id: id.to_owned(), sha256, ..spec(name) }
}

#[test]
fn the_same_request_id_is_answered_alike_and_stores_one_file() {
    service_test(|s| async move {
        let alice = s.alice();
        for (n, size) in [5, 3 * PART].into_iter().enumerate() {
            let id = format!("0198c0de-1111-7000-8000-00000000010{n}");
            let data = pattern(size);
            let first = alice.upload(with_id("a", &id, None), &data).await.unwrap();
            let again = alice.upload(with_id("a", &id, None), &data).await.unwrap();
            assert_eq!(first, again);
            assert_eq!(s.book(&alice).await.file_count, n as i64 + 1);
        }
    });
}

#[test]
fn with_the_digest_in_the_spec_a_replay_is_answered_at_the_first_message() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(3 * PART);
        let told = with_id("a", ID, Some(sha256(&data)));
        let first = alice.upload(told.clone(), &data).await.unwrap();
        s.faults.set_plan(Default::default());
        // Not a byte, not even a finish.
        let again = alice.send(vec![spec_message(told)]).await.unwrap();
        assert_eq!((first, s.faults.calls(Operation::PutPart)), (again, 0));
    });
}

#[test]
fn without_the_digest_a_replay_reads_the_bytes_and_stores_none() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(3 * PART);
        let first = alice.upload(with_id("a", ID, None), &data).await.unwrap();
        s.faults.set_plan(Default::default());
        let again = alice.upload(with_id("a", ID, None), &data).await.unwrap();
        let written = s.faults.calls(Operation::PutPart) + s.faults.calls(Operation::Put);
        assert_eq!((first, written), (again, 0));
        let unfinished = alice.send(vec![spec_message(with_id("a", ID, None))]).await.unwrap_err();
        assert_eq!(reason(&unfinished), "UPLOAD_NOT_FINISHED");
    });
}

#[test]
fn a_request_id_with_another_payload_is_refused() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        alice.upload(with_id("a", ID, None), b"bytes").await.unwrap();
        let refusals = [
            alice.upload(with_id("a", ID, None), b"other").await,
            alice.upload(with_id("b", ID, None), b"bytes").await,
            alice.upload(with_id("a", ID, Some(sha256(b"other"))), b"other").await,
            alice.upload(UploadSpec { tags: vec!["t".into()], ..with_id("a", ID, None) }, b"bytes").await,
            bob.upload(with_id("a", ID, None), b"bytes").await,
        ];
        for refused in refusals {
            let status = refused.unwrap_err();
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::InvalidArgument, "REQUEST_ID_REUSED")
            );
        }
        assert_eq!(s.book(&alice).await.file_count, 1);
    });
}

#[test]
fn another_tenant_may_use_the_same_request_id() {
    service_test(|s| async move {
        let of_acme = s.alice().upload(with_id("a", ID, None), b"bytes").await.unwrap();
        let of_globex = s.mallory().upload(with_id("a", ID, None), b"bytes").await.unwrap();
        assert_ne!(file_id(&of_acme), file_id(&of_globex));
    });
}

#[test]
fn of_many_at_once_with_the_same_request_id_one_has_an_effect() {
    service_test(|s| async move {
        let alice = s.alice();
        for (n, size) in [5, 2 * PART + 9].into_iter().enumerate() {
            let id = format!("0198c0de-1111-7000-8000-00000000020{n}");
            let data = pattern(size);
            let attempts = (0..12).map(|_| alice.upload(with_id("a", &id, None), &data));
            let mut answers: Vec<UploadFileResponse> = Vec::new();
            for outcome in join_all(attempts).await {
                match outcome {
                    Ok(answer) => answers.push(answer),
                    Err(status) => {
                        let got = (status.code(), reason(&status));
                        assert_eq!(got, (Code::Aborted, "REQUEST_IN_PROGRESS".to_owned()));
                        assert!(status.get_error_details().retry_info().is_some());
                    }
                }
            }
            assert!(!answers.is_empty());
            assert!(answers.iter().all(|answer| file_id(answer) == file_id(&answers[0])));
        }
        assert_eq!(alice.list(ListFilesRequest::default()).await.unwrap().files.len(), 2);
    });
}

#[test]
fn after_its_time_a_request_id_is_forgotten() {
    service_test(|s| async move {
        let first = s.alice().upload(with_id("a", ID, None), b"bytes").await.unwrap();
        s.clock.advance(chrono::Duration::hours(23));
        let same = s.alice().upload(with_id("a", ID, None), b"bytes").await.unwrap();
        s.clock.advance(chrono::Duration::hours(2));
        let fresh = s.alice().upload(with_id("a", ID, None), b"bytes").await.unwrap();
        assert_eq!(file_id(&first), file_id(&same));
        assert_ne!(file_id(&first), file_id(&fresh));
    });
}

#[test]
fn a_refused_upload_leaves_its_request_id_free() {
    service_test(|s| async move {
        let alice = s.alice();
        alice.send(vec![spec_message(with_id("a", ID, None))]).await.unwrap_err();
        alice.upload(with_id("a", ID, None), b"bytes").await.unwrap();
    });
}

#[test]
fn a_replay_is_answered_also_when_its_file_would_be_expired_by_now() {
    service_test(|s| async move {
        let alice = s.alice();
        let expire_time = prost_types::Timestamp {
            seconds: (s.clock.now() + chrono::Duration::minutes(5)).timestamp(),
            nanos: 0,
        };
        let other_id = ID.replace("1111", "2222");
        let specs = [with_id("a", ID, None), with_id("b", &other_id, Some(sha256(b"bytes")))]
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
fn a_replay_needs_no_room() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let data = pattern(2 * PART);
        let told = UploadSpec { size_bytes: Some(data.len() as i64), ..with_id("a", ID, None) };
        let first = alice.upload(told.clone(), &data).await.unwrap();
        ada.limit_bytes(data.len() as i64).await;
        let again = alice.upload(told, &data).await.unwrap();
        assert_eq!(file_id(&first), file_id(&again));
    });
}
