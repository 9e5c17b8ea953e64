//! Deletion of tenants: rows and objects are erased, also after interruptions, unless files must be retained.

use chrono::Duration;
use strongroom::{
    app::tenants::erase,
    domain::{caller, clock::Clock, object_key::ObjectKey},
    proto::admin::v1::TenantState,
    storage::{
        Payload, PutOptions, StorageErrorKind,
        flaky::{Fault, Operation, Plan},
    },
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    harness::{PART, chunk, file_id, finish, reason, service_test, spec, spec_message},
    tenants::{
        call_methods_refused, count_rows_by_table, create_tenant_content, erase_all_tenants, new_tenant,
    },
};

#[test]
fn deleted_tenant_keeps_only_record_and_audit_log() {
    service_test(|s| async move {
        let id = create_tenant_content(&s).await;
        let kept = file_id(&s.mallory().upload(spec("theirs"), b"kept").await.unwrap());
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        strongroom::app::files::count_downloads::flush_download_counts(&s.app).await.unwrap();
        assert!(count_rows_by_table(&s, &acme).await.len() > 12, "many tables have rows of the tenant");

        let plan = operator.delete_tenant(&acme, true).await.unwrap().plan.unwrap();
        assert_eq!((plan.file_count, plan.object_count, plan.bytes), (2, 3, 8 + 3 * PART as i64));
        assert!(s.alice().get(&id).await.is_ok(), "a dry run changes nothing");

        let other = s.start_replica(|_| {}).await;
        other.alice().quota().await.unwrap();
        let deleting = operator.delete_tenant(&acme, false).await.unwrap().tenant.unwrap();
        let late = other.alice().upload(spec("late"), b"x").await.unwrap_err();
        assert_eq!(
            reason(&late),
            "TENANT_DELETED",
            "a replica with the tenant in its cache also rejects uploads"
        );
        other.stop().await;
        assert_eq!((deleting.state(), deleting.deletion.unwrap().file_count), (TenantState::Deleting, 2));
        for error in call_methods_refused(&s.alice(), &id).await {
            assert_eq!(error, (Code::FailedPrecondition, "TENANT_DELETED".to_owned()));
        }
        assert_eq!(
            erase::erase_deleting_tenants(&s.app).await.unwrap().done,
            0,
            "erasure waits until the caches of replicas have expired"
        );
        s.clock.advance(Duration::seconds(15));
        erase_all_tenants(&s).await;

        let deleted = operator.get_tenant(&acme).await.unwrap();
        let report = deleted.deletion.clone().unwrap();
        assert_eq!((deleted.state(), report.problem.as_str()), (TenantState::Deleted, ""));
        assert_eq!((report.erased_object_count, report.erased_bytes), (3, 8 + 3 * PART as i64));
        assert!(report.erased_row_count > 12, "{report:?}");
        let left = count_rows_by_table(&s, &acme).await;
        assert!(left.keys().all(|table| table.starts_with("audit_entries")), "{left:?}");
        let objects = s.store.list("", None, 10).await.unwrap().objects;
        assert_eq!(objects.len(), 1, "the object of the other tenant");
        assert_eq!(s.mallory().read(&kept).await.unwrap(), b"kept"[..]);
        assert_eq!(
            s.superuser
                .query_number(
                    "SELECT count(*) FROM audit_entries WHERE action = {audit_action.tenant_delete}"
                )
                .await,
            2
        );
        let again = operator.delete_tenant(&acme, false).await.unwrap().tenant.unwrap();
        assert_eq!(again, deleted, "a second deletion changes nothing");
    });
}

