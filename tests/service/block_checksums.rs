//! Downloads compare each block with its checksum before they send any byte of it; every way to store a file records
//! the checksums.

use std::ops::Range;

use chrono::Duration;
use strongroom::{
    app::storage::delete_due_blobs::delete_due_blobs,
    domain::{block_checksums::Crc32c, object_key::ObjectKey},
    proto::v1::{
        CopyFileRequest, DownloadFileRequest, FileState, FileStateReason, download_file_response::Message,
    },
    storage::flaky::{Fault, Operation, Plan},
    worker,
};
use tonic::{Code, Status};

use crate::{
    damaged::replace_object,
    direct::complete_without_verification,
    harness::{PART, Service, direct_test, file_id, pattern, reason, service_test, service_test_with, spec},
    restore::{adopt, list_recovered, readopt, restore_after, stop},
};

pub(crate) const BLOCK: usize = 1024 * 1024;
/// The size of a file of four blocks, the last of which is short.
pub(crate) const SIZE: usize = 3 * BLOCK + 12_345;

pub(crate) async fn upload_file(s: &Service, data: &[u8]) -> String {
    file_id(&s.alice().upload(spec("a.bin"), data).await.unwrap())
}

/// Inverts a bit of the object of a file.
pub(crate) async fn damage(s: &Service, id: &str, data: &[u8], at: usize) {
    let key = format!(
        "SELECT storage_key FROM blobs WHERE id = (SELECT blob_id FROM versions WHERE file_id = '{id}')"
    );
    let key = ObjectKey::parse(&s.superuser.query_texts(&key).await[0]).unwrap();
    let mut damaged = data.to_vec();
    damaged[at] ^= 1;
    replace_object(s, &key, &damaged).await;
}

/// The bytes that a client received, and the error that ended the download.
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) error: Option<Status>,
}

