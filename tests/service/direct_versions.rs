//! Further versions whose bytes go straight to the store: nobody reads them before a job has, and until then the file is what
//! it was.

use strongroom::{
    domain::digest::Digest,
    proto::v1::{File, FileState, FileStateReason, FileVersion, ListFileVersionsRequest, UploadSpec},
    storage::flaky::Operation,
    worker,
};
use tonic::{Code, Status};

use crate::harness::{
    Caller, PART, Service, direct_test, file_id, pattern, reason, sha256, spec, violated_fields,
};

/// One piece, and several parts.
const SIZES: [usize; 2] = [1_000, 2 * PART + 7];

fn version_of(id: &str, size: usize) -> UploadSpec {
    UploadSpec {
        file_id: id.to_owned(),
        size_bytes: Some(size as i64),
        change_description: "by a URL".to_owned(),
        ..UploadSpec::default()
    }
}

async fn stored(caller: &Caller) -> String {
    file_id(&caller.upload(spec("a.txt"), b"one").await.unwrap())
}

/// Sends a version to its URLs, and completes it; nobody has verified it yet.
async fn completed(s: &Service, caller: &Caller, id: &str, bytes: &[u8]) -> Result<File, Status> {
    let direct = caller.create_direct(version_of(id, bytes.len())).await?;
    let sent = s.send(&direct, bytes).await;
    Ok(caller.complete_direct(&direct.id, &sent).await?.file.unwrap())
}

async fn version(caller: &Caller, id: &str, number: i32) -> FileVersion {
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
fn a_version_becomes_current_when_it_was_verified_and_until_then_readers_get_the_one_before() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let (id, bytes) = (stored(&alice).await, png(size));
            let before = alice.get(&id).await.unwrap();
            let answer = completed(&s, &alice, &id, &bytes).await.unwrap();
            assert_eq!((answer.version, answer.state()), (2, FileState::Processing));
            let meanwhile = alice.get(&id).await.unwrap();
            assert_eq!(
                (meanwhile.version, meanwhile.state(), &meanwhile.sha256, &meanwhile.mime_type),
                (1, FileState::Available, &before.sha256, &before.mime_type)
            );
            assert_eq!(alice.read(&id).await.unwrap(), b"one"[..]);
            let new = version(&alice, &id, 2).await;
            assert_eq!((new.state(), new.is_current), (FileState::Processing, false));
            assert_eq!(new.change_description, "by a URL");
            for refused in [
                alice.read_version(&id, 2).await.unwrap_err(),
                alice.restore_version(&id, 2).await.unwrap_err(),
            ] {
                assert_eq!(reason(&refused), "FILE_NOT_AVAILABLE");
            }

            assert_eq!(worker::run_due_jobs(&s.app).await, 1);
            let after = alice.get(&id).await.unwrap();
            assert_eq!((after.version, after.state()), (2, FileState::Available));
            assert_eq!((&after.sha256, after.size_bytes), (&sha256(&bytes), size as i64));
            assert_eq!((after.mime_type.as_str(), after.updated_by.as_str()), ("image/png", "alice"));
            assert_ne!(after.etag, meanwhile.etag);
            assert!(alice.read(&id).await.unwrap() == bytes);
            assert_eq!(alice.read_version(&id, 1).await.unwrap(), b"one"[..]);
            let told =
                format!("SELECT kind FROM events WHERE file_id = '{id}' AND version = 2 ORDER BY xid, n");
            assert_eq!(s.owner.texts(&told.replace("kind", "kind::text")).await, ["40", "70"]);
        }
        let quota = alice.quota().await.unwrap();
        let charged = SIZES.iter().map(|size| size + 3).sum::<usize>() as i64;
        assert_eq!((quota.used_bytes, quota.reserved_bytes, quota.file_count), (charged, 0, 2));
    });
}

