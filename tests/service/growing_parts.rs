//! Uploads with more bytes than parts of equal size allow.

use strongroom::{
    config::{Config, import_source::SourceLocation},
    domain::object_label::is_fragment,
    proto::v1::UploadSpec,
    storage::{
        PartLayout, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::Status;
use tonic_types::StatusExt;

use crate::{
    harness::{
        PART, Service, direct_test, file_id, import_results, pattern, reason, service_test_with, spec,
    },
    import::{key, source_config},
};

/// Runs a test with two parts of equal size, so that the third part has two fragments, the fourth has three, and so on.
fn growing_test<F, Fut>(test: F)
where
    F: FnOnce(Service) -> Fut,
    Fut: Future<Output = ()>,
{
    service_test_with(|config| config.uploads.equal_parts_max = 2, test);
}

#[test]
fn later_parts_are_assembled_from_fragments() {
    growing_test(|s| async move {
        let alice = s.alice();
        // With the number of assembled parts. The last bytes are a part of their own if they fit a buffer.
        let sizes = [
            (2 * PART, 0),
            (2 * PART + 1, 0),
            (3 * PART, 0),
            (3 * PART + 1, 1),
            (4 * PART, 1),
            (4 * PART + 1, 1),
            (5 * PART + 1, 2),
            (7 * PART, 2),
            (7 * PART + 5, 2),
            (13 * PART + 9, 4),
        ];
        for (size, assembled) in sizes {
            let data = pattern(size);
            for is_size_known in [true, false] {
                s.faults.set_plan(Plan::new());
                let spec =
                    UploadSpec { size_bytes: is_size_known.then_some(size as i64), ..spec("large.bin") };
                let id = file_id(&alice.upload(spec, &data).await.unwrap());
                assert!(alice.read(&id).await.unwrap() == data, "{size} bytes, {is_size_known}");
                assert_eq!(s.faults.call_count(Operation::CopyPart), assembled, "{size} bytes");
            }
        }
        s.wait_until("the fragments are deleted", || async {
            s.store.list("", None, 100).await.unwrap().objects.len() == 2 * sizes.len()
                && s.store.list_multiparts("", None, 1).await.unwrap().multiparts.is_empty()
        })
        .await;
    });
}

#[test]
fn fragments_say_that_they_are_no_files() {
    growing_test(|s| async move {
        let down = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault_in_all(Operation::Delete, down));
        let id = file_id(&s.alice().upload(spec("large.bin"), &pattern(9 * PART)).await.unwrap());
        let mut fragments = 0;
        for object in s.store.list("", None, 100).await.unwrap().objects {
            let metadata = s.store.read_metadata(&object.key).await.unwrap();
            if metadata.contains(&("file-id".to_owned(), id.clone())) {
                continue;
            }
            assert!(is_fragment(&metadata), "{metadata:?}");
            s.store.delete(&object.key).await.unwrap();
            fragments += 1;
        }
        assert!(fragments > 0, "no fragment could be deleted");
    });
}

#[test]
fn failed_assembly_leaves_nothing() {
    growing_test(|s| async move {
        for (operation, nth) in [
            (Operation::StartMultipart, 2),
            (Operation::PutPart, 3),
            (Operation::CompleteMultipart, 1),
            (Operation::CopyPart, 1),
            (Operation::CopyPart, 2),
        ] {
            for fault in
                [Fault::Before(StorageErrorKind::Transient), Fault::After(StorageErrorKind::Transient)]
            {
                s.faults.set_plan(Plan::new().with_fault(operation, nth, fault));
                let status = s.alice().upload(spec("large.bin"), &pattern(9 * PART)).await.unwrap_err();
                assert_eq!(reason(&status), "STORAGE_UNAVAILABLE", "{operation:?} {nth}");
                // A start whose response is lost leaves an upload that only the sweeper finds.
                if (operation, fault)
                    == (Operation::StartMultipart, Fault::After(StorageErrorKind::Transient))
                {
                    let open = s.store.list_multiparts("", None, 10).await.unwrap().multiparts;
                    for upload in open {
                        s.store.abort_multipart(&upload.key, &upload.id).await.unwrap();
                    }
                }
                s.assert_nothing_is_left().await;
            }
        }
    });
}

#[test]
fn resumable_upload_keeps_equal_parts() {
    growing_test(|s| async move {
        let (alice, data) = (s.alice(), pattern(6 * PART + 7));
        let upload = alice.create_upload(spec("large.bin")).await.unwrap();
        let response = alice.resume_upload(&upload.id, &data, 0, true).await.unwrap();
        assert!(alice.read(&file_id(&response)).await.unwrap() == data);
        assert_eq!(s.faults.call_count(Operation::CopyPart), 0);
    });
}

#[test]
fn parts_of_direct_upload_are_as_large_as_necessary() {
    direct_test(|s| async move {
        let (alice, size) = (s.alice(), 1_500 * PART as i64);
        let upload = UploadSpec { size_bytes: Some(size), ..spec("large.bin") };
        let direct = alice.create_direct_upload(upload).await.unwrap();
        assert_eq!(direct.parts.len(), 1_000, "the maximum number of URLs");
        assert_eq!(direct.parts.iter().map(|part| part.size_bytes).sum::<i64>(), size);
        alice.cancel_upload(&direct.id).await.unwrap();
        s.assert_nothing_is_left().await;
    });
}

fn assert_too_large(status: &Status, limit: u64) {
    assert_eq!(reason(status), "FILE_TOO_LARGE");
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["limit_bytes"], limit.to_string());
}