/// Downloads a range as far as possible.
pub(crate) async fn read_range(s: &Service, id: &str, range: Range<usize>) -> Received {
    let request = DownloadFileRequest {
        file_id: id.to_owned(),
        read_offset: range.start as i64,
        read_limit: range.len() as i64,
        ..DownloadFileRequest::default()
    };
    let mut stream = s.alice().files.clone().download_file(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    let error = loop {
        match stream.message().await {
            Ok(Some(message)) => match message.message.unwrap() {
                Message::Chunk(chunk) => bytes.extend_from_slice(&chunk.data),
                Message::Header(_) => {}
            },
            Ok(None) => break None,
            Err(status) => break Some(status),
        }
    };
    Received { bytes, error }
}

pub(crate) fn assert_damaged(error: Option<Status>) {
    let error = error.expect("the download ends with an error");
    assert_eq!((error.code(), reason(&error).as_str()), (Code::DataLoss, "OBJECT_DAMAGED"));
}

/// Returns the recorded checksums of the blob of a file, in hexadecimal digits.
pub(crate) async fn recorded_checksums(s: &Service, id: &str) -> Vec<String> {
    let recorded = format!(
        "SELECT encode(c.block_checksums, 'hex') FROM blob_checksums AS c
         JOIN versions AS v ON v.tenant_id = c.tenant_id AND v.blob_id = c.blob_id WHERE v.file_id = '{id}'"
    );
    s.superuser.query_texts(&recorded).await
}

/// Returns the recorded checksums of all blobs.
pub(crate) async fn recorded_of_all(s: &Service) -> Vec<String> {
    s.superuser.query_texts("SELECT encode(block_checksums, 'hex') FROM blob_checksums").await
}

/// Computes the checksums of a content in the same format.
pub(crate) fn compute_checksums(data: &[u8]) -> String {
    let of_block = |block: &[u8]| {
        let checksum = Crc32c::compute([block]).to_be_bytes();
        checksum.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    data.chunks(BLOCK).map(of_block).collect()
}

pub(crate) async fn count_checksums(s: &Service) -> i64 {
    s.superuser.query_number("SELECT count(*) FROM blob_checksums").await
}

pub(crate) async fn wait_until_idle(s: &Service) {
    s.wait_until("background work ends", || async { s.app.is_idle() }).await;
}

#[test]
fn no_byte_of_damaged_block_is_sent() {
    service_test(|s| async move {
        s.allow_logged_errors();
        let data = pattern(SIZE);
        // The ranges, the damaged byte of the second block, and the end of the bytes that are sent.
        let cases = [
            (100..2 * BLOCK + 100, BLOCK + 5, BLOCK),
            // The damage is in the block, but not in the range.
            (BLOCK + 10..BLOCK + 20, BLOCK + 5, BLOCK + 10),
            (0..SIZE, 2 * BLOCK - 1, BLOCK),
            (3 * BLOCK + 1..SIZE, SIZE - 1, 3 * BLOCK + 1),
        ];
        for (range, damaged, sent_end) in cases {
            let id = upload_file(&s, &data).await;
            damage(&s, &id, &data, damaged).await;
            let received = read_range(&s, &id, range.clone()).await;
            assert!(received.bytes == data[range.start..sent_end], "{range:?}: {}", received.bytes.len());
            assert_damaged(received.error);
            let alice = s.alice();
            s.wait_until("the file is marked", || async {
                alice.get(&id).await.unwrap().state() == FileState::Error
            })
            .await;
            assert_eq!(alice.get(&id).await.unwrap().state_reason(), FileStateReason::ObjectDamaged);
        }
    });
}

#[test]
fn range_of_small_file_is_verified_with_its_whole() {
    service_test(|s| async move {
        s.allow_logged_errors();
        s.allow_lost_objects();
        let data = pattern(BLOCK);
        let id = upload_file(&s, &data).await;
        assert_eq!(recorded_checksums(&s, &id).await, [""; 0], "the CRC-64 covers the only block");
        damage(&s, &id, &data, 7).await;
        let received = read_range(&s, &id, 1_000..2_000).await;
        assert_eq!(received.bytes, b"");
        assert_damaged(received.error);
    });
}

#[test]
fn damage_outside_touched_blocks_is_not_read() {
    service_test(|s| async move {
        s.allow_lost_objects();
        let data = pattern(SIZE);
        let id = upload_file(&s, &data).await;
        damage(&s, &id, &data, BLOCK).await;
        for range in [0..BLOCK, 5..6, 2 * BLOCK..SIZE, 2 * BLOCK + 7..3 * BLOCK + 1] {
            let received = read_range(&s, &id, range.clone()).await;
            assert!(received.bytes == data[range.clone()] && received.error.is_none(), "{range:?}");
        }
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);
    });
}

#[test]
fn second_read_heals_transient_fault() {
    service_test(|s| async move {
        for size in [PART, SIZE] {
            let data = pattern(size);
            let id = upload_file(&s, &data).await;
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, 1, Fault::FlipBit));
            let received = read_range(&s, &id, 0..size).await;
            assert!(received.bytes == data && received.error.is_none(), "{size}");
            assert_eq!(s.faults.call_count(Operation::Get), 2);
            assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);
        }
    });
}

#[test]
fn two_faults_end_download_and_mark_no_file() {
    service_test(|s| async move {
        s.allow_logged_errors();
        for size in [PART, SIZE] {
            let data = pattern(size);
            let id = upload_file(&s, &data).await;
            let twice = Plan::new().with_fault(Operation::Get, 1, Fault::FlipBit);
            s.faults.set_plan(twice.with_fault(Operation::Get, 2, Fault::FlipBit));
            let received = read_range(&s, &id, 0..size).await;
            assert_eq!(received.bytes, b"");
            assert_damaged(received.error);
            wait_until_idle(&s).await;
            assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Available);
            assert!(s.alice().read(&id).await.unwrap() == data);
        }
        let data = pattern(SIZE);
        assert_eq!(recorded_of_all(&s).await, [compute_checksums(&data)], "right checksums are kept");
    });
}

#[test]
fn file_without_checksums_is_read_as_before() {
    service_test(|s| async move {
        s.allow_logged_errors();
        s.allow_lost_objects();
        let data = pattern(SIZE);
        let id = upload_file(&s, &data).await;
        s.superuser.execute("DELETE FROM blob_checksums").await;
        for range in [0..SIZE, 5..BLOCK + 5, SIZE - 1..SIZE] {
            let received = read_range(&s, &id, range.clone()).await;
            assert!(received.bytes == data[range.clone()] && received.error.is_none(), "{range:?}");
        }
        damage(&s, &id, &data, BLOCK).await;
        let received = read_range(&s, &id, BLOCK..BLOCK + 10).await;
        assert_eq!((received.bytes.len(), received.error.is_none()), (10, true));
        assert_damaged(read_range(&s, &id, 0..SIZE).await.error);
    });
}

