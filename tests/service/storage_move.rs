//! Moves of blobs from one provider to another: failures lose no bytes and leave no objects, and a second run
//! resumes an interrupted move.

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use futures::{SinkExt, channel::mpsc};
use strongroom::{
    app::storage::{
        move_blobs::{BlobMover, MoveError, MoveOptions, MoveProgress, MoveReport},
        status::list_provider_statuses,
    },
    config::{Config, provider::ProviderConfig},
    db::{
        blobs,
        stray_objects::{self, StrayObject},
    },
    domain::{clock::SystemIds, object_label::CopyLabel, storage_class::StorageClass},
    proto::v1::UploadSpec,
    storage::{
        Payload, PutOptions, StorageErrorKind, Stores,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};

use crate::harness::{
    PART, Service, Setup, UNLIMITED, file_id, service_test_in, service_test_with, sha256, spec,
    upload_messages,
};

struct NoProgress;

impl MoveProgress for NoProgress {
    fn report_progress(&mut self, _: &MoveReport) {}
}

/// Configures `old` for new uploads. Faults apply to `old`.
fn configure_old_as_primary(config: &mut Config) {
    config.storage.providers.clear();
    config.storage.set_primary_provider("new", ProviderConfig::Memory);
    config.storage.set_primary_provider("old", ProviderConfig::Memory);
}

/// Configures `new` for new uploads. Faults apply to `new`.
fn configure_new_as_primary(config: &mut Config) {
    configure_old_as_primary(config);
    config.storage.provider = "new".to_owned();
}

fn new_mover(s: &Service) -> BlobMover {
    let faulty = s.faults.clone() as Arc<dyn strongroom::storage::ObjectStorage>;
    let others = s.stores.iter().filter(|store| store.provider() != faulty.provider()).cloned();
    let stores: Vec<_> = others.chain([Arc::clone(&faulty)]).collect();
    BlobMover {
        db: s.db.clone(),
        stores: Stores::new(stores, faulty.provider(), UNLIMITED).unwrap(),
        clock: s.clock.clone(),
        ids: Arc::new(SystemIds),
        part_size_bytes: PART as u64,
        blob_deletion_delay_hours: 72,
    }
}

fn options(from: &str, to: &str) -> MoveOptions {
    let (from, to) = (from.to_owned(), to.to_owned());
    MoveOptions { from, to, concurrency: 2, reads_back: false, is_dry_run: false }
}

async fn move_old_to_new(s: &Service) -> MoveReport {
    new_mover(s).move_blobs(&options("old", "new"), &mut NoProgress).await.unwrap()
}

const SIZES: [usize; 4] = [0, 10, PART, 3 * PART + 1];

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 7 % 251) as u8).collect()
}

/// Uploads files of all sizes to `old`. Returns their ids.
async fn upload_files_to_old(s: &Service) -> Vec<String> {
    let replica = s.start_replica(|config| config.storage.provider = "old".to_owned()).await;
    let mut ids = Vec::new();
    for size in SIZES {
        let uploaded = replica.alice().upload(spec(&size.to_string()), &content(size)).await.unwrap();
        ids.push(file_id(&uploaded));
    }
    replica.stop().await;
    ids
}

async fn assert_readable(s: &Service, ids: &[String]) {
    for (id, size) in ids.iter().zip(SIZES) {
        assert!(s.alice().read(id).await.unwrap() == content(size), "{size} bytes");
    }
}

async fn count_objects(s: &Service, provider: &str) -> usize {
    s.stores.get(provider).unwrap().list("", None, 100).await.unwrap().objects.len()
}

async fn run_all_rounds(s: &Service) {
    while worker::run_round(&s.app).await.done > 0 {}
}

/// Asserts that after the deletion delay only `new` has objects.
async fn assert_only_new_has_objects(s: &Service) {
    s.clock.advance(chrono::Duration::hours(73));
    run_all_rounds(s).await;
    assert_eq!((count_objects(s, "old").await, count_objects(s, "new").await), (0, SIZES.len()));
    assert_eq!(s.superuser.query_number("SELECT count(*) FROM stray_objects").await, 0);
}

