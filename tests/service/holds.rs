//! What keeps a file from being purged: its retention, and a legal hold.

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

async fn stored(s: &Service) -> String {
    file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap())
}

fn in_days(s: &Service, days: i64) -> Timestamp {
    Timestamp { seconds: (s.clock.now() + Duration::days(days)).timestamp(), nanos: 0 }
}

/// Sets `retain_until_time`.
async fn retain(caller: &Caller, id: &str, until: Option<Timestamp>) -> Result<File, Status> {
    let file = File { id: id.to_owned(), retain_until_time: until, ..File::default() };
    caller.update(file, &["retain_until_time"]).await
}

fn assert_kept(refused: Result<(), Status>) -> Status {
    let refused = refused.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "FILE_RETAINED"));
    refused
}

#[test]
fn until_its_retention_ends_nobody_purges_a_file_and_the_refusal_says_until_when() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let until = in_days(&s, 60);
        let kept = UploadSpec { retain_until_time: Some(until), ..spec("a") };
        let id = file_id(&alice.upload(kept, b"bytes").await.unwrap());
        assert_eq!(alice.get(&id).await.unwrap().retain_until_time, Some(until));
        alice.upload_version(&id, b"two").await.unwrap();
        for refused in
            [alice.purge(&id).await, ada.purge(&id).await, alice.delete_version(&id, 1).await.map(|_| ())]
        {
            let refused = assert_kept(refused);
            let told = &refused.get_details_error_info().unwrap().metadata["retain_until_time"];
            let until = (s.clock.now() + Duration::days(60)).format("%Y-%m-%d").to_string();
            assert!(told.starts_with(&until) && refused.message().contains(&until), "{refused:?}");
        }
        // Into the trash it may go; there it waits, also beyond its time there.
        alice.delete(&id).await.unwrap();
        s.clock.advance(Duration::days(31));
        assert_eq!(worker::run_round(&s.app).await, 0);
        assert_eq!(s.alice().get(&id).await.unwrap().state(), FileState::Deleted);
        s.clock.advance(Duration::days(30));
        assert_eq!(worker::run_round(&s.app).await, 1, "when its retention ends, its turn comes");
        assert_eq!(s.alice().get(&id).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn the_owner_promises_more_and_only_admins_take_a_promise_back() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = stored(&s).await;
        retain(&alice, &id, Some(in_days(&s, 10))).await.unwrap();
        retain(&alice, &id, Some(in_days(&s, 20))).await.unwrap();
        for shorter in [None, Some(in_days(&s, 19))] {
            let refused = retain(&alice, &id, shorter).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        }
        let denials = "SELECT count(*) FROM audit_entries WHERE NOT is_allowed AND action = 12";
        assert_eq!(s.owner.number(denials).await, 2);
        retain(&ada, &id, Some(in_days(&s, 5))).await.unwrap();
        s.clock.advance(Duration::days(6));
        // What is over binds nobody.
        retain(&s.alice(), &id, None).await.unwrap();
        s.alice().purge(&id).await.unwrap();
    });
}

#[test]
fn an_end_before_the_retention_is_refused_with_the_reason() {
    service_test(|s| async move {
        let alice = s.alice();
        let (early, late) = (Some(in_days(&s, 5)), Some(in_days(&s, 10)));
        let bad = UploadSpec { expire_time: early, retention_days: 5, retain_until_time: late, ..spec("a") };
        let refused = alice.upload(bad, b"x").await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["spec.expire_time", "spec.retention_days"]);
        let past = UploadSpec { retain_until_time: Some(in_days(&s, -1)), ..spec("a") };
        assert_eq!(violated_fields(&alice.upload(past, b"x").await.unwrap_err()), ["spec.retain_until_time"]);

        let ends = UploadSpec { retention_days: 7, ..spec("b") };
        let id = file_id(&alice.upload(ends, b"x").await.unwrap());
        assert_eq!(
            violated_fields(&retain(&alice, &id, late).await.unwrap_err()),
            ["file.retain_until_time"]
        );
        retain(&alice, &id, early).await.unwrap();
        let file = File { id: id.clone(), expire_time: Some(in_days(&s, 4)), ..File::default() };
        let refused = alice.update(file, &["expire_time"]).await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["file.expire_time"]);
        let violation = &refused.get_details_bad_request().unwrap().field_violations[0];
        assert!(violation.description.contains("before its retain_until_time"), "{violation:?}");
    });
}