#[test]
fn checksums_are_read_in_slices() {
    let one_at_a_time = |config: &mut strongroom::config::Config| config.downloads.block_checksums_max = 1;
    service_test_with(one_at_a_time, |s| async move {
        s.allow_logged_errors();
        s.allow_lost_objects();
        let data = pattern(SIZE);
        let id = upload_file(&s, &data).await;
        for range in [0..SIZE, 0..1, BLOCK - 1..2 * BLOCK + 1, 3 * BLOCK..SIZE, BLOCK..3 * BLOCK] {
            let received = read_range(&s, &id, range.clone()).await;
            assert!(received.bytes == data[range.clone()] && received.error.is_none(), "{range:?}");
        }
        let from_end = DownloadFileRequest {
            file_id: id.clone(),
            read_offset: -2 * BLOCK as i64,
            ..DownloadFileRequest::default()
        };
        // A part of a piece, whose checksum is not that of the piece.
        let start = 3 * BLOCK + 5;
        let part = DownloadFileRequest { read_offset: start as i64, read_limit: 100, ..from_end.clone() };
        assert!(s.alice().download(part).await.unwrap().bytes == data[start..start + 100]);
        assert!(s.alice().download(from_end).await.unwrap().bytes == data[SIZE - 2 * BLOCK..]);
        damage(&s, &id, &data, SIZE - 1).await;
        let received = read_range(&s, &id, 0..SIZE).await;
        assert!(received.bytes == data[..3 * BLOCK]);
        assert_damaged(received.error);
    });
}

#[test]
fn one_stream_records_checksums() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let id = upload_file(&s, &data).await;
        assert_eq!(recorded_checksums(&s, &id).await, [compute_checksums(&data)]);
        let other = pattern(BLOCK + 1);
        let version = s.alice().upload_version(&id, &other).await.unwrap();
        assert_eq!(version.version, 2);
        let mut recorded = recorded_checksums(&s, &id).await;
        recorded.sort_by_key(String::len);
        assert_eq!(recorded, [compute_checksums(&other), compute_checksums(&data)]);
    });
}

/// A small and a large file are committed together: the database inserts the checksums of the large one only.
#[test]
fn batch_with_a_small_file_records_checksums() {
    let configure = |config: &mut strongroom::config::Config| config.uploads.commit_connections_max = 1;
    service_test_with(configure, |s| async move {
        let (data, stored) =
            (pattern(SIZE), || async { s.store.list("", None, 10).await.unwrap().objects.len() });
        let locker = s.database.connect_as_superuser().await;
        locker.execute("BEGIN; LOCK TABLE blob_checksums IN EXCLUSIVE MODE").await;
        let (alice, first) = (s.alice(), pattern(BLOCK + 1));
        let batch = async {
            let waiting = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'";
            s.wait_until("the first commit waits", || async { s.superuser.query_number(waiting).await > 0 })
                .await;
            let release = async {
                s.wait_until("the others wait for their commit", || async { stored().await == 3 }).await;
                locker.execute("ROLLBACK").await;
            };
            let (small, large) = (alice.upload(spec("small"), b"x"), alice.upload(spec("large"), &data));
            let (small, large, ()) = tokio::join!(small, large, release);
            small.unwrap();
            file_id(&large.unwrap())
        };
        let (first, large) = tokio::join!(alice.upload(spec("first"), &first), batch);
        first.unwrap();
        assert_eq!(recorded_checksums(&s, &large).await, [compute_checksums(&data)]);
    });
}

#[test]
fn upload_resumed_inside_blocks_records_checksums() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        let upload = alice.create_upload(spec("a.bin")).await.unwrap();
        // Streams that end inside parts, single parts, and a stream that sends stored bytes again.
        for end in [3 * PART + 10, BLOCK + 5 * PART + 1, 2 * BLOCK + PART] {
            let from = alice.get_upload(&upload.id).await.unwrap().persisted_size_bytes as usize;
            alice.resume_upload(&upload.id, &data[..end], from, false).await.unwrap_err();
            let from = alice.get_upload(&upload.id).await.unwrap().persisted_size_bytes as usize;
            assert_eq!(from, end - end % PART);
            alice.upload_part(&upload.id, from, &data[from..from + PART]).await.unwrap();
        }
        alice.resume_upload(&upload.id, &data[..2 * BLOCK + 4 * PART], BLOCK, false).await.unwrap_err();
        let from = alice.get_upload(&upload.id).await.unwrap().persisted_size_bytes as usize;
        let file = file_id(&alice.resume_upload(&upload.id, &data, from, true).await.unwrap());
        assert_eq!(recorded_checksums(&s, &file).await, [compute_checksums(&data)]);
        assert!(alice.read(&file).await.unwrap() == data);
    });
}