#[test]
fn moved_files_are_readable_and_originals_deleted_later() {
    service_test_with(configure_old_as_primary, |s| async move {
        let ids = upload_files_to_old(&s).await;
        let report = move_old_to_new(&s).await;
        assert_eq!((report.blobs, report.bytes), (4, SIZES.iter().sum::<usize>() as u64));
        assert_eq!((report.failures.len(), report.superseded, report.released), (0, 0, 0));
        assert_readable(&s, &ids).await;
        s.clock.advance(chrono::Duration::hours(71));
        run_all_rounds(&s).await;
        assert_eq!((count_objects(&s, "old").await, count_objects(&s, "new").await), (4, 4));
        let again = MoveReport { is_written_to: true, ..MoveReport::default() };
        assert_eq!(move_old_to_new(&s).await, again, "no blob is left to move");
        let audited = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.storage_move}
            AND details ->> 'to' = 'new'";
        assert_eq!(s.superuser.query_number(audited).await, 4);
        assert_only_new_has_objects(&s).await;
        assert_readable(&s, &ids).await;
        let (store, mut labeled) = (s.stores.get("new").unwrap(), Vec::new());
        for object in store.list("", None, 100).await.unwrap().objects {
            let metadata = store.read_metadata(&object.key).await.unwrap();
            let blob = format!("SELECT id::text FROM blobs WHERE storage_key = '{}'", object.key);
            let blob = s.superuser.query_texts(&blob).await.remove(0).parse().unwrap();
            let named = CopyLabel { blob, class: Some(StorageClass::Standard) };
            assert_eq!(CopyLabel::from_metadata(&metadata), Some(named), "a restore recognizes the copy");
            labeled.extend(metadata.into_iter().filter(|(name, _)| name == "file-id").map(|(_, id)| id));
        }
        let mut ids = ids;
        ids.sort_unstable();
        labeled.sort_unstable();
        assert_eq!(labeled, ids, "each copy has the label of its original");
    });
}

#[test]
fn move_dry_run_counts_and_moves_nothing() {
    service_test_with(configure_old_as_primary, |s| async move {
        upload_files_to_old(&s).await;
        let options = MoveOptions { is_dry_run: true, ..options("old", "new") };
        let report = new_mover(&s).move_blobs(&options, &mut NoProgress).await.unwrap();
        assert_eq!((report.is_dry_run, report.blobs, report.left_blobs), (true, 4, 4));
        assert!(report.is_done());
        assert_eq!((count_objects(&s, "old").await, count_objects(&s, "new").await), (4, 0));
    });
}

#[test]
fn copied_object_keeps_tenant_and_user_metadata() {
    service_test_with(configure_old_as_primary, |s| async move {
        s.alice().upload(spec("a"), &content(10)).await.unwrap();
        s.bob().upload(spec("b"), &content(10)).await.unwrap();
        let mut tx = s.db.system_tx().await.unwrap();
        let movable = blobs::list_movable(&mut tx, "old", None, 10).await.unwrap();
        tx.commit().await.unwrap();
        let mut users: Vec<_> = movable.iter().filter_map(|blob| blob.created_by.as_deref()).collect();
        users.sort_unstable();
        assert_eq!(users, ["alice", "bob"]);
        let tenant = movable[0].tenant_blob.tenant;
        let metadata = PutOptions::for_blob(tenant, Some("alice")).metadata;
        let names = ["tenant-id", "user-id"].map(str::to_owned);
        assert_eq!(
            metadata,
            names.into_iter().zip([tenant.to_string(), "alice".to_owned()]).collect::<Vec<_>>()
        );
    });
}

#[test]
fn move_keeps_archive_class_if_target_supports_it() {
    service_test_with(configure_new_as_primary, |s| async move {
        let ids = upload_files_to_old(&s).await;
        s.superuser
            .execute("UPDATE blobs SET storage_class = {storage_class.archive} WHERE size_bytes <> 10")
            .await;
        s.faults.enable_storage_classes();
        assert_eq!(move_old_to_new(&s).await.blobs, 4);
        let rows = s
            .superuser
            .query_rows("SELECT storage_key, storage_class FROM blobs ORDER BY size_bytes", &[])
            .await;
        let classes: Vec<_> =
            rows.iter().map(|row| (s.faults.storage_class(row.get(0)), row.get::<_, i16>(1))).collect();
        let (archive, standard) = ((Some(StorageClass::Archive), 2), (Some(StorageClass::Standard), 1));
        assert_eq!(classes, [archive, standard, archive, archive], "single objects and multipart objects");
        assert_readable(&s, &ids).await;
        new_mover(&s).move_blobs(&options("new", "old"), &mut NoProgress).await.unwrap();
        let standard = "SELECT count(*) FROM blobs WHERE storage_class = {storage_class.standard}";
        assert_eq!(s.superuser.query_number(standard).await, 4, "the target has no archive class");
    });
}

