//! The messages of `UploadFile`: wrong order, sizes, offsets and digests are rejected with a reason of their
//! own, and leave nothing.

use strongroom::proto::v1::{UploadFileRequest, UploadFinish, UploadSpec, upload_file_request::Message};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{
        PART, Service, chunk, finish, reason, service_test, sha256, spec, spec_message, upload_messages,
        violated_fields,
    },
    upload::pattern,
};

/// Sends messages and asserts that they are rejected with this code and reason and leave nothing.
async fn assert_rejected(
    s: &Service,
    messages: Vec<UploadFileRequest>,
    code: Code,
    expected_reason: &str,
) -> tonic::Status {
    let status = s.alice().send_messages(messages).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (code, expected_reason), "{status:?}");
    s.assert_nothing_is_left().await;
    status
}

fn finish_with(size_bytes: i64, sha256: Vec<u8>) -> UploadFileRequest {
    let finish = UploadFinish { size_bytes, sha256: Some(sha256.into()) };
    UploadFileRequest { message: Some(Message::Finish(finish)) }
}

#[test]
fn rejects_wrong_chunk_checksum() {
    service_test(|s| async move {
        let mut broken = chunk(0, b"bytes");
        if let Some(Message::Chunk(chunk)) = &mut broken.message {
            chunk.crc32c = Some(chunk.crc32c.unwrap() ^ 1);
        }
        let messages = vec![spec_message(spec("a")), broken, finish(5)];
        assert_rejected(&s, messages, Code::InvalidArgument, "CHECKSUM_MISMATCH").await;
    });
}

#[test]
fn accepts_chunk_without_checksum() {
    service_test(|s| async move {
        let mut bare = chunk(0, b"bytes");
        if let Some(Message::Chunk(chunk)) = &mut bare.message {
            chunk.crc32c = None;
        }
        s.alice().send_messages(vec![spec_message(spec("a")), bare, finish(5)]).await.unwrap();
    });
}

#[test]
fn rejects_finish_with_wrong_size() {
    service_test(|s| async move {
        for size in [4, 6, 0] {
            let messages = vec![spec_message(spec("a")), chunk(0, b"bytes"), finish(size)];
            assert_rejected(&s, messages, Code::InvalidArgument, "SIZE_MISMATCH").await;
        }
        let negative = vec![spec_message(spec("a")), chunk(0, b"bytes"), finish_with(-1, vec![0; 32])];
        assert_rejected(&s, negative, Code::InvalidArgument, "INVALID_FIELD").await;
    });
}

#[test]
fn rejects_fewer_bytes_than_declared() {
    service_test(|s| async move {
        for size in [1_usize, PART, 3 * PART] {
            let declared = UploadSpec { size_bytes: Some(size as i64 + 1), ..spec("a") };
            let messages = upload_messages(declared, &pattern(size), 50_000);
            assert_rejected(&s, messages, Code::InvalidArgument, "SIZE_MISMATCH").await;
        }
    });
}

#[test]
fn rejects_more_bytes_than_declared_before_finish() {
    service_test(|s| async move {
        for size in [1_usize, PART, 3 * PART] {
            let declared = UploadSpec { size_bytes: Some(size as i64 - 1), ..spec("a") };
            let mut messages = upload_messages(declared, &pattern(size), 50_000);
            messages.pop();
            assert_rejected(&s, messages, Code::InvalidArgument, "SIZE_MISMATCH").await;
        }
    });
}

#[test]
fn rejects_wrong_digest_in_spec_or_finish() {
    service_test(|s| async move {
        for size in [5, 3 * PART] {
            let data = pattern(size);
            let wrong = sha256(b"something else");
            let in_spec = UploadSpec { sha256: Some(wrong.clone()), ..spec("a") };
            assert_rejected(
                &s,
                upload_messages(in_spec, &data, 60_000),
                Code::InvalidArgument,
                "CHECKSUM_MISMATCH",
            )
            .await;
            let mut messages = upload_messages(spec("a"), &data, 60_000);
            *messages.last_mut().unwrap() = finish_with(size as i64, wrong.to_vec());
            assert_rejected(&s, messages, Code::InvalidArgument, "CHECKSUM_MISMATCH").await;
        }
        let short = vec![spec_message(spec("a")), chunk(0, b"bytes"), finish_with(5, vec![1, 2, 3])];
        let status = assert_rejected(&s, short, Code::InvalidArgument, "INVALID_FIELD").await;
        assert_eq!(violated_fields(&status), ["finish.sha256"]);
    });
}

