//! Retention and legal holds, which prevent the purge of a file.

use chrono::Duration;
use prost_types::Timestamp;
use strongroom::{
    domain::clock::Clock,
    proto::v1::{File, FileState, SetLegalHoldRequest, UploadSpec},
    worker,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Caller, Service, file_id, reason, service_test, spec, violated_fields};

async fn upload_file(s: &Service) -> String {
    file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap())
}

fn time_in_days(s: &Service, days: i64) -> Timestamp {
    Timestamp { seconds: (s.clock.now() + Duration::days(days)).timestamp(), nanos: 0 }
}

/// Lets members retain their own files. Returns a replica that has not cached the former policy.
async fn let_members_retain(s: &Service, days_max: u32) -> Service {
    s.alice().quota().await.unwrap();
    let rule = format!(r#"{{"retain": {{"admin_days_max": 3650, "member_days_max": {days_max}}}}}"#);
    s.superuser.execute(&format!("UPDATE tenants SET policy = policy || '{rule}'")).await;
    s.start_replica(|_| ()).await
}

async fn set_retain_until(caller: &Caller, id: &str, until: Option<Timestamp>) -> Result<File, Status> {
    let file = File { id: id.to_owned(), retain_until_time: until, ..File::default() };
    caller.update(file, &["retain_until_time"]).await
}

fn assert_retained(result: Result<(), Status>) -> Status {
    let error = result.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "FILE_RETAINED"));
    error
}