#[test]
fn files_can_be_moved_back_before_originals_are_deleted() {
    service_test_with(configure_old_as_primary, |s| async move {
        let ids = upload_files_to_old(&s).await;
        move_old_to_new(&s).await;
        let back = new_mover(&s).move_blobs(&options("new", "old"), &mut NoProgress).await.unwrap();
        assert_eq!(back.blobs, 4);
        s.clock.advance(chrono::Duration::hours(73));
        run_all_rounds(&s).await;
        assert_eq!((count_objects(&s, "old").await, count_objects(&s, "new").await), (4, 0));
        assert_readable(&s, &ids).await;
    });
}

#[test]
fn second_run_completes_move_after_target_faults() {
    service_test_with(configure_new_as_primary, |s| async move {
        use {Fault::*, Operation::*, StorageErrorKind::*};
        let ids = upload_files_to_old(&s).await;
        for (operation, nth, fault) in [
            (Put, 1, Before(NoSpace)),
            (Put, 2, After(Unavailable)),
            (StartMultipart, 1, After(Unavailable)),
            (PutPart, 2, Before(Unavailable)),
            (CompleteMultipart, 1, Before(Unavailable)),
            (CompleteMultipart, 1, After(Unavailable)),
        ] {
            let plan = Plan::new().with_fault(operation, nth, fault).with_fault(
                AbortMultipart,
                1,
                Before(Unavailable),
            );
            s.faults.set_plan(plan);
            let report = move_old_to_new(&s).await;
            assert_eq!((report.blobs, report.failures.len()), (3, 1), "{operation:?} {fault:?}");
            let expected = if matches!(fault, Before(NoSpace)) { "is full" } else { "object store" };
            assert!(report.failures[0].reason.contains(expected), "{report:?}");
            s.faults.set_plan(Plan::new());
            assert_eq!(move_old_to_new(&s).await.blobs, 1, "{operation:?} {fault:?}");
            assert_readable(&s, &ids).await;
            new_mover(&s).move_blobs(&options("new", "old"), &mut NoProgress).await.unwrap();
        }
        move_old_to_new(&s).await;
        assert_only_new_has_objects(&s).await;
        assert_readable(&s, &ids).await;
    });
}

#[test]
fn truncated_read_of_source_fails_the_move() {
    service_test_with(configure_old_as_primary, |s| async move {
        let ids = upload_files_to_old(&s).await;
        for (nth, fault) in [
            (2, Fault::EndStream { after_bytes: 5 }),
            (4, Fault::EndStream { after_bytes: PART as u64 }),
            (4, Fault::CutStream { after_bytes: PART as u64 + 7 }),
        ] {
            s.faults.set_plan(Plan::new().with_fault(Operation::Get, nth, fault));
            let sequential = MoveOptions { concurrency: 1, ..options("old", "new") };
            let report = new_mover(&s).move_blobs(&sequential, &mut NoProgress).await.unwrap();
            assert_eq!((report.blobs, report.failures.len()), (3, 1), "{fault:?}");
            s.faults.set_plan(Plan::new());
            assert_eq!(move_old_to_new(&s).await.blobs, 1);
            assert_readable(&s, &ids).await;
            new_mover(&s).move_blobs(&options("new", "old"), &mut NoProgress).await.unwrap();
        }
        move_old_to_new(&s).await;
        assert_only_new_has_objects(&s).await;
    });
}

