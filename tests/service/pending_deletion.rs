//! Bytes of purged files and of replaced objects count until their objects are deleted: they are reported, limited,
//! and can be reclaimed.

use chrono::Duration;
use strongroom::{
    app::{
        integrity::delete_stray_objects::delete_stray_objects,
        storage::{apply_storage_class::apply_storage_class, delete_due_blobs},
    },
    proto::{
        admin::v1::{ReclaimTenantRequest, ReclaimTenantResponse},
        v1::{GetQuotaRequest, PurgeFileRequest},
    },
    storage::{
        StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
    worker,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Caller, Service, file_id, pattern, reason, service_test, spec};

const SIZE: usize = 1_000;

impl Caller {
    pub(crate) async fn reclaim(&self, tenant: &str) -> Result<ReclaimTenantResponse, Status> {
        let request =
            ReclaimTenantRequest { tenant_id: tenant.to_owned(), ..ReclaimTenantRequest::default() };
        Ok(self.tenants.clone().reclaim_tenant(request).await?.into_inner())
    }
}

async fn run_all_rounds(s: &Service) {
    while worker::run_round(&s.app).await.done > 0 {}
}

/// Archives or unarchives a file, and waits until its bytes have moved.
async fn set_archived(s: &Service, id: &str, to_archive: bool) -> Result<(), Status> {
    match to_archive {
        true => s.alice().archive(id).await?,
        false => s.alice().unarchive(id).await?,
    };
    run_all_rounds(s).await;
    Ok(())
}

async fn pending_bytes(s: &Service) -> i64 {
    s.ada().quota().await.unwrap().pending_deletion_bytes
}

async fn upload_and_purge(s: &Service) -> Result<(), Status> {
    let id = file_id(&s.alice().upload(spec("a"), &pattern(SIZE)).await?);
    s.alice().purge(&id).await
}

#[test]
fn purged_bytes_count_until_their_objects_are_deleted() {
    service_test(|s| async move {
        let (kept, purged) = (pattern(SIZE), pattern(2 * SIZE));
        let id = file_id(&s.alice().upload(spec("kept"), &kept).await.unwrap());
        s.alice().upload_version(&id, b"").await.unwrap();
        let gone = file_id(&s.alice().upload(spec("gone"), &purged).await.unwrap());
        let copy = strongroom::proto::v1::CopyFileRequest { file_id: gone.clone(), ..Default::default() };
        let copy = s.alice().copy(copy).await.unwrap().id;
        s.alice().purge(&gone).await.unwrap();
        assert_eq!(s.ada().quota().await.unwrap().pending_deletion_bytes, 0, "the copy has the same object");
        s.alice().purge(&copy).await.unwrap();
        s.alice().delete_version(&id, 1).await.unwrap();
        let pending = (3 * SIZE) as i64;
        assert_eq!(s.ada().quota().await.unwrap().pending_deletion_bytes, pending);
        assert_eq!(s.ada().usage().await.unwrap().pending_deletion_bytes, pending);
        let acme = s.alice().tenant_id().await;
        let quota = GetQuotaRequest { tenant_id: acme };
        let quota = s.operator().quotas.clone().get_quota(quota).await.unwrap().into_inner().quota.unwrap();
        assert_eq!(quota.pending_deletion_bytes, pending);
        assert_eq!(s.alice().quota().await.unwrap().pending_deletion_bytes, 0, "members do not see it");

        s.clock.advance(Duration::hours(73));
        delete_due_blobs::delete_due_blobs(&s.app).await.unwrap();
        assert_eq!(s.ada().quota().await.unwrap().pending_deletion_bytes, 0);
    });
}

#[test]
fn uploads_wait_while_too_many_bytes_are_pending() {
    service_test(|s| async move {
        s.ada().set_limit_bytes(2 * SIZE as i64).await;
        let mut stored = 0;
        let error = loop {
            assert!(stored < 10, "no upload was refused");
            match upload_and_purge(&s).await {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(stored, 4, "twice the limit is stored at most");
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::ResourceExhausted, "QUOTA_BYTES_EXCEEDED")
        );
        let metadata = error.get_details_error_info().unwrap().metadata;
        assert_eq!(metadata["pending_deletion_bytes"], (4 * SIZE).to_string());
        assert_eq!(metadata["pending_deletion_bytes_max"], (2 * SIZE).to_string());
        let one_byte = strongroom::proto::v1::UploadSpec { size_bytes: Some(1), ..spec("b") };
        let error = s.alice().create_upload(one_byte).await.unwrap_err();
        assert_eq!(reason(&error), "QUOTA_BYTES_EXCEEDED");

        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        let reclaimed = operator.reclaim(&acme).await.unwrap();
        assert_eq!(
            (reclaimed.object_count, reclaimed.bytes, reclaimed.has_more),
            (4, 4 * SIZE as i64, false)
        );
        assert_eq!(operator.reclaim(&acme).await.unwrap().object_count, 0);
        assert_eq!(s.ada().reclaim(&acme).await.unwrap_err().code(), Code::PermissionDenied);
        delete_due_blobs::delete_due_blobs(&s.app).await.unwrap();
        upload_and_purge(&s).await.unwrap();
        let audited = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.tenant_reclaim}";
        assert_eq!(s.superuser.query_number(audited).await, 2);
    });
}