#[test]
fn retained_file_cannot_be_purged_and_error_has_end_time() {
    service_test(|s| async move {
        let r = let_members_retain(&s, 60).await;
        let (alice, ada) = (r.alice(), s.ada());
        let until = time_in_days(&s, 60);
        let retained = UploadSpec { retain_until_time: Some(until), ..spec("a") };
        let id = file_id(&alice.upload(retained, b"bytes").await.unwrap());
        assert_eq!(alice.get(&id).await.unwrap().retain_until_time, Some(until));
        alice.upload_version(&id, b"two").await.unwrap();
        for result in
            [alice.purge(&id).await, ada.purge(&id).await, alice.delete_version(&id, 1).await.map(|_| ())]
        {
            let error = assert_retained(result);
            let end_time = &error.get_details_error_info().unwrap().metadata["retain_until_time"];
            let until = (s.clock.now() + Duration::days(60)).format("%Y-%m-%d").to_string();
            assert!(end_time.starts_with(&until) && error.message().contains(&until), "{error:?}");
        }
        // The file may be deleted, but it stays in the trash after its purge time.
        alice.delete(&id).await.unwrap();
        r.stop().await;
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await.done, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        s.clock.advance(Duration::days(30));
        assert_eq!(worker::run_round(&s.app).await.done, 1, "the file is purged when its retention ends");
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn owner_extends_retention_and_only_admin_shortens_it() {
    service_test(|s| async move {
        let r = let_members_retain(&s, 20).await;
        let (alice, ada) = (r.alice(), s.ada());
        let id = upload_file(&s).await;
        set_retain_until(&alice, &id, Some(time_in_days(&s, 10))).await.unwrap();
        set_retain_until(&alice, &id, Some(time_in_days(&s, 20))).await.unwrap();
        for shorter in [None, Some(time_in_days(&s, 19))] {
            let error = set_retain_until(&alice, &id, shorter).await.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        }
        let denials =
            "SELECT count(*) FROM audit_entries WHERE NOT is_allowed AND action = {audit_action.file_update}";
        assert_eq!(s.superuser.query_number(denials).await, 2);
        set_retain_until(&ada, &id, Some(time_in_days(&s, 5))).await.unwrap();
        s.clock.advance(Duration::days(6));
        r.stop().await;
        // The owner may remove a retention that has ended.
        set_retain_until(&s.alice(), &id, None).await.unwrap();
        s.alice().purge(&id).await.unwrap();
    });
}

#[test]
fn rejects_expiry_before_retention_end() {
    service_test(|s| async move {
        let alice = s.ada();
        let (early, late) = (Some(time_in_days(&s, 5)), Some(time_in_days(&s, 10)));
        let bad = UploadSpec { expire_time: early, retention_days: 5, retain_until_time: late, ..spec("a") };
        let error = alice.upload(bad, b"x").await.unwrap_err();
        assert_eq!(violated_fields(&error), ["spec.expire_time", "spec.retention_days"]);
        let past = UploadSpec { retain_until_time: Some(time_in_days(&s, -1)), ..spec("a") };
        assert_eq!(violated_fields(&alice.upload(past, b"x").await.unwrap_err()), ["spec.retain_until_time"]);

        let ends = UploadSpec { retention_days: 7, ..spec("b") };
        let id = file_id(&alice.upload(ends, b"x").await.unwrap());
        assert_eq!(
            violated_fields(&set_retain_until(&alice, &id, late).await.unwrap_err()),
            ["file.retain_until_time"]
        );
        set_retain_until(&alice, &id, early).await.unwrap();
        let file = File { id: id.clone(), expire_time: Some(time_in_days(&s, 4)), ..File::default() };
        let error = alice.update(file, &["expire_time"]).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["file.expire_time"]);
        let violation = &error.get_details_bad_request().unwrap().field_violations[0];
        assert!(violation.description.contains("before its retain_until_time"), "{violation:?}");
    });
}

#[test]
fn legal_hold_prevents_purge_until_admin_releases_it() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = upload_file(&s).await;
        alice.upload_version(&id, b"two").await.unwrap();
        let before = alice.get(&id).await.unwrap();
        let held = ada.set_legal_hold(&id, "case 17").await.unwrap();
        let hold = held.legal_hold.clone().unwrap();
        assert_eq!((hold.reason.as_str(), hold.set_by.as_str()), ("case 17", "ada"));
        assert_ne!(held.etag, before.etag);
        assert_eq!(alice.get(&id).await.unwrap(), held, "every caller who sees the file sees the hold");
        assert_eq!(ada.set_legal_hold(&id, "another").await.unwrap(), held, "a second hold changes nothing");
        for result in
            [alice.purge(&id).await, ada.purge(&id).await, alice.delete_version(&id, 1).await.map(|_| ())]
        {
            let error = assert_retained(result);
            assert_eq!(error.get_details_error_info().unwrap().metadata["hold_set_by"], "ada");
            assert!(error.message().contains("case 17"), "{error:?}");
        }
        let changed = alice.upload_version(&id, b"three").await.unwrap();
        assert_eq!(alice.get(&id).await.unwrap(), changed, "a held file accepts new versions");
        alice.delete(&id).await.unwrap();
        let events = |kind: &str| format!("SELECT count(*) FROM events WHERE kind = {{event_kind.{kind}}}");
        assert_eq!(s.superuser.query_number(&events("file_hold_set")).await, 1);
        // Longer than the trash keeps files, and not as long as audit entries are kept.
        s.clock.advance(Duration::days(2000));
        assert_eq!(worker::run_round(&s.app).await.done, 0);
        let (alice, ada) = (s.alice(), s.ada());
        assert_retained(ada.purge(&id).await);
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Deleted);
        assert!(ada.release_legal_hold(&id, "settled").await.unwrap().legal_hold.is_none());
        assert_eq!(worker::run_round(&s.app).await.done, 1);
        let entries = "SELECT format('%s %s', action, details ->> 'reason') FROM audit_entries
                       WHERE action IN ({audit_action.file_hold_set}, {audit_action.file_hold_release})
                           AND is_allowed ORDER BY action";
        assert_eq!(s.superuser.query_texts(entries).await, ["43 case 17", "44 settled"]);
        assert_eq!(s.superuser.query_number(&events("file_hold_released")).await, 1);
    });
}