#[test]
fn rejects_gap_or_overlap_with_expected_offset() {
    service_test(|s| async move {
        for offset in [0, 4, 6, 1_000_000] {
            let messages =
                vec![spec_message(spec("a")), chunk(0, b"bytes"), chunk(offset, b"more"), finish(9)];
            let status = assert_rejected(&s, messages, Code::OutOfRange, "UPLOAD_OFFSET_GAP").await;
            let details = status.get_error_details();
            assert_eq!(details.error_info().unwrap().metadata["persisted_size_bytes"], "5");
        }
    });
}

#[test]
fn gap_after_several_parts_leaves_nothing() {
    service_test(|s| async move {
        let data = pattern(4 * PART);
        for size_bytes in [None, Some(8 * PART as i64)] {
            let mut messages = upload_messages(UploadSpec { size_bytes, ..spec("a") }, &data, 64 * 1024);
            *messages.last_mut().unwrap() = chunk(1, b"again");
            assert_rejected(&s, messages, Code::OutOfRange, "UPLOAD_OFFSET_GAP").await;
        }
    });
}

#[test]
fn rejects_messages_after_finish() {
    service_test(|s| async move {
        for last in [chunk(5, b"more"), finish(5), spec_message(spec("b"))] {
            let messages = vec![spec_message(spec("a")), chunk(0, b"bytes"), finish(5), last];
            assert_rejected(&s, messages, Code::InvalidArgument, "STREAM_ORDER_INVALID").await;
        }
    });
}

#[test]
fn requires_one_spec_as_first_message() {
    service_test(|s| async move {
        for first in [chunk(0, b"bytes"), finish(0), UploadFileRequest { message: None }] {
            assert_rejected(&s, vec![first, finish(5)], Code::InvalidArgument, "STREAM_ORDER_INVALID").await;
        }
        let twice = vec![spec_message(spec("a")), spec_message(spec("b")), finish(0)];
        assert_rejected(&s, twice, Code::InvalidArgument, "STREAM_ORDER_INVALID").await;
    });
}

#[test]
fn stream_without_finish_stores_nothing() {
    service_test(|s| async move {
        assert_rejected(&s, vec![], Code::Aborted, "UPLOAD_NOT_FINISHED").await;
        for size in [0, 5, PART, 4 * PART] {
            for size_bytes in [None, Some(size as i64)] {
                let sized = UploadSpec { size_bytes, ..spec("a") };
                let mut messages = upload_messages(sized, &pattern(size), 30_000);
                messages.pop();
                assert_rejected(&s, messages, Code::Aborted, "UPLOAD_NOT_FINISHED").await;
            }
        }
    });
}

#[test]
fn rejects_chunk_above_limit() {
    service_test(|s| async move {
        let data = pattern(2 * 1024 * 1024 + 1);
        let messages = vec![spec_message(spec("a")), chunk(0, &data), finish(data.len())];
        let status = assert_rejected(&s, messages, Code::InvalidArgument, "INVALID_FIELD").await;
        assert_eq!(violated_fields(&status), ["chunk.data"]);
    });
}

#[test]
fn chunk_size_does_not_change_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(2 * PART + 100);
        for chunk_size in [997, PART - 1, PART, PART + 1, 2 * PART + 100] {
            let response = alice.send_messages(upload_messages(spec("a"), &data, chunk_size)).await.unwrap();
            assert_eq!(response.file.unwrap().sha256, sha256(&data), "{chunk_size}");
        }
        let bytes = pattern(700);
        let single =
            alice.send_messages(upload_messages(spec("one byte at a time"), &bytes, 1)).await.unwrap();
        assert_eq!(single.file.unwrap().sha256, sha256(&bytes));
    });
}

#[test]
fn empty_chunks_change_nothing() {
    service_test(|s| async move {
        let messages = vec![
            spec_message(spec("a")),
            chunk(0, b""),
            chunk(0, b"bytes"),
            chunk(5, b""),
            chunk(5, b""),
            finish(5),
        ];
        let file = s.alice().send_messages(messages).await.unwrap().file.unwrap();
        assert_eq!((file.size_bytes, file.sha256), (5, sha256(b"bytes")));
    });
}
