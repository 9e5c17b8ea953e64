//! Tenants are deleted: rows and bytes, whatever breaks off, and nothing that must be kept.

use chrono::Duration;
use strongroom::{
    app::tenants::erase,
    domain::{clock::Clock, object_key::ObjectKey},
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
    tenant_life::{erase_all, lived_in, new_tenant, refusals, rows_of},
};

#[test]
fn a_deleted_tenant_leaves_no_row_and_no_byte_but_its_record_and_its_audit_log() {
    service_test(|s| async move {
        let id = lived_in(&s).await;
        let kept = file_id(&s.mallory().upload(spec("theirs"), b"kept").await.unwrap());
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        strongroom::app::files::count_downloads::flush_download_counts(&s.app).await.unwrap();
        assert!(rows_of(&s, &acme).await.len() > 12, "there is something of everything");

        let plan = operator.delete_tenant(&acme, true).await.unwrap().plan.unwrap();
        assert_eq!((plan.file_count, plan.object_count, plan.bytes), (2, 3, 8 + 3 * PART as i64));
        assert!(s.alice().get(&id).await.is_ok(), "a dry run changes nothing");

        let other = s.replica(|_| {}).await;
        other.alice().quota().await.unwrap();
        let begun = operator.delete_tenant(&acme, false).await.unwrap().tenant.unwrap();
        let late = other.alice().upload(spec("late"), b"x").await.unwrap_err();
        assert_eq!(reason(&late), "TENANT_DELETED", "also where the tenant is remembered");
        other.stopped().await;
        assert_eq!((begun.state(), begun.deletion.unwrap().file_count), (TenantState::Deleting, 2));
        for refused in refusals(&s.alice(), &id).await {
            assert_eq!(refused, (Code::FailedPrecondition, "TENANT_DELETED".to_owned()));
        }
        assert_eq!(
            erase::erase_deleting_tenants(&s.app).await.unwrap(),
            0,
            "not while a replica may remember it"
        );
        s.clock.advance(Duration::seconds(15));
        erase_all(&s).await;

        let ended = operator.tenant(&acme).await.unwrap();
        let report = ended.deletion.clone().unwrap();
        assert_eq!((ended.state(), report.problem.as_str()), (TenantState::Deleted, ""));
        assert_eq!((report.removed_object_count, report.removed_bytes), (3, 8 + 3 * PART as i64));
        assert!(report.removed_row_count > 12, "{report:?}");
        let left = rows_of(&s, &acme).await;
        assert!(left.keys().all(|table| table.starts_with("audit_entries")), "{left:?}");
        let objects = s.store.list("", None, 10).await.unwrap().objects;
        assert_eq!(objects.len(), 1, "the other tenant's");
        assert_eq!(s.mallory().read(&kept).await.unwrap(), b"kept"[..]);
        assert_eq!(s.owner.number("SELECT count(*) FROM audit_entries WHERE action = 53").await, 2);
        let again = operator.delete_tenant(&acme, false).await.unwrap().tenant.unwrap();
        assert_eq!(again, ended, "deleting again changes nothing");
    });
}

#[test]
fn a_deleted_name_comes_back_to_life_only_by_an_operators_hand() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        operator.delete_tenant(&acme, false).await.unwrap();
        let taken = operator.create_tenant(new_tenant("acme")).await.unwrap_err();
        assert_eq!(reason(&taken), "TENANT_EXISTS", "not while it is going");
        s.clock.advance(Duration::seconds(15));
        erase_all(&s).await;
        s.clock.advance(Duration::seconds(60));
        assert_eq!(reason(&s.alice().quota().await.unwrap_err()), "TENANT_DELETED");
        assert_eq!(
            s.operator().update_quota(&acme, Default::default(), &["limit_bytes"]).await.unwrap_err().code(),
            Code::NotFound
        );

        let anew = operator.create_tenant(new_tenant("acme")).await.unwrap();
        assert_ne!(anew.id, acme);
        assert_eq!(s.alice().tenant_id().await, anew.id);
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
        s.alice().upload(spec("b"), b"x").await.unwrap();
        for refused in [operator.suspend(&acme).await, operator.resume(&acme).await] {
            assert_eq!(reason(&refused.unwrap_err()), "TENANT_DELETED");
        }
    });
}

