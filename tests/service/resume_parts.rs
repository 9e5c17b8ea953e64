//! Uploads part by part, for clients that cannot stream.

use strongroom::proto::v1::{UploadPartRequest, UploadSpec, UploadState};
use tonic::Code;

use crate::harness::{PART, file_id, pattern, reason, service_test, sha256, spec, violated_fields};

const SIZE: usize = 2 * PART + 1234;

#[test]
fn parts_are_sent_one_by_one_and_completed() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create(spec("a.bin")).await.unwrap();
        for (n, part) in data.chunks(PART).enumerate() {
            let at = alice.part(&upload.id, n * PART, part).await.unwrap();
            assert_eq!(at.persisted_size_bytes, (n * PART + part.len()) as i64);
            // A retry is compared with what is stored.
            assert_eq!(alice.part(&upload.id, n * PART, part).await.unwrap(), at);
        }
        let file = alice.complete(&upload.id, SIZE).await.unwrap();
        assert_eq!(file.sha256, sha256(&data));
        assert_eq!(alice.complete(&upload.id, SIZE).await.unwrap(), file, "completed again");
        assert_eq!(alice.part(&upload.id, 0, b"late").await.unwrap().state(), UploadState::Committed);
        assert_eq!(alice.read(&file.id).await.unwrap(), data);
    });
}

#[test]
fn parts_come_in_order_are_whole_and_are_what_they_were() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create(spec("a.bin")).await.unwrap();
        let gap = alice.part(&upload.id, PART, &data[PART..2 * PART]).await.unwrap_err();
        assert_eq!((gap.code(), reason(&gap)), (Code::OutOfRange, "UPLOAD_OFFSET_GAP".to_owned()));
        let large = alice.part(&upload.id, 0, &data[..PART + 1]).await.unwrap_err();
        assert_eq!((large.code(), violated_fields(&large)), (Code::InvalidArgument, vec!["data".to_owned()]));
        let damaged = UploadPartRequest {
            upload_id: upload.id.clone(),
            data: bytes::Bytes::from_static(b"abc"),
            crc32c: Some(1),
            ..UploadPartRequest::default()
        };
        let damaged = alice.files.clone().upload_part(damaged).await.unwrap_err();
        assert_eq!(reason(&damaged), "CHECKSUM_MISMATCH");

        alice.part(&upload.id, 0, &data[..PART]).await.unwrap();
        let mut other = data[..PART].to_vec();
        other[7] ^= 1;
        assert_eq!(reason(&alice.part(&upload.id, 0, &other).await.unwrap_err()), "UPLOAD_CONTENT_DIFFERS");
        let short = alice.complete(&upload.id, SIZE).await.unwrap_err();
        assert_eq!((short.code(), reason(&short)), (Code::InvalidArgument, "SIZE_MISMATCH".to_owned()));

        let begun = alice.part(&upload.id, 0, &data[..10]).await.unwrap_err();
        assert_eq!(violated_fields(&begun), ["data"], "of a stored part, all of it or nothing");
        alice.part(&upload.id, PART, &data[PART..PART + 10]).await.unwrap();
        let behind = alice.part(&upload.id, PART + 10, b"more").await.unwrap_err();
        assert_eq!(reason(&behind), "SIZE_MISMATCH", "nothing comes behind a part that is not whole");
        let file = alice.complete(&upload.id, PART + 10).await.unwrap();
        assert_eq!(alice.read(&file.id).await.unwrap(), data[..PART + 10]);
    });
}

#[test]
fn parts_and_streams_of_one_upload_can_take_turns() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create(spec("a.bin")).await.unwrap();
        alice.part(&upload.id, 0, &data[..PART]).await.unwrap();
        alice.go_on(&upload.id, &data[..2 * PART], PART, false).await.unwrap_err();
        alice.part(&upload.id, 2 * PART, &data[2 * PART..]).await.unwrap();
        let answer = alice.go_on(&upload.id, &data, SIZE, true).await.unwrap();
        assert_eq!(alice.read(&file_id(&answer)).await.unwrap(), data);
    });
}

#[test]
fn where_the_size_is_known_only_its_last_part_may_be_shorter() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let told = UploadSpec { size_bytes: Some(SIZE as i64), ..spec("a.bin") };
        let upload = alice.create(told).await.unwrap();
        let short = alice.part(&upload.id, 0, &data[..PART - 1]).await.unwrap_err();
        assert_eq!((short.code(), violated_fields(&short)), (Code::InvalidArgument, vec!["data".to_owned()]));
        for (n, part) in data.chunks(PART).enumerate() {
            alice.part(&upload.id, n * PART, part).await.unwrap();
        }
        let file = alice.complete(&upload.id, SIZE).await.unwrap();
        assert_eq!(alice.read(&file.id).await.unwrap(), data);
    });
}