#[test]
fn uploads_to_source_during_move_are_reported() {
    service_test_with(configure_new_as_primary, |s| async move {
        upload_files_to_old(&s).await;
        // A server whose configuration still names `old` for new uploads.
        let replica = s.start_replica(|config| config.storage.provider = "old".to_owned()).await;
        let data = content(4 * PART);
        let sized = UploadSpec { size_bytes: Some(data.len() as i64), ..spec("slow") };
        let mut messages = upload_messages(sized, &data, PART);
        let rest = messages.split_off(3);
        let (mut sender, stream) = mpsc::channel(1);
        let mut files = replica.alice().files.clone();
        let upload = tokio::spawn(async move { files.upload_file(stream).await });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        let open = "SELECT count(*) FROM uploads WHERE state = {upload_state.open}";
        s.wait_until("the upload is open", || async { s.superuser.query_number(open).await == 1 }).await;
        let report = move_old_to_new(&s).await;
        assert_eq!((report.blobs, report.left_blobs, report.open_uploads), (4, 0, 1));
        assert!(!report.is_done() && !report.is_written_to, "{report:?}");

        for message in rest {
            sender.send(message).await.unwrap();
        }
        drop(sender);
        upload.await.unwrap().unwrap();
        replica.stop().await;
        // Blobs that the run failed to move or did not list are counted as left.
        s.faults.set_plan(Plan::new().with_fault(
            Operation::StartMultipart,
            1,
            Fault::Before(StorageErrorKind::Unavailable),
        ));
        let report = move_old_to_new(&s).await;
        assert_eq!((report.blobs, report.left_blobs, report.open_uploads), (0, 1, 0));
        assert!(!report.is_done(), "{report:?}");
        s.faults.set_plan(Plan::new());
        let report = move_old_to_new(&s).await;
        assert_eq!((report.blobs, report.left_blobs, report.open_uploads), (1, 0, 0));
        assert!(report.is_done(), "{report:?}");
    });
}