#[test]
fn a_tenant_with_files_that_must_be_kept_is_not_deleted() {
    service_test(|s| async move {
        let id = file_id(&s.alice().upload(spec("a"), b"x").await.unwrap());
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        let until = s.clock.now() + Duration::days(7);
        s.owner.run(&format!("UPDATE files SET retain_until_time = '{}'", until.to_rfc3339())).await;
        let plan = operator.delete_tenant(&acme, true).await.unwrap().plan.unwrap();
        assert_eq!(
            (plan.retained_file_count, plan.retained_until_time.unwrap().seconds),
            (1, until.timestamp())
        );
        let refused = operator.delete_tenant(&acme, false).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::FailedPrecondition, "TENANT_RETAINED")
        );
        let told = refused.get_details_error_info().unwrap().metadata;
        assert_eq!(
            (told["file_count"].as_str(), told["retain_until_time"].as_str()),
            ("1", until.to_rfc3339().as_str())
        );
        assert_eq!(s.alice().read(&id).await.unwrap(), b"x"[..]);

        s.owner.run("UPDATE files SET retain_until_time = NULL").await;
        s.ada().hold(&id, "case 17").await.unwrap();
        let held = operator.delete_tenant(&acme, false).await.unwrap_err();
        let told = held.get_details_error_info().unwrap().metadata;
        assert_eq!((told["held_file_count"].as_str(), told.contains_key("retain_until_time")), ("1", false));
        s.ada().release(&id, "settled").await.unwrap();

        s.owner.run("UPDATE files SET retain_until_time = NULL").await;
        operator.delete_tenant(&acme, false).await.unwrap();
        // A replica that remembers the tenant cannot have anything kept that nobody could let go again.
        let replica = s.database.as_app().await;
        let late = format!(
            "BEGIN; SELECT set_config('app.tenant_id', '{acme}', true), set_config('app.audience_min', '1', true);
             UPDATE files SET hold_time = now(), hold_by = 'ada', hold_reason = 'late'"
        );
        let refused = replica.batch_execute(&late).await.unwrap_err();
        assert_eq!(refused.as_db_error().unwrap().constraint(), Some("tenant_is_not_deleted"));
        // And should anything be there all the same, nothing goes before it may.
        s.owner.run(&format!("UPDATE files SET retain_until_time = '{}'", until.to_rfc3339())).await;
        s.clock.advance(Duration::seconds(15));
        assert_eq!(erase::erase_deleting_tenants(&s.app).await.unwrap(), 0);
        let problem = operator.tenant(&acme).await.unwrap().deletion.unwrap().problem;
        assert!(problem.contains("must be kept"), "{problem}");
        assert_eq!(s.owner.number("SELECT count(*) FROM files").await, 1);
        s.clock.advance(Duration::days(7));
        let operator = s.operator();
        erase_all(&s).await;
        assert_eq!(operator.tenant(&acme).await.unwrap().state(), TenantState::Deleted);
    });
}