#[test]
fn purges_and_finished_reservations_always_fit() {
    service_test(|s| async move {
        s.ada().set_limit_bytes(2 * SIZE as i64).await;
        let spec_of =
            |name: &str| strongroom::proto::v1::UploadSpec { size_bytes: Some(SIZE as i64), ..spec(name) };
        let open = s.alice().create_upload(spec_of("open")).await.unwrap();
        for _ in 0..3 {
            upload_and_purge(&s).await.unwrap();
        }
        s.superuser.execute("UPDATE quotas SET pending_deletion_multiple = 0").await;
        s.alice().upload_part(&open.id, 0, &pattern(SIZE)).await.unwrap();
        let file = s.alice().complete_upload(&open.id, SIZE).await.unwrap();
        let request = PurgeFileRequest { file_id: file.id, ..PurgeFileRequest::default() };
        s.alice().files.clone().purge_file(request).await.unwrap();
        assert_eq!(s.ada().usage().await.unwrap().available_bytes, 0);
    });
}

#[test]
fn exceeded_quota_says_how_much_the_caller_can_purge() {
    service_test(|s| async move {
        s.ada().set_limit_bytes(4 * SIZE as i64).await;
        for (caller, visibility) in [(s.alice(), 0), (s.bob(), 1)] {
            let spec = strongroom::proto::v1::UploadSpec { visibility, ..spec("a") };
            let id = file_id(&caller.upload(spec, &pattern(2 * SIZE)).await.unwrap());
            caller.delete(&id).await.unwrap();
        }
        for (caller, trash_bytes) in [(s.alice(), 2 * SIZE), (s.bob(), 4 * SIZE), (s.ada(), 4 * SIZE)] {
            let error = caller.upload(spec("b"), &pattern(SIZE)).await.unwrap_err();
            assert_eq!(reason(&error), "QUOTA_BYTES_EXCEEDED");
            let metadata = error.get_details_error_info().unwrap().metadata;
            assert_eq!(metadata["trash_bytes"], trash_bytes.to_string());
            let advice =
                format!("{trash_bytes} bytes of them are in the trash; purging those files frees them");
            assert!(error.message().contains(&advice), "{error:?}");
        }
    });
}

#[test]
fn trash_that_does_not_count_is_not_mentioned() {
    service_test(|s| async move {
        s.head().set_limit_bytes(SIZE as i64).await;
        let id = file_id(&s.teacher().upload(spec("a"), &pattern(SIZE)).await.unwrap());
        s.teacher().delete(&id).await.unwrap();
        let error = s.teacher().upload(spec("b"), &pattern(2 * SIZE)).await.unwrap_err();
        assert!(!error.get_details_error_info().unwrap().metadata.contains_key("trash_bytes"));
        assert!(!error.message().contains("trash"), "{error:?}");
    });
}

/// Uploads a file with this number of versions and returns its id.
async fn upload_versions(s: &Service, count: usize) -> String {
    let id = file_id(&s.alice().upload(spec("a"), &pattern(SIZE)).await.unwrap());
    for _ in 1..count {
        s.alice().upload_version(&id, &pattern(SIZE)).await.unwrap();
    }
    id
}

#[test]
fn purge_of_many_blobs_changes_the_quota_once() {
    service_test(|s| async move {
        let id = upload_versions(&s, 5).await;
        let count_updates = "CREATE SEQUENCE public.counted;
            CREATE FUNCTION public.count_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
                AS $$ BEGIN PERFORM nextval('public.counted'); RETURN NULL; END $$;
            CREATE TRIGGER counted AFTER UPDATE OF pending_deletion_bytes ON quotas
                FOR EACH ROW EXECUTE FUNCTION public.count_update()";
        s.superuser.execute(count_updates).await;
        let counted = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.counted";
        s.alice().purge(&id).await.unwrap();
        assert_eq!(s.superuser.query_number(counted).await, 1, "of five blobs");
        assert_eq!(s.ada().quota().await.unwrap().pending_deletion_bytes, 5 * SIZE as i64);
        let acme = s.alice().tenant_id().await;
        assert_eq!(s.operator().reclaim(&acme).await.unwrap().object_count, 5);
        assert_eq!(s.superuser.query_number(counted).await, 1, "reclaimed bytes are pending as before");
    });
}