#[test]
fn imported_file_has_growing_parts() {
    let (old, data) = (tempfile::tempdir().unwrap(), pattern(5 * PART + 1));
    std::fs::write(old.path().join("large.bin"), &data).unwrap();
    let add_source = source_config(SourceLocation::Directory(old.path().to_owned()), "*");
    let configure = |config: &mut Config| {
        config.uploads.equal_parts_max = 2;
        add_source(config);
    };
    service_test_with(configure, |s| async move {
        let report = s.ada().import_files("old", false, [key("large.bin")]).await.unwrap();
        let [result] = import_results(&report).try_into().unwrap();
        assert!(s.ada().read(&result.file_id).await.unwrap() == data);
        assert!(s.faults.call_count(Operation::CopyPart) > 0, "parts were assembled from fragments");
    });
}

#[test]
fn file_beyond_the_last_part_is_refused_with_the_limit() {
    growing_test(|s| async move {
        let alice = s.alice();
        alice.quota().await.unwrap();
        let raise = "UPDATE quotas SET ceiling_bytes = 1::bigint << 60, limit_bytes = 1::bigint << 60,
            image_bytes_max = 1::bigint << 60, video_bytes_max = 1::bigint << 60, audio_bytes_max = 1::bigint << 60,
            document_bytes_max = 1::bigint << 60, other_bytes_max = 1::bigint << 60";
        s.superuser.execute(raise).await;
        let limit = PartLayout::growing(PART as u64, 2).size_max_bytes();
        let too_large = UploadSpec { size_bytes: Some(limit as i64 + 1), ..spec("large.bin") };
        let status = alice.upload(too_large, b"x").await.unwrap_err();
        assert_too_large(&status, limit);
        // The parts of a resumable upload do not grow.
        let limit = PartLayout::equal(PART as u64).size_max_bytes();
        let sized = |size_bytes: u64| UploadSpec { size_bytes: Some(size_bytes as i64), ..spec("large.bin") };
        let status = alice.create_upload(sized(limit + 1)).await.unwrap_err();
        assert_too_large(&status, limit);
        let upload = alice.create_upload(sized(limit)).await.unwrap();
        alice.cancel_upload(&upload.id).await.unwrap();
        s.assert_nothing_is_left().await;
    });
}