#[test]
fn a_deletion_that_breaks_off_goes_on_where_it_was_and_takes_what_crashes_left_along() {
    service_test(|s| async move {
        lived_in(&s).await;
        let (acme, operator) = (s.alice().tenant_id().await, s.operator());
        let day = s.clock.now().date_naive();
        let key = ObjectKey::for_blob("live", acme.parse().unwrap(), "report", day, uuid_blob(9)).unwrap();
        s.store
            .put(&key, Payload::from(bytes::Bytes::from_static(b"stray")), &PutOptions::default())
            .await
            .unwrap();
        s.store.start_multipart(&key, PART as u64, &PutOptions::default()).await.unwrap();
        operator.delete_tenant(&acme, false).await.unwrap();
        s.clock.advance(Duration::seconds(15));
        let away = Fault::Before(StorageErrorKind::Unavailable);
        s.faults.set_plan(Plan::new().with_fault(Operation::Delete, 2, away));
        let mut problems = Vec::new();
        for _ in 0..100 {
            erase::erase_deleting_tenants(&s.app).await.unwrap();
            problems.push(operator.tenant(&acme).await.unwrap().deletion.unwrap().problem);
        }
        assert_eq!(problems.iter().filter(|problem| !problem.is_empty()).count(), 1, "{problems:?}");
        let ended = operator.tenant(&acme).await.unwrap();
        let report = ended.deletion.clone().unwrap();
        assert_eq!((ended.state(), report.problem.as_str()), (TenantState::Deleted, ""));
        assert_eq!(
            (report.removed_object_count, report.object_count),
            (4, 3),
            "each once, and the stray one"
        );
        assert!(s.store.list("", None, 10).await.unwrap().objects.is_empty());
        assert!(s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty());
    });
}

fn uuid_blob(n: u128) -> strongroom::domain::ids::BlobId {
    strongroom::domain::ids::BlobId::from_uuid(uuid::Uuid::from_u128(n))
}

#[test]
fn an_open_upload_of_a_deleted_tenant_is_given_up() {
    service_test(|s| async move {
        let acme = s.alice().tenant_id().await;
        let (sent, messages) = futures::channel::mpsc::unbounded();
        sent.unbounded_send(spec_message(spec("a"))).unwrap();
        sent.unbounded_send(chunk(0, &vec![7; 2 * PART])).unwrap();
        let mut files = s.alice().files;
        let upload = tokio::spawn(async move { files.upload_file(messages).await });
        s.until("the upload is open", || async {
            s.owner.number("SELECT count(*) FROM uploads WHERE state = 1").await == 1
        })
        .await;
        s.operator().delete_tenant(&acme, false).await.unwrap();
        s.clock.advance(Duration::seconds(15));
        erase_all(&s).await;
        assert_eq!(s.operator().tenant(&acme).await.unwrap().state(), TenantState::Deleted);
        sent.unbounded_send(finish(2 * PART)).unwrap();
        drop(sent);
        upload.await.unwrap().unwrap_err();
        s.until("nothing is left in the store", || async {
            s.store.list("", None, 10).await.unwrap().objects.is_empty()
                && s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty()
        })
        .await;
    });
}

#[test]
fn the_database_lets_no_deleted_tenant_live_again_and_erases_none_that_lives() {
    service_test(|s| async move {
        s.alice().quota().await.unwrap();
        s.owner
            .run(
                "CREATE FUNCTION public.attempt(sql text) RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN EXECUTE sql; RETURN true; EXCEPTION WHEN check_violation OR raise_exception THEN RETURN false; END $$",
            )
            .await;
        let allowed = |from: i32, to: i32| matches!((from, to), (1, 2 | 3) | (2, 1 | 3) | (3, 4));
        for (from, to) in
            (1..=4).flat_map(|from| (1..=4).map(move |to| (from, to))).filter(|(from, to)| from != to)
        {
            s.owner.past_guards("tenants", &format!("UPDATE tenants SET state = {from}")).await;
            let sql = format!("SELECT public.attempt('UPDATE tenants SET state = {to}')::int::bigint");
            assert_eq!(s.owner.number(&sql).await == 1, allowed(from, to), "{from} -> {to}");
        }
        s.owner.past_guards("tenants", "UPDATE tenants SET state = 1").await;
        let erase = "SELECT public.attempt('SELECT app.erase_tenant_rows(id, 10) FROM tenants')::int::bigint";
        assert_eq!(s.owner.number(erase).await, 0);
        s.owner.run("DROP FUNCTION public.attempt").await;
    });
}