#[test]
fn quota_is_locked_after_usage_counters() {
    service_test(|s| async move {
        let (purged, changed) = (upload_versions(&s, 1).await, upload_versions(&s, 2).await);
        let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.datname = current_database()";
        let other = s.database.connect_as_superuser().await;
        for is_purge in [true, false] {
            // Like a commit, which changes a usage counter and then the quota.
            other.execute("BEGIN; SELECT FROM usage_counters FOR UPDATE").await;
            let change = tokio::spawn({
                let (alice, purged, changed) = (s.alice(), purged.clone(), changed.clone());
                async move {
                    match is_purge {
                        true => alice.purge(&purged).await,
                        false => alice.delete_version(&changed, 1).await.map(|_| ()),
                    }
                }
            });
            s.wait_until("the change waits for the counter", || async {
                s.superuser.query_number(waiting).await > 0
            })
            .await;
            other.execute("SELECT FROM quotas FOR UPDATE NOWAIT; COMMIT").await;
            change.await.unwrap().unwrap();
        }
        assert_eq!(s.ada().quota().await.unwrap().pending_deletion_bytes, 2 * SIZE as i64);
    });
}

#[test]
fn replaced_objects_count_until_they_are_deleted() {
    service_test(|s| async move {
        s.faults.enable_storage_classes();
        let id = upload_versions(&s, 1).await;
        for (to_archive, originals) in [(true, 1), (false, 2)] {
            set_archived(&s, &id, to_archive).await.unwrap();
            assert_eq!(pending_bytes(&s).await, originals * SIZE as i64);
            assert_eq!(s.run_fsck().await.violations, []);
        }
        s.clock.advance(Duration::hours(73));
        run_all_rounds(&s).await;
        assert_eq!(pending_bytes(&s).await, 0);
        assert_eq!(s.store.list("", None, 10).await.unwrap().objects.len(), 1);
    });
}

#[test]
fn failed_copy_counts_until_it_is_deleted() {
    service_test(|s| async move {
        s.faults.enable_storage_classes();
        let id = upload_versions(&s, 1).await;
        s.alice().archive(&id).await.unwrap();
        let fault = Fault::After(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Copy, 1, fault));
        let tenant = s.alice().tenant_id().await.parse().unwrap();
        apply_storage_class(&s.app, tenant, id.parse().unwrap()).await.unwrap_err();
        assert_eq!(pending_bytes(&s).await, SIZE as i64, "the copy is in the store");
        assert_eq!(s.run_fsck().await.violations, []);
        delete_stray_objects(&s.app).await.unwrap();
        assert_eq!(pending_bytes(&s).await, 0);
    });
}

#[test]
fn archiving_waits_while_too_many_bytes_are_pending() {
    service_test(|s| async move {
        s.faults.enable_storage_classes();
        s.ada().set_limit_bytes(2 * SIZE as i64).await;
        let id = upload_versions(&s, 1).await;
        let mut archived = 0;
        let error = loop {
            match set_archived(&s, &id, true).await {
                Ok(()) => archived += 1,
                Err(error) => break error,
            }
            set_archived(&s, &id, false).await.unwrap();
        };
        assert_eq!(archived, 2, "twice the limit is stored, and one more copy");
        assert_eq!(
            (error.code(), reason(&error).as_str()),
            (Code::ResourceExhausted, "QUOTA_BYTES_EXCEEDED")
        );
        let metadata = error.get_details_error_info().unwrap().metadata;
        assert_eq!(metadata["pending_deletion_bytes"], (4 * SIZE).to_string());
        assert_eq!(metadata["pending_deletion_bytes_max"], (2 * SIZE).to_string());
        assert_eq!(s.alice().read(&id).await.unwrap(), pattern(SIZE)[..], "the file is not archived");

        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        let reclaimed = operator.reclaim(&acme).await.unwrap();
        assert_eq!((reclaimed.object_count, reclaimed.bytes), (4, 4 * SIZE as i64));
        assert_eq!(operator.reclaim(&acme).await.unwrap().object_count, 0);
        run_all_rounds(&s).await;
        assert_eq!(pending_bytes(&s).await, 4 * SIZE as i64, "a download may have them open");
        s.clock.advance(Duration::minutes(61));
        run_all_rounds(&s).await;
        assert_eq!(pending_bytes(&s).await, 0);
        set_archived(&s, &id, true).await.unwrap();
    });
}

#[test]
fn quota_is_locked_after_a_moved_blob() {
    service_test(|s| async move {
        s.faults.enable_storage_classes();
        let id = upload_versions(&s, 1).await;
        s.alice().archive(&id).await.unwrap();
        let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.datname = current_database()";
        let other = s.database.connect_as_superuser().await;
        // Like a purge, which locks the blob and then the quota.
        other.execute("BEGIN; SELECT FROM blobs FOR UPDATE").await;
        let tenant = s.alice().tenant_id().await.parse().unwrap();
        let moving = tokio::spawn({
            let (app, file) = (s.app.clone(), id.parse().unwrap());
            async move { apply_storage_class(&app, tenant, file).await }
        });
        s.wait_until("the move waits for the blob", || async { s.superuser.query_number(waiting).await > 0 })
            .await;
        other.execute("SELECT FROM quotas FOR UPDATE NOWAIT; COMMIT").await;
        moving.await.unwrap().unwrap();
        assert_eq!(pending_bytes(&s).await, SIZE as i64);
    });
}