#[test]
fn hold_needs_admin_and_reason_and_can_be_retried() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = upload_file(&s).await;
        assert_eq!(alice.set_legal_hold(&id, "mine").await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(
            s.maria().release_legal_hold(&id, "mine").await.unwrap_err().code(),
            Code::PermissionDenied
        );
        for reason in ["", "two\nlines"] {
            assert_eq!(violated_fields(&ada.set_legal_hold(&id, reason).await.unwrap_err()), ["reason"]);
            assert_eq!(violated_fields(&ada.release_legal_hold(&id, reason).await.unwrap_err()), ["reason"]);
        }
        let request = SetLegalHoldRequest {
            file_id: id.clone(),
            reason: "case 17".to_owned(),
            request_id: uuid::Uuid::from_u128(7).to_string(),
        };
        let first = ada.files.clone().set_legal_hold(request.clone()).await.unwrap().into_inner();
        ada.release_legal_hold(&id, "settled").await.unwrap();
        assert_eq!(ada.files.clone().set_legal_hold(request).await.unwrap().into_inner(), first);
        assert!(ada.get(&id).await.unwrap().legal_hold.is_none());
        assert!(
            ada.release_legal_hold(&id, "again").await.unwrap().legal_hold.is_none(),
            "a release without a hold succeeds"
        );
    });
}

#[test]
fn held_file_cannot_be_deleted_without_trash() {
    service_test(|s| async move {
        let id = upload_file(&s).await;
        s.ada().set_legal_hold(&id, "case 17").await.unwrap();
        s.superuser.execute("UPDATE tenants SET policy = jsonb_set(policy, '{trash,days}', '0')").await;
        let fresh = s.start_replica(|_| {}).await;
        assert_retained(fresh.alice().delete(&id).await.map(|_| ()));
        assert_eq!(fresh.alice().read(&id).await.unwrap(), b"bytes"[..]);
        fresh.stop().await;
    });
}

/// Deletes all files in the database, and returns `deleted` or the constraint that prevents it.
pub(crate) async fn attempt_deletion(s: &Service) -> String {
    let attempt = "
        CREATE FUNCTION public.attempt() RETURNS text LANGUAGE plpgsql AS $$
        DECLARE violated text;
        BEGIN
            DELETE FROM versions;
            DELETE FROM files;
            RETURN 'deleted';
        EXCEPTION WHEN check_violation THEN
            GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
            RETURN violated;
        END $$";
    s.superuser.execute(attempt).await;
    let results = s.superuser.query_texts("SELECT public.attempt()").await;
    s.superuser.execute("DROP FUNCTION public.attempt").await;
    results.concat()
}

#[test]
fn database_prevents_deletion_of_held_file() {
    service_test(|s| async move {
        let id = upload_file(&s).await;
        s.ada().set_legal_hold(&id, "case 17").await.unwrap();
        assert_eq!(attempt_deletion(&s).await, "protected_files");
    });
}

#[test]
fn retained_files_do_not_delay_purge_of_others() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let mut ids = Vec::new();
        for _ in 0..120 {
            ids.push(upload_file(&s).await);
        }
        for id in &ids {
            alice.delete(id).await.unwrap();
        }
        // More files than one round reads, and all are due before the only file that may be purged.
        for id in &ids[..60] {
            ada.set_legal_hold(id, "case 17").await.unwrap();
        }
        s.superuser.execute("UPDATE files SET retain_until_time = delete_time + interval '90 days' WHERE hold_time IS NULL").await;
        let free = file_id(&s.alice().upload(spec("free"), b"bytes").await.unwrap());
        s.alice().delete(&free).await.unwrap();
        s.clock.advance(Duration::days(31));
        assert_eq!(
            worker::run_round(&s.app).await.done,
            1,
            "the first round purges the only file that is not retained"
        );
        let plan = "EXPLAIN SELECT tenant_id FROM files
            WHERE purge_time IS NOT NULL AND hold_time IS NULL AND greatest(purge_time, retain_until_time) <= app.now()
            ORDER BY greatest(purge_time, retain_until_time), tenant_id, id LIMIT 100";
        s.superuser.execute("SET enable_seqscan = off").await;
        let plan = s.superuser.query_texts(plan).await.join("\n");
        assert!(plan.contains("files_to_purge"), "{plan}");
        for id in &ids[..60] {
            s.ada().release_legal_hold(id, "settled").await.unwrap();
        }
        s.clock.advance(Duration::days(61));
        for _ in 0..2 {
            worker::run_round(&s.app).await;
        }
        assert_eq!(s.superuser.query_number("SELECT count(*) FROM files").await, 0);
    });
}