#[test]
fn only_operator_can_recreate_deleted_tenant() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        operator.delete_tenant(&acme, false).await.unwrap();
        let taken = operator.create_tenant(new_tenant("acme")).await.unwrap_err();
        assert_eq!(reason(&taken), "TENANT_EXISTS", "the name is taken until the deletion has finished");
        s.clock.advance(Duration::seconds(15));
        erase_all_tenants(&s).await;
        s.clock.advance(Duration::seconds(60));
        assert_eq!(reason(&s.alice().quota().await.unwrap_err()), "TENANT_DELETED");
        assert_eq!(
            s.operator().update_quota(&acme, Default::default(), &["limit_bytes"]).await.unwrap_err().code(),
            Code::NotFound
        );

        let recreated = operator.create_tenant(new_tenant("acme")).await.unwrap();
        assert_ne!(recreated.id, acme);
        assert_eq!(s.alice().tenant_id().await, recreated.id);
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
        s.alice().upload(spec("b"), b"x").await.unwrap();
        for error in [operator.suspend_tenant(&acme).await, operator.resume_tenant(&acme).await] {
            assert_eq!(reason(&error.unwrap_err()), "TENANT_DELETED");
        }
    });
}

#[test]
fn tenant_with_retained_files_is_not_deleted() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        let until = s.clock.now() + Duration::days(7);
        s.superuser.execute(&format!("UPDATE files SET retain_until_time = '{}'", until.to_rfc3339())).await;
        let plan = operator.delete_tenant(&acme, true).await.unwrap().plan.unwrap();
        assert_eq!(
            (plan.retained_file_count, plan.retained_until_time.unwrap().seconds),
            (1, until.timestamp())
        );
        let error = operator.delete_tenant(&acme, false).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "TENANT_RETAINED"));
        let metadata = error.get_details_error_info().unwrap().metadata;
        assert_eq!(
            (metadata["file_count"].as_str(), metadata["retain_until_time"].as_str()),
            ("1", until.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true).as_str())
        );
        assert_eq!(s.alice().read(&id).await.unwrap(), b"x"[..]);

        s.superuser.execute("UPDATE files SET retain_until_time = NULL").await;
        s.ada().set_legal_hold(&id, "case 17").await.unwrap();
        let held = operator.delete_tenant(&acme, false).await.unwrap_err();
        let metadata = held.get_details_error_info().unwrap().metadata;
        assert_eq!(
            (metadata["held_file_count"].as_str(), metadata.contains_key("retain_until_time")),
            ("1", false)
        );
        s.ada().release_legal_hold(&id, "resolved").await.unwrap();

        s.superuser.execute("UPDATE files SET retain_until_time = NULL").await;
        operator.delete_tenant(&acme, false).await.unwrap();
        // A replica with the tenant in its cache cannot set a hold, because nobody could release it.
        let replica = s.database.connect_as_app().await;
        let late = format!(
            "BEGIN; SELECT set_config('app.tenant_id', '{acme}', true), set_config('app.audience_min', '1', true);
             UPDATE files SET hold_time = now(), hold_by = 'ada', hold_reason = 'late'"
        );
        let error = replica.batch_execute(&late).await.unwrap_err();
        assert_eq!(error.as_db_error().unwrap().constraint(), Some("tenant_is_not_deleted"));
        // If a retained file exists nevertheless, nothing is erased before its retention ends.
        s.superuser.execute(&format!("UPDATE files SET retain_until_time = '{}'", until.to_rfc3339())).await;
        s.clock.advance(Duration::seconds(15));
        assert_eq!(erase::erase_deleting_tenants(&s.app).await.unwrap().done, 0);
        let problem = operator.get_tenant(&acme).await.unwrap().deletion.unwrap().problem;
        assert!(problem.contains("must be kept"), "{problem}");
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM files").await, 1);
        s.clock.advance(Duration::days(7));
        let operator = s.operator();
        erase_all_tenants(&s).await;
        assert_eq!(operator.get_tenant(&acme).await.unwrap().state(), TenantState::Deleted);
    });
}

