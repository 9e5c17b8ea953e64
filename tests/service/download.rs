//! A file goes out: whole or in ranges, and never quietly wrong.

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

async fn stored(caller: &Caller, data: &[u8]) -> String {
    file_id(&caller.upload(spec("a.bin"), data).await.unwrap())
}

fn range(id: &str, read_offset: i64, read_limit: i64) -> DownloadFileRequest {
    DownloadFileRequest { file_id: id.to_owned(), read_offset, read_limit, ..Default::default() }
}

#[test]
fn the_header_tells_the_file_the_range_and_the_digest() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(5 * PART + 1);
        let id = stored(&alice, &data).await;
        let whole = alice.download(range(&id, 0, 0)).await.unwrap();
        assert_eq!(whole.bytes, data);
        let told = whole.header.file.unwrap();
        assert_eq!(told.download_count, None, "looking the count up would cost the download a round trip");
        let got = alice.get(&id).await.unwrap();
        assert_eq!(told, File { download_count: None, last_access_time: None, ..got });
        assert_eq!(whole.header.sha256, sha256(&data));
        let told = whole.header.range.unwrap();
        assert_eq!((told.offset, told.length, told.total_bytes), (0, data.len() as i64, data.len() as i64));
    });
}

#[test]
fn any_range_can_be_read_also_from_the_end() {
    service_test(|s| async move {
        let alice = s.alice();
        let size = 3 * PART + 7;
        let data = pattern(size);
        let id = stored(&alice, &data).await;
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
            let read = alice.download(range(&id, offset, limit)).await.unwrap();
            assert_eq!(read.bytes, data[expected.clone()], "{offset} {limit}");
            let told = read.header.range.unwrap();
            let wanted = (expected.start as i64, expected.len() as i64, size as i64);
            assert_eq!((told.offset, told.length, told.total_bytes), wanted, "{offset} {limit}");
            assert_eq!(read.header.sha256, sha256(&data));
        }
    });
}

#[test]
fn a_range_beyond_the_end_is_refused() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, b"bytes").await;
        for offset in [6, i64::MAX] {
            let refused = alice.download(range(&id, offset, 0)).await.unwrap_err();
            let got = (refused.code(), reason(&refused));
            assert_eq!(got, (Code::OutOfRange, "READ_OFFSET_OUT_OF_RANGE".to_owned()), "{offset}");
        }
        let negative = alice.download(range(&id, 0, -1)).await.unwrap_err();
        assert_eq!((negative.code(), reason(&negative).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    });
}

#[test]
fn an_empty_file_is_a_header_without_chunks() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, b"").await;
        for offset in [0, -10] {
            let read = alice.download(range(&id, offset, 0)).await.unwrap();
            assert_eq!((read.chunks, read.header.sha256), (0, sha256(b"")));
        }
    });
}

#[test]
fn a_range_of_a_file_whose_content_has_changed_is_refused_to_who_holds_the_old_etag() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, b"bytes").await;
        let etag = alice.get(&id).await.unwrap().etag;
        let request = |if_etag: &str| DownloadFileRequest { if_etag: if_etag.to_owned(), ..range(&id, 2, 0) };
        assert_eq!(alice.download(request(&etag)).await.unwrap().bytes, b"tes");
        // What is written about a file may change meanwhile: its bytes are the same.
        let renamed = alice.rename(&id, "b").await.unwrap();
        assert_ne!(renamed.etag, etag);
        assert_eq!(renamed.revision, 2);
        for same in [&etag, &renamed.etag] {
            assert_eq!(alice.download(request(same)).await.unwrap().bytes, b"tes");
        }
        alice.upload_version(&id, b"other").await.unwrap();
        for stale in [etag.as_str(), "another"] {
            let refused = alice.download(request(stale)).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
        }
        let disclosures = "SELECT count(*) FROM audit_entries WHERE action = 3";
        assert_eq!(s.owner.number(disclosures).await, 3, "what did not travel was not disclosed");
    });
}

#[test]
fn only_versions_that_exist_can_be_read() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, b"bytes").await;
        let request = |version| DownloadFileRequest { version, ..range(&id, 0, 0) };
        assert_eq!(alice.download(request(1)).await.unwrap().bytes, b"bytes");
        for version in [2, i32::MAX] {
            assert_eq!(alice.download(request(version)).await.unwrap_err().code(), Code::NotFound);
        }
        assert_eq!(alice.download(request(-1)).await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn a_file_in_the_trash_cannot_be_read() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, b"bytes").await;
        alice.delete(&id).await.unwrap();
        let refused = alice.read(&id).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "FILE_DELETED"));
        alice.undelete(&id).await.unwrap();
        assert_eq!(alice.read(&id).await.unwrap(), b"bytes"[..]);
    });
}

#[test]
fn what_is_not_available_cannot_be_read_by_any_range() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, b"bytes").await;
        for state in ContentState::ALL.iter().filter(|state| **state != ContentState::Available) {
            s.owner.put_content_state(*state).await;
            for (offset, limit) in [(0, 0), (0, 1), (-1, 0), (5, 0)] {
                let refused = alice.download(range(&id, offset, limit)).await.unwrap_err();
                let got = (refused.code(), reason(&refused));
                assert_eq!(got, (Code::FailedPrecondition, "FILE_NOT_AVAILABLE".to_owned()), "{state:?}");
            }
        }
        s.owner.put_content_state(ContentState::Available).await;
    });
}

