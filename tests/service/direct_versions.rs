//! Direct uploads of new versions of a file. A version becomes current and readable when a job has verified
//! it; until then the file does not change.

use strongroom::{
    domain::digest::Digest,
    proto::v1::{File, FileState, FileStateReason, FileVersion, ListFileVersionsRequest, UploadSpec},
    storage::flaky::Operation,
    worker,
};
use tonic::{Code, Status};

use crate::{
    change_order::start_waiting,
    harness::{Caller, PART, Service, direct_test, file_id, pattern, reason, sha256, spec, violated_fields},
};

/// The size of a single PUT, and a size of several parts.
const SIZES: [usize; 2] = [1_000, 2 * PART + 7];

fn version_spec(id: &str, size: usize) -> UploadSpec {
    UploadSpec {
        file_id: id.to_owned(),
        size_bytes: Some(size as i64),
        change_description: "by a URL".to_owned(),
        ..UploadSpec::default()
    }
}

async fn upload_file(caller: &Caller) -> String {
    file_id(&caller.upload(spec("a.txt"), b"one").await.unwrap())
}

/// Sends a version to its URLs and completes it, without verification.
async fn complete_version(s: &Service, caller: &Caller, id: &str, bytes: &[u8]) -> Result<File, Status> {
    let direct = caller.create_direct_upload(version_spec(id, bytes.len())).await?;
    let sent = s.put_parts(&direct, bytes).await;
    Ok(caller.complete_direct_upload(&direct.id, &sent).await?.file.unwrap())
}

async fn get_version(caller: &Caller, id: &str, number: i32) -> FileVersion {
    let request = ListFileVersionsRequest { file_id: id.to_owned(), ..ListFileVersionsRequest::default() };
    let versions = caller.files.clone().list_file_versions(request).await.unwrap().into_inner().versions;
    versions.into_iter().find(|version| version.version == number).unwrap()
}

fn png(size: usize) -> Vec<u8> {
    let mut bytes = pattern(size);
    bytes[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    bytes
}

#[test]
fn version_becomes_current_after_verification() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let (id, bytes) = (upload_file(&alice).await, png(size));
            let before = alice.get(&id).await.unwrap();
            let completed = complete_version(&s, &alice, &id, &bytes).await.unwrap();
            assert_eq!((completed.version, completed.state()), (2, FileState::Processing));
            let before_verification = alice.get(&id).await.unwrap();
            assert_eq!(
                (
                    before_verification.version,
                    before_verification.state(),
                    &before_verification.sha256,
                    &before_verification.mime_type
                ),
                (1, FileState::Available, &before.sha256, &before.mime_type)
            );
            assert_eq!(alice.read(&id).await.unwrap(), b"one"[..]);
            let new = get_version(&alice, &id, 2).await;
            assert_eq!((new.state(), new.is_current), (FileState::Processing, false));
            assert_eq!(new.change_description, "by a URL");
            for error in [
                alice.read_version(&id, 2).await.unwrap_err(),
                alice.restore_version(&id, 2).await.unwrap_err(),
            ] {
                assert_eq!(reason(&error), "FILE_NOT_AVAILABLE");
            }

            assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
            let after = alice.get(&id).await.unwrap();
            assert_eq!((after.version, after.state()), (2, FileState::Available));
            assert_eq!((&after.sha256, after.size_bytes), (&sha256(&bytes), size as i64));
            assert_eq!((after.mime_type.as_str(), after.updated_by.as_str()), ("image/png", "alice"));
            assert_ne!(after.etag, before_verification.etag);
            assert!(alice.read(&id).await.unwrap() == bytes);
            assert_eq!(alice.read_version(&id, 1).await.unwrap(), b"one"[..]);
            let kinds = format!(
                "SELECT kind::text FROM events WHERE file_id = '{id}' AND version = 2 ORDER BY epoch, xid, n"
            );
            assert_eq!(s.superuser.query_texts(&kinds).await, ["40", "70"]);
        }
        let quota = alice.quota().await.unwrap();
        let charged = SIZES.iter().map(|size| size + 3).sum::<usize>() as i64;
        assert_eq!((quota.used_bytes, quota.reserved_bytes, quota.file_count), (charged, 0, 2));
    });
}

