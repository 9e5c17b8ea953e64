//! Archiving, and the state transitions that the database allows.

use strongroom::{
    domain::file::ContentState,
    proto::v1::{ArchiveFileRequest, FileFilter, FileState, ListFilesRequest},
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Service, file_id, reason, service_test, spec};

async fn upload_file(s: &Service) -> String {
    file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap())
}

#[test]
fn archived_file_shows_its_record_but_cannot_be_read() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let before = alice.get(&id).await.unwrap();
        let archived = alice.archive(&id).await.unwrap();
        assert_eq!(archived.state(), FileState::Archived);
        assert_ne!(archived.etag, before.etag);
        assert_eq!(alice.get(&id).await.unwrap(), archived);
        assert_eq!(alice.archive(&id).await.unwrap(), archived, "a second archive changes nothing");
        let only = FileFilter { states: vec![FileState::Archived.into()], ..FileFilter::default() };
        let listed = ListFilesRequest { filter: Some(only), ..ListFilesRequest::default() };
        assert_eq!(alice.list_names(listed).await, ["a"]);

        let error = alice.read(&id).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "FILE_NOT_AVAILABLE"));
        assert_eq!(error.get_details_error_info().unwrap().metadata["state"], "FILE_STATE_ARCHIVED");
        assert_eq!(alice.quota().await.unwrap().used_bytes, 5, "an archived file counts against the quota");

        let unarchived = alice.unarchive(&id).await.unwrap();
        assert_eq!(unarchived.state(), FileState::Available);
        assert_eq!(alice.unarchive(&id).await.unwrap(), unarchived, "a second unarchive changes nothing");
        assert_eq!(alice.read(&id).await.unwrap(), b"bytes"[..]);
        let events = "SELECT count(*) FROM events WHERE kind IN ({event_kind.file_archived},
            {event_kind.file_unarchived})";
        assert_eq!(s.superuser.query_number(events).await, 2);
        let entries = "SELECT count(*) FROM audit_entries WHERE action IN ({audit_action.file_archive},
            {audit_action.file_unarchive}) AND is_allowed";
        assert_eq!(s.superuser.query_number(entries).await, 2);
    });
}

#[test]
fn only_available_file_can_be_archived() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        s.superuser.set_content_state(ContentState::Quarantined).await;
        let error = alice.archive(&id).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "FILE_NOT_AVAILABLE"));
        assert_eq!(error.get_details_error_info().unwrap().metadata["state"], "FILE_STATE_QUARANTINED");
        s.superuser.set_content_state(ContentState::Available).await;
        alice.delete(&id).await.unwrap();
        for result in [alice.archive(&id).await, alice.unarchive(&id).await] {
            let error = result.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "FILE_DELETED"));
        }
    });
}

#[test]
fn undelete_restores_archived_state() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        alice.archive(&id).await.unwrap();
        assert_eq!(alice.delete(&id).await.unwrap().unwrap().state(), FileState::Deleted);
        assert_eq!(alice.undelete(&id).await.unwrap().state(), FileState::Archived);
    });
}

#[test]
fn unarchive_does_not_release_quarantined_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        alice.archive(&id).await.unwrap();
        s.superuser.set_content_state(ContentState::Quarantined).await;
        assert_eq!(alice.unarchive(&id).await.unwrap().state(), FileState::Quarantined);
        assert_eq!(reason(&alice.read(&id).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        s.superuser.set_content_state(ContentState::Available).await;
    });
}

#[test]
fn retried_archive_has_one_effect_and_same_response() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let request_id = uuid::Uuid::from_u128(7).to_string();
        let request = ArchiveFileRequest { file_id: id.clone(), request_id, ..ArchiveFileRequest::default() };
        let first = alice.files.clone().archive_file(request.clone()).await.unwrap().into_inner();
        alice.unarchive(&id).await.unwrap();
        let again = alice.files.clone().archive_file(request).await.unwrap().into_inner();
        assert_eq!(first, again);
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Available);
    });
}

#[test]
fn database_allows_only_defined_state_transitions() {
    service_test(|s| async move {
        let id = upload_file(&s).await;
        s.superuser
            .execute(
                "CREATE FUNCTION public.attempt(sql text) RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN EXECUTE sql; RETURN true; EXCEPTION WHEN check_violation THEN RETURN false; END $$",
            )
            .await;
        let attempt = async |sql: String| {
            s.superuser.query_number(&format!("SELECT public.attempt($${sql}$$)::int::bigint")).await == 1
        };
        for table in ["versions", "files"] {
            for from in ContentState::ALL {
                for to in ContentState::ALL.iter().filter(|to| *to != from) {
                    s.superuser.set_content_state(*from).await;
                    let is_allowed =
                        attempt(format!("UPDATE {table} SET content_state = {}", to.number())).await;
                    assert_eq!(is_allowed, from.can_become(*to), "{table}: {from:?} -> {to:?}");
                }
            }
        }
        s.superuser.set_content_state(ContentState::Quarantined).await;
        assert!(
            !attempt("UPDATE files SET archive_time = now()".to_owned()).await,
            "a quarantined file cannot be archived"
        );
        s.superuser.set_content_state(ContentState::Available).await;
        let set_current = || {
            attempt(
                "UPDATE files SET version = 2, last_version = 2, content_state = {content_state.available}"
                    .to_owned(),
            )
        };
        assert!(!set_current().await, "version 2 does not exist");
        let columns = "scan_status, mime_type, declared_mime_type, media_kind, size_bytes, sha256, created_by, create_time";
        s.superuser
            .execute(&format!(
                "INSERT INTO versions (tenant_id, file_id, version, blob_id, content_state, {columns})
                 SELECT tenant_id, file_id, 2, blob_id, {{content_state.quarantined}}, {columns} FROM versions"
            ))
            .await;
        assert!(!set_current().await, "version 2 is not available");
        s.superuser
            .execute("UPDATE versions SET content_state = {content_state.available} WHERE version = 2")
            .await;
        assert!(set_current().await);
        s.superuser
            .execute_without_triggers(
                "files",
                "UPDATE files SET version = 1; DELETE FROM versions WHERE version = 2",
            )
            .await;
        s.alice().archive(&id).await.unwrap();
        s.alice().delete(&id).await.unwrap();
        assert!(
            !attempt("UPDATE files SET archive_time = NULL".to_owned()).await,
            "a file in the trash cannot be unarchived"
        );
        s.superuser.execute("DROP FUNCTION public.attempt").await;
    });
}
