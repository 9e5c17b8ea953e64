//! Downloads of whole files and of ranges. Damaged or incomplete bytes always end in an error.

use strongroom::{
    domain::file::ContentState,
    proto::v1::{DownloadFileRequest, File, UploadSpec, download_file_response::Message},
    storage::{
        Payload, PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::Code;

use crate::{
    harness::{Caller, PART, Service, file_id, reason, service_test, sha256, spec},
    upload::pattern,
};

async fn upload_file(caller: &Caller, data: &[u8]) -> String {
    file_id(&caller.upload(spec("a.bin"), data).await.unwrap())
}

fn range_request(id: &str, read_offset: i64, read_limit: i64) -> DownloadFileRequest {
    DownloadFileRequest { file_id: id.to_owned(), read_offset, read_limit, ..Default::default() }
}

#[test]
fn header_has_file_range_and_digest() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(5 * PART + 1);
        let id = upload_file(&alice, &data).await;
        let whole = alice.download(range_request(&id, 0, 0)).await.unwrap();
        assert_eq!(whole.bytes, data);
        let file = whole.header.file.unwrap();
        assert_eq!(file.download_count, None, "reading the count would need another round trip");
        let got = alice.get(&id).await.unwrap();
        assert_eq!(file, File { download_count: None, last_access_time: None, ..got });
        assert_eq!(whole.header.sha256, sha256(&data));
        let range = whole.header.range.unwrap();
        assert_eq!(
            (range.offset, range.length, range.total_bytes),
            (0, data.len() as i64, data.len() as i64)
        );
    });
}

#[test]
fn reads_any_range_also_from_the_end() {
    service_test(|s| async move {
        let alice = s.alice();
        let size = 3 * PART + 7;
        let data = pattern(size);
        let id = upload_file(&alice, &data).await;
        let at = |offset: usize| offset as i64;
        let part = at(PART);
        let cases = [
            (0, 1, 0..1),
            (10, 20, 10..30),
            (part - 1, 2, PART - 1..PART + 1),
            (part, part, PART..2 * PART),
            (at(size) - 1, 0, size - 1..size),
            (at(size) - 5, 100, size - 5..size),
            (at(size), 0, size..size),
            (1, 0, 1..size),
            (-1, 0, size - 1..size),
            (-100, 50, size - 100..size - 50),
            (-at(size), 0, 0..size),
            (-at(size) - 1, 0, 0..size),
            (i64::MIN, 3, 0..3),
            (0, i64::MAX, 0..size),
        ];
        for (offset, limit, expected) in cases {
            let read = alice.download(range_request(&id, offset, limit)).await.unwrap();
            assert_eq!(read.bytes, data[expected.clone()], "{offset} {limit}");
            let range = read.header.range.unwrap();
            let expected = (expected.start as i64, expected.len() as i64, size as i64);
            assert_eq!((range.offset, range.length, range.total_bytes), expected, "{offset} {limit}");
            assert_eq!(read.header.sha256, sha256(&data));
        }
    });
}

#[test]
fn rejects_range_beyond_end() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, b"bytes").await;
        for offset in [6, i64::MAX] {
            let error = alice.download(range_request(&id, offset, 0)).await.unwrap_err();
            let got = (error.code(), reason(&error));
            assert_eq!(got, (Code::OutOfRange, "READ_OFFSET_OUT_OF_RANGE".to_owned()), "{offset}");
        }
        let negative = alice.download(range_request(&id, 0, -1)).await.unwrap_err();
        assert_eq!((negative.code(), reason(&negative).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    });
}

#[test]
fn empty_file_has_header_without_chunks() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, b"").await;
        for offset in [0, -10] {
            let read = alice.download(range_request(&id, offset, 0)).await.unwrap();
            assert_eq!((read.chunks, read.header.sha256), (0, sha256(b"")));
        }
    });
}

#[test]
fn rejects_range_with_etag_of_old_content() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, b"bytes").await;
        let etag = alice.get(&id).await.unwrap().etag;
        let request =
            |if_etag: &str| DownloadFileRequest { if_etag: if_etag.to_owned(), ..range_request(&id, 2, 0) };
        assert_eq!(alice.download(request(&etag)).await.unwrap().bytes, b"tes");
        // A change of the record does not change the bytes, so the old etag stays valid.
        let renamed = alice.rename(&id, "b").await.unwrap();
        assert_ne!(renamed.etag, etag);
        assert_eq!(renamed.revision, 2);
        for same in [&etag, &renamed.etag] {
            assert_eq!(alice.download(request(same)).await.unwrap().bytes, b"tes");
        }
        alice.upload_version(&id, b"other").await.unwrap();
        for stale in [etag.as_str(), "another"] {
            let error = alice.download(request(stale)).await.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
        }
        let disclosures = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.file_download}";
        assert_eq!(s.superuser.query_number(disclosures).await, 3, "a rejected download is not a disclosure");
    });
}

#[test]
fn reads_only_existing_versions() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, b"bytes").await;
        let request = |version| DownloadFileRequest { version, ..range_request(&id, 0, 0) };
        assert_eq!(alice.download(request(1)).await.unwrap().bytes, b"bytes");
        for version in [2, i32::MAX] {
            assert_eq!(alice.download(request(version)).await.unwrap_err().code(), Code::NotFound);
        }
        assert_eq!(alice.download(request(-1)).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn file_in_trash_cannot_be_read() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, b"bytes").await;
        alice.delete(&id).await.unwrap();
        let error = alice.read(&id).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "FILE_DELETED"));
        alice.undelete(&id).await.unwrap();
        assert_eq!(alice.read(&id).await.unwrap(), b"bytes"[..]);
    });
}