#[test]
fn version_that_fails_verification_is_charged_until_deleted() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let id = upload_file(&alice).await;
            let used = alice.quota().await.unwrap().used_bytes;
            let others = Digest::compute(b"other bytes").as_bytes().to_vec();
            let spec = UploadSpec { sha256: Some(others.into()), ..version_spec(&id, size) };
            let direct = alice.create_direct_upload(spec).await.unwrap();
            let sent = s.put_parts(&direct, &pattern(size)).await;
            alice.complete_direct_upload(&direct.id, &sent).await.unwrap();
            worker::run_due_jobs(&s.app).await;

            let failed = get_version(&alice, &id, 2).await;
            assert_eq!(
                (failed.state(), failed.state_reason(), failed.is_current),
                (FileState::Error, FileStateReason::ChecksumMismatch, false)
            );
            let file = alice.get(&id).await.unwrap();
            assert_eq!((file.version, file.state()), (1, FileState::Available));
            assert_eq!(alice.read(&id).await.unwrap(), b"one"[..]);
            assert_eq!(reason(&alice.read_version(&id, 2).await.unwrap_err()), "FILE_NOT_AVAILABLE");
            assert_eq!(alice.quota().await.unwrap().used_bytes, used + size as i64);
            alice.delete_version(&id, 2).await.unwrap();
            assert_eq!(alice.quota().await.unwrap().used_bytes, used);
        }
    });
}

#[test]
fn current_is_latest_available_version_in_any_order() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice).await;
        complete_version(&s, &alice, &id, b"two").await.unwrap();
        // Delay the job of version 2, so that version 3 is verified first.
        s.superuser.execute("UPDATE jobs SET run_time = run_time + interval '1 hour'").await;
        assert_eq!(complete_version(&s, &alice, &id, b"three").await.unwrap().version, 3);
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.read(&id).await.unwrap(), b"three"[..]);
        complete_version(&s, &alice, &id, b"four").await.unwrap();
        alice.upload_version(&id, b"five").await.unwrap();
        s.superuser.execute("UPDATE jobs SET run_time = run_time - interval '1 hour'").await;
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 2);
        let file = alice.get(&id).await.unwrap();
        assert_eq!((file.version, file.size_bytes), (5, 4));
        for (number, bytes) in [(2, &b"two"[..]), (3, b"three"), (4, b"four"), (5, b"five")] {
            assert_eq!(alice.read_version(&id, number).await.unwrap(), *bytes);
        }
    });
}

#[test]
fn direct_version_requires_upload_permission() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice).await;
        let denied = s.bob().create_direct_upload(version_spec(&id, 9)).await.unwrap_err();
        assert_eq!((denied.code(), reason(&denied).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        assert_eq!(
            s.mallory().create_direct_upload(version_spec(&id, 9)).await.unwrap_err().code(),
            Code::NotFound
        );
        let random = uuid::Uuid::from_u128(7).to_string();
        assert_eq!(
            alice.create_direct_upload(version_spec(&random, 9)).await.unwrap_err().code(),
            Code::NotFound
        );
        let named = UploadSpec { name: "b".to_owned(), ..version_spec(&id, 9) };
        assert_eq!(violated_fields(&alice.create_direct_upload(named).await.unwrap_err()), ["spec.name"]);
        alice.archive(&id).await.unwrap();
        let archived = alice.create_direct_upload(version_spec(&id, 9)).await.unwrap_err();
        assert_eq!(reason(&archived), "FILE_NOT_AVAILABLE");
        alice.unarchive(&id).await.unwrap();
        alice.delete(&id).await.unwrap();
        assert_eq!(
            reason(&alice.create_direct_upload(version_spec(&id, 9)).await.unwrap_err()),
            "FILE_DELETED"
        );
        alice.undelete(&id).await.unwrap();
        s.ada().set_limit_bytes(10).await;
        let large = alice.create_direct_upload(version_spec(&id, 9)).await.unwrap_err();
        assert_eq!(reason(&large), "QUOTA_BYTES_EXCEEDED");
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.reserved_bytes), (3, 0));
    });
}