/// Polls a future at most the given number of times, then drops it. Returns whether it completed.
async fn completes_within(polls: usize, work: impl Future) -> bool {
    let mut work = pin!(work);
    let mut polls_left = polls;
    std::future::poll_fn(move |context| {
        if work.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        polls_left -= 1;
        if polls_left == 0 { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

#[test]
fn aborted_move_loses_and_leaves_nothing() {
    service_test_with(configure_old_as_primary, |s| async move {
        let ids = upload_files_to_old(&s).await;
        let mut polls = 1;
        while !completes_within(polls, move_old_to_new(&s)).await {
            assert_readable(&s, &ids).await;
            polls += 1;
        }
        assert!(polls > 5, "it was aborted only {polls} times");
        assert_only_new_has_objects(&s).await;
        assert_readable(&s, &ids).await;
    });
}

#[test]
fn damaged_original_is_reported_and_kept() {
    service_test_with(configure_old_as_primary, |s| async move {
        upload_files_to_old(&s).await;
        s.allow_lost_objects();
        let old = s.stores.get("old").unwrap();
        let listed = old.list("", None, 10).await.unwrap().objects;
        let damaged = listed.iter().find(|object| object.size_bytes == 10).unwrap();
        old.delete(&damaged.key).await.unwrap();
        let other_bytes = Payload::from(bytes::Bytes::from_static(b"0123456789"));
        old.put(&damaged.key, other_bytes, &PutOptions::default()).await.unwrap();
        let report = move_old_to_new(&s).await;
        assert_eq!((report.blobs, report.failures.len()), (3, 1));
        assert_eq!(report.failures[0].key, damaged.key.to_string());
        assert!(report.failures[0].reason.contains("damaged"), "{report:?}");
        run_all_rounds(&s).await;
        assert_eq!((count_objects(&s, "old").await, count_objects(&s, "new").await), (4, 3));
    });
}

#[test]
fn file_purged_during_move_is_not_moved() {
    service_test_with(configure_old_as_primary, |s| async move {
        upload_files_to_old(&s).await;
        let purge = s.database.connect_as_superuser().await;
        purge
            .execute("BEGIN; UPDATE blobs SET delete_after = now() + interval '1 day' WHERE size_bytes = 10")
            .await;
        let task = tokio::spawn({
            let s = s.clone();
            async move { move_old_to_new(&s).await }
        });
        let waiting_count = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.datname = current_database()";
        s.wait_until("the move waits for the purge", || async {
            s.superuser.query_number(waiting_count).await > 0
        })
        .await;
        purge.execute("COMMIT").await;
        let report = task.await.unwrap();
        assert_eq!((report.blobs, report.superseded, report.released), (3, 1, 1));
        run_all_rounds(&s).await;
        assert_eq!(
            (count_objects(&s, "old").await, count_objects(&s, "new").await),
            (4, 3),
            "the copy was deleted"
        );
        purge.execute("UPDATE blobs SET delete_after = NULL").await;
    });
}

#[test]
fn blob_cannot_adopt_object_that_is_being_deleted() {
    service_test_with(configure_old_as_primary, |s| async move {
        upload_files_to_old(&s).await;
        let key = s.stores.get("old").unwrap().list("", None, 1).await.unwrap().objects[0].key.clone();
        let key = key
            .with_new_blob(key.day(), strongroom::domain::ids::BlobId::from_uuid(uuid::Uuid::nil()))
            .unwrap();
        let copy = StrayObject {
            tenant: key.tenant(),
            provider: "new".to_owned(),
            key,
            may_be_unfinished: false,
            size_bytes: 0,
        };
        let mut tx = s.db.system_tx().await.unwrap();
        stray_objects::insert(&mut tx, &copy, 24).await.unwrap();
        assert!(!stray_objects::claim(&mut tx, &copy).await.unwrap(), "the stray object is not due");
        stray_objects::make_due(&mut tx, &copy).await.unwrap();
        assert!(stray_objects::claim(&mut tx, &copy).await.unwrap());
        assert!(!stray_objects::adopt(&mut tx, &copy).await.unwrap());
        tx.commit().await.unwrap();
    });
}

#[test]
fn rejects_unknown_or_equal_providers() {
    service_test_with(configure_old_as_primary, |s| async move {
        for (from, to) in [("old", "unknown"), ("unknown", "new")] {
            let error = new_mover(&s).move_blobs(&options(from, to), &mut NoProgress).await.unwrap_err();
            assert!(matches!(&error, MoveError::UnknownProvider(name) if name.0 == "unknown"), "{error}");
        }
        let error = new_mover(&s).move_blobs(&options("old", "old"), &mut NoProgress).await.unwrap_err();
        assert!(matches!(error, MoveError::SameProvider(_)), "{error}");
    });
}

#[test]
fn status_lists_configured_and_used_providers() {
    service_test_with(configure_old_as_primary, |s| async move {
        upload_files_to_old(&s).await;
        s.alice().upload(spec("more"), &content(20)).await.unwrap();
        let stores = new_mover(&s).stores;
        let unavailable = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Check, 3, unavailable));
        let statuses = list_provider_statuses(&s.db, &stores, s.app.owners()).await.unwrap();
        let rows: Vec<_> = statuses
            .iter()
            .map(|p| (p.name.as_str(), p.is_written_to, p.is_reachable, p.objects, p.bytes))
            .collect();
        let bytes = SIZES.iter().sum::<usize>() as u64 + 20;
        assert_eq!(rows, [("new", false, true, 0, 0), ("old", true, false, 5, bytes)]);
        assert!(statuses[0].latency_milliseconds.is_some() && statuses[1].problem.is_some(), "{statuses:?}");

        let only_new = Stores::new([Arc::clone(stores.get("new").unwrap())], "new", UNLIMITED).unwrap();
        let statuses = list_provider_statuses(&s.db, &only_new, s.app.owners()).await.unwrap();
        let old = statuses.iter().find(|provider| provider.name == "old").unwrap();
        assert!(!old.is_reachable && old.problem.as_ref().unwrap().contains("not configured"), "{old:?}");
    });
}

#[test]
fn unverified_blobs_are_left_and_refused_ones_reported() {
    let configure = |setup: &mut Setup| {
        setup.has_urls = true;
        configure_old_as_primary(&mut setup.config);
    };
    service_test_in(None, configure, |s| async move {
        let alice = s.alice();
        let mut ids = Vec::new();
        for sha256 in [None, Some(sha256(b"other bytes"))] {
            let spec = UploadSpec { size_bytes: Some(10), sha256, ..spec("a") };
            let direct = alice.create_direct_upload(spec).await.unwrap();
            let parts = s.put_parts(&direct, &content(10)).await;
            ids.push(alice.complete_direct_upload(&direct.id, &parts).await.unwrap().file.unwrap().id);
        }
        let report = move_old_to_new(&s).await;
        assert!(!report.is_done(), "{report:?}");
        assert_eq!((report.blobs, report.left_blobs, report.unverified, report.refused), (0, 0, 2, 0));
        worker::run_due_jobs(&s.app).await;
        let report = move_old_to_new(&s).await;
        assert_eq!((report.blobs, report.left_blobs, report.unverified, report.refused), (1, 0, 0, 1));
        assert!(report.is_done(), "{report:?}");
        assert_eq!(alice.read(&ids[0]).await.unwrap(), content(10));
        alice.purge(&ids[1]).await.unwrap();
        let report = move_old_to_new(&s).await;
        assert_eq!((report.refused, report.released), (0, 1));
    });
}