async fn key(s: &Service) -> strongroom::domain::object_key::ObjectKey {
    s.store.list("", None, 10).await.unwrap().objects.remove(0).key
}

#[test]
fn an_object_that_is_gone_is_data_loss_and_the_record_lives_on() {
    service_test(|s| async move {
        s.expect_errors_in_the_log();
        s.expect_lost_objects();
        let alice = s.alice();
        let id = stored(&alice, b"bytes").await;
        s.store.delete(&key(&s).await).await.unwrap();
        let lost = alice.read(&id).await.unwrap_err();
        assert_eq!((lost.code(), reason(&lost).as_str()), (Code::DataLoss, "OBJECT_MISSING"));
        assert_eq!(s.owner.number("SELECT count(*) FROM audit_entries WHERE action = 3").await, 0);
        alice.get(&id).await.unwrap();
        assert_eq!(alice.names(Default::default()).await, ["a.bin"]);
        alice.delete(&id).await.unwrap();
        alice.purge(&id).await.unwrap();
        assert_eq!(s.book(&alice).await.used_bytes, 0);
    });
}

#[test]
fn an_object_with_other_bytes_of_the_same_length_is_data_loss() {
    service_test(|s| async move {
        s.expect_errors_in_the_log();
        s.expect_lost_objects();
        let alice = s.alice();
        let data = pattern(3 * PART);
        let id = stored(&alice, &data).await;
        let key = key(&s).await;
        let mut rotten = data.clone();
        rotten[PART] ^= 1;
        s.store.delete(&key).await.unwrap();
        let body = Payload::from(bytes::Bytes::from(rotten));
        s.store.put(&key, body, &PutOptions::default()).await.unwrap();
        let damaged = alice.read(&id).await.unwrap_err();
        assert_eq!((damaged.code(), reason(&damaged).as_str()), (Code::DataLoss, "OBJECT_DAMAGED"));
    });
}

#[test]
fn an_object_that_became_shorter_is_data_loss_and_never_a_short_file() {
    service_test(|s| async move {
        s.expect_errors_in_the_log();
        let alice = s.alice();
        let data = pattern(4 * PART);
        let id = stored(&alice, &data).await;
        for after_bytes in [0, 1, PART as u64, data.len() as u64 - 1] {
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, Fault::EndStream { after_bytes }));
            let damaged = alice.read(&id).await.unwrap_err();
            let got = (damaged.code(), reason(&damaged));
            assert_eq!(got, (Code::DataLoss, "OBJECT_DAMAGED".to_owned()), "{after_bytes}");
        }
    });
}

#[test]
fn a_store_that_stops_in_the_middle_is_unavailable() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, &pattern(4 * PART)).await;
        for fault in [
            Fault::Before(StorageErrorKind::Transient),
            Fault::Before(StorageErrorKind::Unavailable),
            Fault::CutStream { after_bytes: 100_000 },
        ] {
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, fault));
            let away = alice.read(&id).await.unwrap_err();
            let got = (away.code(), reason(&away));
            assert_eq!(got, (Code::Unavailable, "STORAGE_UNAVAILABLE".to_owned()), "{fault:?}");
        }
        alice.read(&id).await.unwrap();
    });
}

#[test]
fn the_disclosure_is_written_down_before_the_first_byte_leaves() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, &pattern(10 * PART)).await;
        let mut stream = s.bob().files.download_file(range(&id, 5, 100)).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap();
        assert!(matches!(first.message, Some(Message::Header(_))));
        let sql = "SELECT format('%s %s v%s %s %s', actor_id, is_allowed, version, details->>'offset', details->>'length')
                   FROM audit_entries WHERE action = 3";
        assert_eq!(s.owner.texts(sql).await, ["bob t v1 5 100"]);
    });
}

#[test]
fn many_downloads_at_once_are_each_disclosed() {
    service_test(|s| async move {
        let alice = s.alice();
        let data = pattern(PART);
        let id = stored(&alice, &data).await;
        let reads = (0..100).map(|_| alice.read(&id));
        for read in futures::future::join_all(reads).await {
            assert_eq!(read.unwrap(), data);
        }
        assert_eq!(s.owner.number("SELECT count(*) FROM audit_entries WHERE action = 3").await, 100);
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_download_harms_nobody() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, &pattern(40 * PART)).await;
        for _ in 0..20 {
            let mut stream = alice.files.clone().download_file(range(&id, 0, 0)).await.unwrap().into_inner();
            stream.message().await.unwrap().unwrap();
            drop(stream);
        }
        assert_eq!(alice.read(&id).await.unwrap().len(), 40 * PART);
    });
}

#[test]
fn an_id_that_is_no_uuid_is_a_wrong_field() {
    service_test(|s| async move {
        for id in ["", "abc", "../../x"] {
            let refused = s.alice().read(id).await.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::InvalidArgument, "INVALID_FIELD"),
                "{id:?}"
            );
        }
        let told = UploadSpec { size_bytes: Some(1), ..spec("a") };
        s.alice().upload(told, b"x").await.unwrap();
    });
}
