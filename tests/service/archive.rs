//! The archive, and the moves between states that the database allows.

use strongroom::{
    domain::file::ContentState,
    proto::v1::{ArchiveFileRequest, FileFilter, FileState, ListFilesRequest},
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Service, file_id, reason, service_test, spec};

async fn stored(s: &Service) -> String {
    file_id(&s.alice().upload(spec("a"), b"bytes").await.unwrap())
}

#[test]
fn an_archived_file_shows_its_record_and_keeps_its_bytes_to_itself() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        let before = alice.get(&id).await.unwrap();
        let archived = alice.archive(&id).await.unwrap();
        assert_eq!(archived.state(), FileState::Archived);
        assert_ne!(archived.etag, before.etag);
        assert_eq!(alice.get(&id).await.unwrap(), archived);
        assert_eq!(alice.archive(&id).await.unwrap(), archived, "archiving again changes nothing");
        let only = FileFilter { states: vec![FileState::Archived.into()], ..FileFilter::default() };
        let listed = ListFilesRequest { filter: Some(only), ..ListFilesRequest::default() };
        assert_eq!(alice.names(listed).await, ["a"]);

        let refused = alice.read(&id).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::FailedPrecondition, "FILE_NOT_AVAILABLE")
        );
        assert_eq!(refused.get_details_error_info().unwrap().metadata["state"], "FILE_STATE_ARCHIVED");
        assert_eq!(alice.quota().await.unwrap().used_bytes, 5, "it goes on counting");

        let back = alice.unarchive(&id).await.unwrap();
        assert_eq!(back.state(), FileState::Available);
        assert_eq!(alice.unarchive(&id).await.unwrap(), back, "unarchiving again changes nothing");
        assert_eq!(alice.read(&id).await.unwrap(), b"bytes"[..]);
        let told = "SELECT count(*) FROM events WHERE kind IN (5, 6)";
        assert_eq!(s.owner.number(told).await, 2);
        let written = "SELECT count(*) FROM audit_entries WHERE action IN (10, 11) AND is_allowed";
        assert_eq!(s.owner.number(written).await, 2);
    });
}

#[test]
fn only_an_available_file_can_be_archived() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        s.owner.put_content_state(ContentState::Quarantined).await;
        let refused = alice.archive(&id).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::FailedPrecondition, "FILE_NOT_AVAILABLE")
        );
        assert_eq!(refused.get_details_error_info().unwrap().metadata["state"], "FILE_STATE_QUARANTINED");
        s.owner.put_content_state(ContentState::Available).await;
        alice.delete(&id).await.unwrap();
        for refused in [alice.archive(&id).await, alice.unarchive(&id).await] {
            let refused = refused.unwrap_err();
            assert_eq!(
                (refused.code(), reason(&refused).as_str()),
                (Code::FailedPrecondition, "FILE_DELETED")
            );
        }
    });
}

#[test]
fn an_archived_file_comes_back_from_the_trash_archived() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        alice.archive(&id).await.unwrap();
        assert_eq!(alice.delete(&id).await.unwrap().unwrap().state(), FileState::Deleted);
        assert_eq!(alice.undelete(&id).await.unwrap().state(), FileState::Archived);
    });
}

#[test]
fn what_was_found_infected_in_the_archive_does_not_come_out_readable() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        alice.archive(&id).await.unwrap();
        s.owner.put_content_state(ContentState::Quarantined).await;
        assert_eq!(alice.unarchive(&id).await.unwrap().state(), FileState::Quarantined);
        assert_eq!(reason(&alice.read(&id).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        s.owner.put_content_state(ContentState::Available).await;
    });
}

#[test]
fn a_retried_archiving_is_answered_as_the_first_time_and_has_one_effect() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&s).await;
        let request_id = uuid::Uuid::from_u128(7).to_string();
        let request = ArchiveFileRequest { file_id: id.clone(), request_id };
        let first = alice.files.clone().archive_file(request.clone()).await.unwrap().into_inner();
        alice.unarchive(&id).await.unwrap();
        let again = alice.files.clone().archive_file(request).await.unwrap().into_inner();
        assert_eq!(first, again);
        assert_eq!(alice.get(&id).await.unwrap().state(), FileState::Available);
    });
}

#[test]
fn the_database_allows_the_moves_of_the_rules_and_no_other() {
    service_test(|s| async move {
        let id = stored(&s).await;
        s.owner
            .run(
                "CREATE FUNCTION public.attempt(sql text) RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN EXECUTE sql; RETURN true; EXCEPTION WHEN check_violation THEN RETURN false; END $$",
            )
            .await;
        let attempt = async |sql: String| {
            s.owner.number(&format!("SELECT public.attempt($${sql}$$)::int::bigint")).await == 1
        };
        for table in ["versions", "files"] {
            for from in ContentState::ALL {
                for to in ContentState::ALL.iter().filter(|to| *to != from) {
                    s.owner.put_content_state(*from).await;
                    let moved = attempt(format!("UPDATE {table} SET content_state = {}", to.number())).await;
                    assert_eq!(moved, from.may_become(*to), "{table}: {from:?} -> {to:?}");
                }
            }
        }
        s.owner.put_content_state(ContentState::Quarantined).await;
        assert!(!attempt("UPDATE files SET archive_time = now()".to_owned()).await, "it is not available");
        s.owner.put_content_state(ContentState::Available).await;
        let current =
            || attempt("UPDATE files SET version = 2, last_version = 2, content_state = 2".to_owned());
        assert!(!current().await, "there is no version 2");
        let columns = "scan_status, mime_type, declared_mime_type, media_kind, size_bytes, sha256, created_by, create_time";
        s.owner
            .run(&format!(
                "INSERT INTO versions (tenant_id, file_id, version, blob_id, content_state, {columns})
                 SELECT tenant_id, file_id, 2, blob_id, 3, {columns} FROM versions"
            ))
            .await;
        assert!(!current().await, "version 2 is not available");
        s.owner.run("UPDATE versions SET content_state = 2 WHERE version = 2").await;
        assert!(current().await);
        s.owner
            .past_guards("files", "UPDATE files SET version = 1; DELETE FROM versions WHERE version = 2")
            .await;
        s.alice().archive(&id).await.unwrap();
        s.alice().delete(&id).await.unwrap();
        assert!(!attempt("UPDATE files SET archive_time = NULL".to_owned()).await, "it is in the trash");
        s.owner.run("DROP FUNCTION public.attempt").await;
    });
}