#[test]
fn a_legal_hold_keeps_a_file_from_everyone_until_an_admin_releases_it() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = stored(&s).await;
        alice.upload_version(&id, b"two").await.unwrap();
        let before = alice.get(&id).await.unwrap();
        let held = ada.hold(&id, "case 17").await.unwrap();
        let hold = held.legal_hold.clone().unwrap();
        assert_eq!((hold.reason.as_str(), hold.set_by.as_str()), ("case 17", "ada"));
        assert_ne!(held.etag, before.etag);
        assert_eq!(alice.get(&id).await.unwrap(), held, "who sees the file sees that it is held");
        assert_eq!(ada.hold(&id, "another").await.unwrap(), held, "it is held already");
        for refused in
            [alice.purge(&id).await, ada.purge(&id).await, alice.delete_version(&id, 1).await.map(|_| ())]
        {
            let refused = assert_kept(refused);
            assert_eq!(refused.get_details_error_info().unwrap().metadata["hold_set_by"], "ada");
            assert!(refused.message().contains("case 17"), "{refused:?}");
        }
        let changed = alice.upload_version(&id, b"three").await.unwrap();
        assert_eq!(alice.get(&id).await.unwrap(), changed, "it may go on, and what was is kept");
        alice.delete(&id).await.unwrap();
        let events = |kind: u8| format!("SELECT count(*) FROM events WHERE kind = {kind}");
        assert_eq!(s.owner.number(&events(42)).await, 1);
        s.clock.advance(Duration::days(3650));
        assert_eq!(worker::run_round(&s.app).await, 0);
        let (alice, ada) = (s.alice(), s.ada());
        assert_kept(ada.purge(&id).await);
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Deleted);
        assert!(ada.release(&id, "settled").await.unwrap().legal_hold.is_none());
        assert_eq!(worker::run_round(&s.app).await, 1);
        let written = "SELECT format('%s %s', action, details ->> 'reason') FROM audit_entries
                       WHERE action IN (43, 44) AND is_allowed ORDER BY action";
        assert_eq!(s.owner.texts(written).await, ["43 case 17", "44 settled"]);
        assert_eq!(s.owner.number(&events(43)).await, 1);
    });
}

#[test]
fn a_hold_needs_an_admin_and_a_reason_and_a_retry_is_answered_the_same() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let id = stored(&s).await;
        assert_eq!(alice.hold(&id, "mine").await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(s.maria().release(&id, "mine").await.unwrap_err().code(), Code::PermissionDenied);
        for reason in ["", "two\nlines"] {
            assert_eq!(violated_fields(&ada.hold(&id, reason).await.unwrap_err()), ["reason"]);
            assert_eq!(violated_fields(&ada.release(&id, reason).await.unwrap_err()), ["reason"]);
        }
        let request = SetLegalHoldRequest {
            file_id: id.clone(),
            reason: "case 17".to_owned(),
            request_id: uuid::Uuid::from_u128(7).to_string(),
        };
        let first = ada.files.clone().set_legal_hold(request.clone()).await.unwrap().into_inner();
        ada.release(&id, "settled").await.unwrap();
        assert_eq!(ada.files.clone().set_legal_hold(request).await.unwrap().into_inner(), first);
        assert!(ada.get(&id).await.unwrap().legal_hold.is_none());
        assert!(ada.release(&id, "again").await.unwrap().legal_hold.is_none(), "it is not held");
    });
}

#[test]
fn where_there_is_no_trash_a_delete_is_refused_while_a_file_must_be_kept() {
    service_test(|s| async move {
        let id = stored(&s).await;
        s.ada().hold(&id, "case 17").await.unwrap();
        s.owner.run("UPDATE tenants SET policy = jsonb_set(policy, '{trash,days}', '0')").await;
        let fresh = s.replica(|_| {}).await;
        assert_kept(fresh.alice().delete(&id).await.map(|_| ()));
        assert_eq!(fresh.alice().read(&id).await.unwrap(), b"bytes"[..]);
        fresh.stopped().await;
    });
}

#[test]
fn the_database_keeps_what_must_be_kept_whatever_the_code_does() {
    service_test(|s| async move {
        let id = stored(&s).await;
        s.ada().hold(&id, "case 17").await.unwrap();
        let attempt = "
            CREATE FUNCTION public.attempt() RETURNS text LANGUAGE plpgsql AS $$
            DECLARE broken text;
            BEGIN
                DELETE FROM versions;
                DELETE FROM files;
                RETURN 'gone';
            EXCEPTION WHEN check_violation THEN
                GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME;
                RETURN broken;
            END $$";
        s.owner.run(attempt).await;
        assert_eq!(s.owner.texts("SELECT public.attempt()").await, ["protected_files"]);
        s.owner.run("DROP FUNCTION public.attempt").await;
    });
}

#[test]
fn files_that_must_be_kept_do_not_hold_up_the_others_in_the_trash() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let mut ids = Vec::new();
        for _ in 0..120 {
            ids.push(stored(&s).await);
        }
        for id in &ids {
            alice.delete(id).await.unwrap();
        }
        // More than a round looks at, and all of them due before the one that may go.
        for id in &ids[..60] {
            ada.hold(id, "case 17").await.unwrap();
        }
        s.owner.run("UPDATE files SET retain_until_time = delete_time + interval '90 days' WHERE hold_time IS NULL").await;
        let free = file_id(&s.alice().upload(spec("free"), b"bytes").await.unwrap());
        s.alice().delete(&free).await.unwrap();
        s.clock.advance(Duration::days(31));
        assert_eq!(
            worker::run_round(&s.app).await,
            1,
            "the one that need not be kept goes in the first round"
        );
        let plan = "EXPLAIN SELECT tenant_id FROM files
            WHERE purge_time IS NOT NULL AND hold_time IS NULL AND greatest(purge_time, retain_until_time) <= app.now()
            ORDER BY greatest(purge_time, retain_until_time), tenant_id, id LIMIT 100";
        s.owner.run("SET enable_seqscan = off").await;
        let plan = s.owner.texts(plan).await.join("\n");
        assert!(plan.contains("files_to_purge"), "{plan}");
        for id in &ids[..60] {
            s.ada().release(id, "settled").await.unwrap();
        }
        s.clock.advance(Duration::days(61));
        for _ in 0..2 {
            worker::run_round(&s.app).await;
        }
        assert_eq!(s.owner.number("SELECT count(*) FROM files").await, 0);
    });
}