#[test]
fn a_version_that_is_refused_leaves_the_file_as_it_was_and_is_charged_until_it_is_deleted() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let id = stored(&alice).await;
            let used = alice.quota().await.unwrap().used_bytes;
            let others = Digest::compute(b"other bytes").as_bytes().to_vec();
            let spec = UploadSpec { sha256: Some(others.into()), ..version_of(&id, size) };
            let direct = alice.create_direct(spec).await.unwrap();
            let sent = s.send(&direct, &pattern(size)).await;
            alice.complete_direct(&direct.id, &sent).await.unwrap();
            worker::run_due_jobs(&s.app).await;

            let refused = version(&alice, &id, 2).await;
            assert_eq!(
                (refused.state(), refused.state_reason(), refused.is_current),
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
fn current_is_the_latest_available_version_in_whatever_order_they_are_verified() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice).await;
        completed(&s, &alice, &id, b"two").await.unwrap();
        // The job of the second waits; the third is verified first.
        s.owner.run("UPDATE jobs SET run_time = run_time + interval '1 hour'").await;
        assert_eq!(completed(&s, &alice, &id, b"three").await.unwrap().version, 3);
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.read(&id).await.unwrap(), b"three"[..]);
        completed(&s, &alice, &id, b"four").await.unwrap();
        alice.upload_version(&id, b"five").await.unwrap();
        s.owner.run("UPDATE jobs SET run_time = run_time - interval '1 hour'").await;
        assert_eq!(worker::run_due_jobs(&s.app).await, 2);
        let file = alice.get(&id).await.unwrap();
        assert_eq!((file.version, file.size_bytes), (5, 4));
        for (number, bytes) in [(2, &b"two"[..]), (3, b"three"), (4, b"four"), (5, b"five")] {
            assert_eq!(alice.read_version(&id, number).await.unwrap(), *bytes);
        }
    });
}

#[test]
fn who_may_not_upload_a_version_may_not_do_it_by_a_url_and_nothing_is_reserved() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice).await;
        let denied = s.bob().create_direct(version_of(&id, 9)).await.unwrap_err();
        assert_eq!((denied.code(), reason(&denied).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        assert_eq!(s.mallory().create_direct(version_of(&id, 9)).await.unwrap_err().code(), Code::NotFound);
        let random = uuid::Uuid::from_u128(7).to_string();
        assert_eq!(alice.create_direct(version_of(&random, 9)).await.unwrap_err().code(), Code::NotFound);
        let named = UploadSpec { name: "b".to_owned(), ..version_of(&id, 9) };
        assert_eq!(violated_fields(&alice.create_direct(named).await.unwrap_err()), ["spec.name"]);
        alice.archive(&id).await.unwrap();
        let archived = alice.create_direct(version_of(&id, 9)).await.unwrap_err();
        assert_eq!(reason(&archived), "FILE_NOT_AVAILABLE");
        alice.unarchive(&id).await.unwrap();
        alice.delete(&id).await.unwrap();
        assert_eq!(reason(&alice.create_direct(version_of(&id, 9)).await.unwrap_err()), "FILE_DELETED");
        alice.undelete(&id).await.unwrap();
        s.ada().limit_bytes(10).await;
        let large = alice.create_direct(version_of(&id, 9)).await.unwrap_err();
        assert_eq!(reason(&large), "QUOTA_BYTES_EXCEEDED");
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.reserved_bytes), (3, 0));
    });
}

#[test]
fn a_file_that_is_archived_before_the_end_takes_its_version_when_it_is_back() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let (id, bytes) = (stored(&alice).await, pattern(size));
            let direct = alice.create_direct(version_of(&id, size)).await.unwrap();
            let sent = s.send(&direct, &bytes).await;
            alice.archive(&id).await.unwrap();
            for _ in 0..2 {
                let refused = alice.complete_direct(&direct.id, &sent).await.unwrap_err();
                assert_eq!(reason(&refused), "FILE_NOT_AVAILABLE");
            }
            alice.unarchive(&id).await.unwrap();
            alice.complete_direct(&direct.id, &sent).await.unwrap();
            worker::run_due_jobs(&s.app).await;
            assert!(alice.read(&id).await.unwrap() == bytes);
        }
    });
}

#[test]
fn a_version_of_a_file_that_is_gone_or_somebody_elses_now_gives_its_room_and_its_bytes_back() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in SIZES {
            let id = stored(&alice).await;
            let direct = alice.create_direct(version_of(&id, size)).await.unwrap();
            let sent = s.send(&direct, &pattern(size)).await;
            alice.purge(&id).await.unwrap();
            let gone = alice.complete_direct(&direct.id, &sent).await.unwrap_err();
            assert_eq!(gone.code(), Code::NotFound);
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
            assert_eq!(alice.upload_at(&direct.id).await.unwrap_err().code(), Code::NotFound);
        }
        let id = stored(&alice).await;
        let direct = alice.create_direct(version_of(&id, 9)).await.unwrap();
        let sent = s.send(&direct, b"nine byte").await;
        s.owner.run("UPDATE files SET owner_id = 'bob'").await;
        let denied = alice.complete_direct(&direct.id, &sent).await.unwrap_err();
        assert_eq!(reason(&denied), "NOT_ALLOWED");
        assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
    });
}