#[test]
fn archived_file_accepts_version_after_unarchive() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let (id, bytes) = (upload_file(&alice).await, pattern(size));
            let direct = alice.create_direct_upload(version_spec(&id, size)).await.unwrap();
            let sent = s.put_parts(&direct, &bytes).await;
            alice.archive(&id).await.unwrap();
            for _ in 0..2 {
                let error = alice.complete_direct_upload(&direct.id, &sent).await.unwrap_err();
                assert_eq!(reason(&error), "FILE_NOT_AVAILABLE");
            }
            alice.unarchive(&id).await.unwrap();
            alice.complete_direct_upload(&direct.id, &sent).await.unwrap();
            worker::run_due_jobs(&s.app).await;
            assert!(alice.read(&id).await.unwrap() == bytes);
        }
    });
}

#[test]
fn version_of_purged_or_transferred_file_releases_quota() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let id = upload_file(&alice).await;
            let direct = alice.create_direct_upload(version_spec(&id, size)).await.unwrap();
            let sent = s.put_parts(&direct, &pattern(size)).await;
            alice.purge(&id).await.unwrap();
            let not_found = alice.complete_direct_upload(&direct.id, &sent).await.unwrap_err();
            assert_eq!(not_found.code(), Code::NotFound);
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
            assert_eq!(alice.get_upload(&direct.id).await.unwrap_err().code(), Code::NotFound);
        }
        let id = upload_file(&alice).await;
        let direct = alice.create_direct_upload(version_spec(&id, 9)).await.unwrap();
        let sent = s.put_parts(&direct, b"nine byte").await;
        s.superuser.execute("UPDATE files SET owner_id = 'bob'").await;
        let denied = alice.complete_direct_upload(&direct.id, &sent).await.unwrap_err();
        assert_eq!(reason(&denied), "NOT_ALLOWED");
        assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
    });
}

#[test]
fn trashed_or_archived_file_gets_verified_version() {
    direct_test(|s| async move {
        // The trash counts against the quota in acme, but not in the school.
        for owner in [s.alice(), s.pupil()] {
            let (trashed, archived) = (upload_file(&owner).await, upload_file(&owner).await);
            for id in [&trashed, &archived] {
                complete_version(&s, &owner, id, &png(100)).await.unwrap();
            }
            owner.delete(&trashed).await.unwrap();
            owner.archive(&archived).await.unwrap();
            worker::run_due_jobs(&s.app).await;
            for (id, state) in [(&trashed, FileState::Deleted), (&archived, FileState::Archived)] {
                let file = owner.get(id).await.unwrap();
                assert_eq!((file.state(), file.version), (state, 2));
                owner.read(id).await.unwrap_err();
            }
            owner.undelete(&trashed).await.unwrap();
            owner.unarchive(&archived).await.unwrap();
            for id in [&trashed, &archived] {
                assert!(owner.read(id).await.unwrap() == png(100));
            }
            let usage = format!(
                "SELECT format('%s %s', media_kind, file_count) FROM usage_counters JOIN tenants AS t
                 ON t.id = tenant_id WHERE file_count > 0 AND t.id = (SELECT tenant_id FROM files
                 WHERE id = '{trashed}')"
            );
            assert_eq!(s.superuser.query_texts(&usage).await, ["1 2"], "both files are images now");
        }
    });
}

#[test]
fn deleted_version_is_not_verified() {
    direct_test(|s| async move {
        let alice = s.alice();
        let (remaining, purged) = (upload_file(&alice).await, upload_file(&alice).await);
        for id in [&remaining, &purged] {
            complete_version(&s, &alice, id, b"never read").await.unwrap();
        }
        alice.delete_version(&remaining, 2).await.unwrap();
        alice.purge(&purged).await.unwrap();
        let gets = s.faults.call_count(Operation::Get);
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 2);
        assert_eq!(s.faults.call_count(Operation::Get), gets, "the job does not read a deleted version");
        assert_eq!(alice.get(&remaining).await.unwrap().version, 1);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 3);
    });
}