#[test]
fn interrupted_deletion_resumes_and_erases_orphans() {
    service_test(|s| async move {
        create_tenant_content(&s).await;
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        let day = s.clock.now().date_naive();
        let key = ObjectKey::for_blob("live", acme.parse().unwrap(), "report", day, uuid_blob(9)).unwrap();
        s.store
            .put(&key, Payload::from(bytes::Bytes::from_static(b"orphan")), &PutOptions::default())
            .await
            .unwrap();
        s.store.start_multipart(&key, PART as u64, &PutOptions::default()).await.unwrap();
        operator.delete_tenant(&acme, false).await.unwrap();
        s.clock.advance(Duration::seconds(15));
        let fault = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Delete, 2, fault));
        let mut problems = Vec::new();
        for _ in 0..100 {
            erase::erase_deleting_tenants(&s.app).await.unwrap();
            problems.push(operator.get_tenant(&acme).await.unwrap().deletion.unwrap().problem);
        }
        assert_eq!(problems.iter().filter(|problem| !problem.is_empty()).count(), 1, "{problems:?}");
        let deleted = operator.get_tenant(&acme).await.unwrap();
        let report = deleted.deletion.clone().unwrap();
        assert_eq!((deleted.state(), report.problem.as_str()), (TenantState::Deleted, ""));
        assert_eq!(
            (report.erased_object_count, report.object_count),
            (4, 3),
            "each object once, and the orphan"
        );
        assert!(s.store.list("", None, 10).await.unwrap().objects.is_empty());
        assert!(s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty());
    });
}

fn uuid_blob(n: u128) -> strongroom::domain::ids::BlobId {
    strongroom::domain::ids::BlobId::from_uuid(uuid::Uuid::from_u128(n))
}

#[test]
fn open_upload_of_deleted_tenant_is_abandoned() {
    service_test(|s| async move {
        let acme = s.alice().tenant_id().await;
        let (sender, messages) = futures::channel::mpsc::unbounded();
        sender.unbounded_send(spec_message(spec("a"))).unwrap();
        sender.unbounded_send(chunk(0, &vec![7; 2 * PART])).unwrap();
        let mut files = s.alice().files;
        let upload = tokio::spawn(async move { files.upload_file(messages).await });
        s.wait_until("the upload is open", || async {
            s.superuser.query_number("SELECT count(*) FROM uploads WHERE state = {upload_state.open}").await
                == 1
        })
        .await;
        s.operator().delete_tenant(&acme, false).await.unwrap();
        s.clock.advance(Duration::seconds(15));
        erase_all_tenants(&s).await;
        assert_eq!(s.operator().get_tenant(&acme).await.unwrap().state(), TenantState::Deleted);
        // Fails if the service noticed the deletion and has ended the stream.
        let _ = sender.unbounded_send(finish(2 * PART));
        drop(sender);
        upload.await.unwrap().unwrap_err();
        s.wait_until("the store is empty", || async {
            s.store.list("", None, 10).await.unwrap().objects.is_empty()
                && s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
        })
        .await;
    });
}

#[test]
fn database_enforces_state_changes_of_tenants() {
    service_test(|s| async move {
        s.alice().quota().await.unwrap();
        s.superuser
            .execute(
                "CREATE FUNCTION public.attempt(sql text) RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN EXECUTE sql; RETURN true; EXCEPTION WHEN check_violation OR raise_exception THEN RETURN false; END $$",
            )
            .await;
        let allowed = |from: caller::TenantState, to: caller::TenantState| {
            use caller::TenantState::{Active, Deleted, Deleting, Suspended};
            matches!(
                (from, to),
                (Active, Suspended | Deleting) | (Suspended, Active | Deleting) | (Deleting, Deleted)
            )
        };
        let all = caller::TenantState::ALL;
        for (from, to) in
            all.iter().flat_map(|from| all.iter().map(|to| (*from, *to))).filter(|(from, to)| from != to)
        {
            let set = |state: caller::TenantState| format!("UPDATE tenants SET state = {}", state.number());
            s.superuser.execute_without_triggers("tenants", &set(from)).await;
            let sql = format!("SELECT public.attempt('{}')::int::bigint", set(to));
            assert_eq!(s.superuser.query_number(&sql).await == 1, allowed(from, to), "{from} -> {to}");
        }
        s.superuser
            .execute_without_triggers("tenants", "UPDATE tenants SET state = {tenant_state.active}")
            .await;
        let erase = "SELECT public.attempt('SELECT app.erase_tenant_rows(id, 10) FROM tenants')::int::bigint";
        assert_eq!(s.superuser.query_number(erase).await, 0);
        s.superuser.execute("DROP FUNCTION public.attempt").await;
    });
}