#[test]
fn unavailable_file_cannot_be_read_by_any_range() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, b"bytes").await;
        for state in ContentState::ALL.iter().filter(|state| **state != ContentState::Available) {
            s.superuser.set_content_state(*state).await;
            for (offset, limit) in [(0, 0), (0, 1), (-1, 0), (5, 0)] {
                let error = alice.download(range_request(&id, offset, limit)).await.unwrap_err();
                let got = (error.code(), reason(&error));
                assert_eq!(got, (Code::FailedPrecondition, "FILE_NOT_AVAILABLE".to_owned()), "{state:?}");
            }
        }
        s.superuser.set_content_state(ContentState::Available).await;
    });
}

async fn object_key(s: &Service) -> strongroom::domain::object_key::ObjectKey {
    s.store.list("", None, 10).await.unwrap().objects.remove(0).key
}

#[test]
fn missing_object_is_data_loss_and_record_remains() {
    service_test(|s| async move {
        s.allow_logged_errors();
        s.allow_lost_objects();
        let alice = s.alice();
        let id = upload_file(&alice, b"bytes").await;
        s.store.delete(&object_key(&s).await).await.unwrap();
        let lost = alice.read(&id).await.unwrap_err();
        assert_eq!((lost.code(), reason(&lost).as_str()), (Code::DataLoss, "OBJECT_MISSING"));
        assert_eq!(
            s.superuser
                .query_number(
                    "SELECT count(*) FROM audit_entries WHERE action = {audit_action.file_download}"
                )
                .await,
            0
        );
        alice.get(&id).await.unwrap();
        assert_eq!(alice.list_names(Default::default()).await, ["a.bin"]);
        alice.delete(&id).await.unwrap();
        alice.purge(&id).await.unwrap();
        assert_eq!(s.quota_row(&alice).await.used_bytes, 0);
    });
}

#[test]
fn damaged_object_of_same_length_is_data_loss() {
    service_test(|s| async move {
        s.allow_logged_errors();
        s.allow_lost_objects();
        let alice = s.alice();
        let data = pattern(3 * PART);
        let id = upload_file(&alice, &data).await;
        let key = object_key(&s).await;
        let mut damaged_data = data.clone();
        damaged_data[PART] ^= 1;
        s.store.delete(&key).await.unwrap();
        let body = Payload::from(bytes::Bytes::from(damaged_data));
        s.store.put(&key, body, &PutOptions::default()).await.unwrap();
        let damaged = alice.read(&id).await.unwrap_err();
        assert_eq!((damaged.code(), reason(&damaged).as_str()), (Code::DataLoss, "OBJECT_DAMAGED"));
    });
}

#[test]
fn truncated_object_is_data_loss() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let alice = s.alice();
        let data = pattern(4 * PART);
        let id = upload_file(&alice, &data).await;
        for after_bytes in [0, 1, PART as u64, data.len() as u64 - 1] {
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, Fault::EndStream { after_bytes }));
            let damaged = alice.read(&id).await.unwrap_err();
            let got = (damaged.code(), reason(&damaged));
            assert_eq!(got, (Code::DataLoss, "OBJECT_DAMAGED".to_owned()), "{after_bytes}");
        }
    });
}

#[test]
fn broken_read_returns_unavailable() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, &pattern(4 * PART)).await;
        for fault in [
            Fault::Before(StorageErrorKind::Transient),
            Fault::Before(StorageErrorKind::Unavailable),
            Fault::CutStream { after_bytes: 100_000 },
        ] {
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, fault));
            let unavailable = alice.read(&id).await.unwrap_err();
            let got = (unavailable.code(), reason(&unavailable));
            assert_eq!(got, (Code::Unavailable, "STORAGE_UNAVAILABLE".to_owned()), "{fault:?}");
        }
        alice.read(&id).await.unwrap();
    });
}

#[test]
fn disclosure_is_audited_before_first_byte() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, &pattern(10 * PART)).await;
        let mut stream = s.bob().files.download_file(range_request(&id, 5, 100)).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert!(matches!(first.message, Some(Message::Header(_))));
        let sql = "SELECT format('%s %s v%s %s %s', actor_id, is_allowed, version, details->>'offset', details->>'length')
                   FROM audit_entries WHERE action = {audit_action.file_download}";
        assert_eq!(s.superuser.query_texts(sql).await, ["bob t v1 5 100"]);
    });
}

#[test]
fn concurrent_downloads_are_each_audited() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(PART);
        let id = upload_file(&alice, &data).await;
        let reads = (0..100).map(|_| alice.read(&id));
        for read in futures::future::join_all(reads).await {
            assert_eq!(read.unwrap(), data);
        }
        assert_eq!(
            s.superuser
                .query_number(
                    "SELECT count(*) FROM audit_entries WHERE action = {audit_action.file_download}"
                )
                .await,
            100
        );
    });
}

#[test]
fn interrupted_downloads_do_not_affect_later_ones() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, &pattern(40 * PART)).await;
        for _ in 0..20 {
            let mut stream =
                alice.files.clone().download_file(range_request(&id, 0, 0)).await.unwrap().into_inner();
            stream.message().await.unwrap().unwrap();
            drop(stream);
        }
        assert_eq!(alice.read(&id).await.unwrap().len(), 40 * PART);
    });
}

#[test]
fn rejects_file_id_that_is_no_uuid() {
    service_test(|s| async move {
        for id in ["", "abc", "../../x"] {
            let error = s.alice().read(id).await.unwrap_err();
            assert_eq!(
                (error.code(), reason(&error).as_str()),
                (Code::InvalidArgument, "INVALID_FIELD"),
                "{id:?}"
            );
        }
        let sized = UploadSpec { size_bytes: Some(1), ..spec("a") };
        s.alice().upload(sized, b"x").await.unwrap();
    });
}