#[test]
fn second_completion_returns_same_version() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice).await;
        let direct = alice.create_direct_upload(version_spec(&id, 3)).await.unwrap();
        let sent = s.put_parts(&direct, b"two").await;
        let first: File = alice.complete_direct_upload(&direct.id, &sent).await.unwrap().file.unwrap();
        worker::run_due_jobs(&s.app).await;
        let again = alice.complete_direct_upload(&direct.id, &sent).await.unwrap();
        assert_eq!(again.file.unwrap(), first, "the second response equals the first");
        assert_eq!(alice.list_versions(&id, 0).await.unwrap().len(), 2);
    });
}

#[test]
fn verified_version_replaces_unverified_first_version() {
    direct_test(|s| async move {
        let alice = s.alice();
        let first = UploadSpec { size_bytes: Some(3), ..spec("a.txt") };
        let direct = alice.create_direct_upload(first).await.unwrap();
        let sent = s.put_parts(&direct, b"one").await;
        let id = alice.complete_direct_upload(&direct.id, &sent).await.unwrap().file.unwrap().id;
        s.superuser.execute("UPDATE jobs SET run_time = run_time + interval '1 hour'").await;
        complete_version(&s, &alice, &id, &png(100)).await.unwrap();
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Processing);
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        let current = alice.get(&id).await.unwrap();
        assert_eq!((current.version, current.state()), (2, FileState::Available));
        s.superuser.execute("UPDATE jobs SET run_time = run_time - interval '1 hour'").await;
        assert_eq!(worker::run_due_jobs(&s.app).await.done, 1);
        let file = alice.get(&id).await.unwrap();
        assert_eq!((file.version, &file.sha256), (2, &current.sha256));
        assert_eq!(alice.read_version(&id, 1).await.unwrap(), b"one"[..]);
    });
}

#[test]
fn verification_locks_file_before_blob() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice).await;
        complete_version(&s, &alice, &id, b"two").await.unwrap();
        // Like a purge, which locks the file first and then its blobs.
        let other = s.database.connect_as_superuser().await;
        other.execute("BEGIN; SELECT FROM files FOR UPDATE").await;
        let (caller, file) = (alice.clone(), id.clone());
        let renamed = start_waiting(&s, 1, async move { caller.rename(&file, "b").await }).await;
        let worker = s.clone();
        let verifying = async move { worker::run_due_jobs(&worker.app).await.done };
        let verifying = start_waiting(&s, 2, verifying).await;
        other.execute("SELECT FROM blobs FOR UPDATE NOWAIT; COMMIT").await;
        renamed.await.unwrap().unwrap();
        // Its event is later than that of the change, whose transaction began to wait earlier.
        assert_eq!(verifying.await.unwrap(), 1);
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn version_verified_in_archive_moves_to_archive_class() {
    direct_test(|s| async move {
        s.faults.enable_storage_classes();
        let alice = s.alice();
        let id = upload_file(&alice).await;
        complete_version(&s, &alice, &id, b"two").await.unwrap();
        s.superuser.execute("UPDATE jobs SET run_time = run_time + interval '1 hour'").await;
        alice.archive(&id).await.unwrap();
        while worker::run_round(&s.app).await.done > 0 {}
        let archived = "SELECT count(*) FROM blobs WHERE storage_class = {storage_class.archive}";
        assert_eq!(s.superuser.query_number(archived).await, 1, "the first version moves at once");
        s.superuser.execute("UPDATE jobs SET run_time = run_time - interval '1 hour'").await;
        while worker::run_round(&s.app).await.done > 0 {}
        assert_eq!(s.superuser.query_number(archived).await, 2);
        alice.unarchive(&id).await.unwrap();
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}