#[test]
fn completed_parts_record_checksums() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(BLOCK + 3 * PART + 9));
        let upload = alice.create_upload(spec("a.bin")).await.unwrap();
        for (n, part) in data.chunks(PART).enumerate() {
            alice.upload_part(&upload.id, n * PART, part).await.unwrap();
        }
        let file = alice.complete_upload(&upload.id, data.len()).await.unwrap();
        assert_eq!(recorded_checksums(&s, &file.id).await, [compute_checksums(&data)]);
    });
}

#[test]
fn parts_of_previous_version_leave_file_without_checksums() {
    service_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(SIZE));
        for sql in [
            "UPDATE upload_parts SET block_checksums = NULL, partial_block_checksum = NULL",
            "UPDATE upload_parts SET block_checksums = NULL, partial_block_checksum = NULL WHERE number = 3",
            // One block less than the parts have.
            "UPDATE upload_parts SET block_checksums = ''
             WHERE number = (SELECT min(number) FROM upload_parts WHERE octet_length(block_checksums) > 0)",
        ] {
            let upload = alice.create_upload(spec("a.bin")).await.unwrap();
            alice.resume_upload(&upload.id, &data[..2 * BLOCK], 0, false).await.unwrap_err();
            s.superuser.execute(sql).await;
            let file = file_id(&alice.resume_upload(&upload.id, &data, 2 * BLOCK, true).await.unwrap());
            assert_eq!(recorded_checksums(&s, &file).await, [""; 0]);
            assert!(alice.read(&file).await.unwrap() == data);
        }
    });
}

#[test]
fn scrubbing_records_missing_checksums() {
    service_test(|s| async move {
        let id = crate::scrub::upload_file(&s, SIZE).await;
        s.superuser.execute("DELETE FROM blob_checksums").await;
        s.clock.advance(Duration::seconds(1));
        assert_eq!(crate::scrub::scrub(&s).await, 1);
        assert_eq!(recorded_checksums(&s, &id).await, [compute_checksums(&pattern(SIZE))]);
    });
}

#[test]
fn verification_of_direct_upload_records_checksums() {
    direct_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(2 * BLOCK + 7));
        let id = complete_without_verification(&s, &alice, spec("a.bin"), &data).await;
        assert_eq!(count_checksums(&s).await, 0);
        worker::run_due_jobs(&s.app).await;
        assert_eq!(recorded_checksums(&s, &id).await, [compute_checksums(&data)]);
        assert!(alice.read(&id).await.unwrap() == data);
    });
}

#[test]
fn readopted_file_records_checksums() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        upload_file(&s, b"kept").await;
        let restored = restore_after(&s, async |s| {
            upload_file(s, &data).await;
        })
        .await;
        adopt(&restored).await;
        let report = readopt(&restored).await;
        assert_eq!(report.readopted.count, 1, "{report:#?}");
        let files = list_recovered(&restored.ada()).await;
        assert_eq!(recorded_checksums(&restored, &files["a.bin"]).await, [compute_checksums(&data)]);
        stop(restored).await;
    });
}

#[test]
fn checksums_are_deleted_with_their_blob() {
    service_test(|s| async move {
        let data = pattern(SIZE);
        let id = upload_file(&s, &data).await;
        let copy = CopyFileRequest { file_id: id.clone(), ..CopyFileRequest::default() };
        let copy = s.alice().copy(copy).await.unwrap().id;
        assert_eq!(
            recorded_checksums(&s, &copy).await,
            [compute_checksums(&data)],
            "a copy has the same blob"
        );
        for (purged, left) in [(&id, 1), (&copy, 0)] {
            s.alice().purge(purged).await.unwrap();
            s.clock.advance(Duration::hours(73));
            delete_due_blobs(&s.app).await.unwrap();
            assert_eq!(count_checksums(&s).await, left);
        }
    });
}
