//! `UploadPart`: uploads of single parts, for clients that cannot stream.

use strongroom::proto::v1::{UploadPartRequest, UploadSpec, UploadState};
use tonic::Code;

use crate::harness::{PART, file_id, pattern, reason, service_test, sha256, spec, violated_fields};

const SIZE: usize = 2 * PART + 1234;

#[test]
fn parts_are_uploaded_and_completed() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create_upload(spec("a.bin")).await.unwrap();
        for (n, part) in data.chunks(PART).enumerate() {
            let at = alice.upload_part(&upload.id, n * PART, part).await.unwrap();
            assert_eq!(at.persisted_size_bytes, (n * PART + part.len()) as i64);
            // A retried part is compared with the stored one.
            assert_eq!(alice.upload_part(&upload.id, n * PART, part).await.unwrap(), at);
        }
        let file = alice.complete_upload(&upload.id, SIZE).await.unwrap();
        assert_eq!(file.sha256, sha256(&data));
        assert_eq!(alice.complete_upload(&upload.id, SIZE).await.unwrap(), file, "a repeated completion");
        let repeated = alice.upload_part(&upload.id, 0, &data[..PART]).await.unwrap();
        assert_eq!(repeated.state(), UploadState::Committed);
        let late = alice.upload_part(&upload.id, 0, b"late").await.unwrap_err();
        assert_eq!(violated_fields(&late), ["data"], "other bytes than those of the file");
        assert_eq!(alice.read(&file.id).await.unwrap(), data);
    });
}

#[test]
fn rejects_out_of_order_short_or_changed_parts() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create_upload(spec("a.bin")).await.unwrap();
        let gap = alice.upload_part(&upload.id, PART, &data[PART..2 * PART]).await.unwrap_err();
        assert_eq!((gap.code(), reason(&gap)), (Code::OutOfRange, "UPLOAD_OFFSET_GAP".to_owned()));
        let large = alice.upload_part(&upload.id, 0, &data[..PART + 1]).await.unwrap_err();
        assert_eq!((large.code(), violated_fields(&large)), (Code::InvalidArgument, vec!["data".to_owned()]));
        let damaged = UploadPartRequest {
            upload_id: upload.id.clone(),
            data: bytes::Bytes::from_static(b"abc"),
            crc32c: Some(1),
            ..UploadPartRequest::default()
        };
        let damaged = alice.uploads.clone().upload_part(damaged).await.unwrap_err();
        assert_eq!(reason(&damaged), "CHECKSUM_MISMATCH");

        alice.upload_part(&upload.id, 0, &data[..PART]).await.unwrap();
        let mut other = data[..PART].to_vec();
        other[7] ^= 1;
        assert_eq!(
            reason(&alice.upload_part(&upload.id, 0, &other).await.unwrap_err()),
            "UPLOAD_CONTENT_DIFFERS"
        );
        let short = alice.complete_upload(&upload.id, SIZE).await.unwrap_err();
        assert_eq!((short.code(), reason(&short)), (Code::InvalidArgument, "SIZE_MISMATCH".to_owned()));

        let partial = alice.upload_part(&upload.id, 0, &data[..10]).await.unwrap_err();
        assert_eq!(violated_fields(&partial), ["data"], "a stored part must be resent as a whole");
        alice.upload_part(&upload.id, PART, &data[PART..PART + 10]).await.unwrap();
        let after_short = alice.upload_part(&upload.id, PART + 10, b"more").await.unwrap_err();
        assert_eq!(reason(&after_short), "SIZE_MISMATCH", "a short part is the last one");
        let file = alice.complete_upload(&upload.id, PART + 10).await.unwrap();
        assert_eq!(alice.read(&file.id).await.unwrap(), data[..PART + 10]);
    });
}

#[test]
fn parts_and_streams_can_be_mixed() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create_upload(spec("a.bin")).await.unwrap();
        alice.upload_part(&upload.id, 0, &data[..PART]).await.unwrap();
        alice.resume_upload(&upload.id, &data[..2 * PART], PART, false).await.unwrap_err();
        alice.upload_part(&upload.id, 2 * PART, &data[2 * PART..]).await.unwrap();
        let response = alice.resume_upload(&upload.id, &data, SIZE, true).await.unwrap();
        assert_eq!(alice.read(&file_id(&response)).await.unwrap(), data);
    });
}

#[test]
fn only_last_part_of_sized_upload_may_be_short() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let sized = UploadSpec { size_bytes: Some(SIZE as i64), ..spec("a.bin") };
        let upload = alice.create_upload(sized).await.unwrap();
        let short = alice.upload_part(&upload.id, 0, &data[..PART - 1]).await.unwrap_err();
        assert_eq!((short.code(), violated_fields(&short)), (Code::InvalidArgument, vec!["data".to_owned()]));
        for (n, part) in data.chunks(PART).enumerate() {
            alice.upload_part(&upload.id, n * PART, part).await.unwrap();
        }
        let file = alice.complete_upload(&upload.id, SIZE).await.unwrap();
        assert_eq!(alice.read(&file.id).await.unwrap(), data);
    });
}