#[test]
fn what_comes_out_of_trash_and_archive_is_the_version_that_was_verified_meanwhile() {
    direct_test(|s| async move {
        // In the school the trash does not count against the quota, in acme it does.
        for owner in [s.alice(), s.pupil()] {
            let (trashed, archived) = (stored(&owner).await, stored(&owner).await);
            for id in [&trashed, &archived] {
                completed(&s, &owner, id, &png(100)).await.unwrap();
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
            assert_eq!(s.owner.texts(&usage).await, ["1 2"], "both are pictures now");
        }
    });
}

#[test]
fn a_version_that_is_deleted_or_whose_file_is_purged_before_it_was_verified_is_gone() {
    direct_test(|s| async move {
        let alice = s.alice();
        let (kept, purged) = (stored(&alice).await, stored(&alice).await);
        for id in [&kept, &purged] {
            completed(&s, &alice, id, b"never read").await.unwrap();
        }
        alice.delete_version(&kept, 2).await.unwrap();
        alice.purge(&purged).await.unwrap();
        let gets = s.faults.call_count(Operation::Get);
        assert_eq!(worker::run_due_jobs(&s.app).await, 2);
        assert_eq!(s.faults.call_count(Operation::Get), gets, "nothing is read for nobody");
        assert_eq!(alice.get(&kept).await.unwrap().version, 1);
        assert_eq!(alice.quota().await.unwrap().used_bytes, 3);
    });
}

#[test]
fn completing_a_version_twice_answers_the_same_and_makes_one() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice).await;
        let direct = alice.create_direct(version_of(&id, 3)).await.unwrap();
        let sent = s.send(&direct, b"two").await;
        let first: File = alice.complete_direct(&direct.id, &sent).await.unwrap().file.unwrap();
        worker::run_due_jobs(&s.app).await;
        let again = alice.complete_direct(&direct.id, &sent).await.unwrap();
        assert_eq!(again.file.unwrap(), first, "as it was told the first time");
        assert_eq!(alice.versions(&id, 0).await.unwrap().len(), 2);
    });
}

#[test]
fn a_first_version_that_nobody_has_verified_yet_is_overtaken_by_one_that_was() {
    direct_test(|s| async move {
        let alice = s.alice();
        let first = UploadSpec { size_bytes: Some(3), ..spec("a.txt") };
        let direct = alice.create_direct(first).await.unwrap();
        let sent = s.send(&direct, b"one").await;
        let id = alice.complete_direct(&direct.id, &sent).await.unwrap().file.unwrap().id;
        s.owner.run("UPDATE jobs SET run_time = run_time + interval '1 hour'").await;
        completed(&s, &alice, &id, &png(100)).await.unwrap();
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Processing);
        assert_eq!(worker::run_due_jobs(&s.app).await, 1);
        let overtaken = alice.get(&id).await.unwrap();
        assert_eq!((overtaken.version, overtaken.state()), (2, FileState::Available));
        s.owner.run("UPDATE jobs SET run_time = run_time - interval '1 hour'").await;
        assert_eq!(worker::run_due_jobs(&s.app).await, 1);
        let file = alice.get(&id).await.unwrap();
        assert_eq!((file.version, &file.sha256), (2, &overtaken.sha256));
        assert_eq!(alice.read_version(&id, 1).await.unwrap(), b"one"[..]);
    });
}

#[test]
fn a_verification_waits_for_whoever_has_its_file_before_it_touches_the_blob() {
    direct_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice).await;
        completed(&s, &alice, &id, b"two").await.unwrap();
        // As somebody who purges: the file first, then its blobs.
        let other = s.database.owner().await;
        other.run("BEGIN; SELECT FROM files FOR UPDATE").await;
        let verifying = tokio::spawn({
            let s = s.clone();
            async move { worker::run_due_jobs(&s.app).await }
        });
        let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.datname = current_database()";
        s.until("the verification waits", || async { s.owner.number(waiting).await > 0 }).await;
        other.run("SELECT FROM blobs FOR UPDATE NOWAIT; COMMIT").await;
        assert_eq!(verifying.await.unwrap(), 1);
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn a_version_that_is_verified_in_the_archive_moves_to_the_class_for_it() {
    direct_test(|s| async move {
        s.faults.enable_storage_classes();
        let alice = s.alice();
        let id = stored(&alice).await;
        completed(&s, &alice, &id, b"two").await.unwrap();
        s.owner.run("UPDATE jobs SET run_time = run_time + interval '1 hour'").await;
        alice.archive(&id).await.unwrap();
        while worker::run_round(&s.app).await > 0 {}
        let archived = "SELECT count(*) FROM blobs WHERE storage_class = 2";
        assert_eq!(s.owner.number(archived).await, 1, "what was verified before");
        s.owner.run("UPDATE jobs SET run_time = run_time - interval '1 hour'").await;
        while worker::run_round(&s.app).await > 0 {}
        assert_eq!(s.owner.number(archived).await, 2);
        alice.unarchive(&id).await.unwrap();
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}
