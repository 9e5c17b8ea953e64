//! `UpdateFile`: masks, etags, validation and retries.

use prost_types::{FieldMask, Timestamp};
use strongroom::{
    domain::{clock::Clock, file_update::FileUpdate},
    proto::v1::{File, ListFilesRequest, UpdateFileRequest, UploadSpec, Visibility},
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{Service, file_id, reason, service_test, spec};

async fn upload_file(s: &Service) -> String {
    let spec = UploadSpec { tags: vec!["blue".to_owned()], title: "old".to_owned(), ..spec("a") };
    file_id(&s.alice().upload(spec, b"bytes").await.unwrap())
}

#[test]
fn update_changes_only_fields_of_mask() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let before = alice.get(&id).await.unwrap();
        let new = File {
            id: id.clone(),
            name: "b".to_owned(),
            title: "not in the mask".to_owned(),
            tags: vec!["red".to_owned(), "red".to_owned(), "green".to_owned()],
            visibility: Visibility::Owner.into(),
            ..File::default()
        };
        let updated = alice.update(new, &["name", "tags", "visibility"]).await.unwrap();
        let expected = File {
            name: "b".to_owned(),
            tags: vec!["green".to_owned(), "red".to_owned()],
            visibility: Visibility::Owner.into(),
            etag: updated.etag.clone(),
            revision: 2,
            update_time: updated.update_time,
            ..before.clone()
        };
        assert_eq!(updated, expected);
        assert_eq!(alice.get(&id).await.unwrap(), updated);
        assert_ne!(updated.etag, before.etag);
        assert_eq!(
            s.bob().get(&id).await.unwrap_err().code(),
            Code::NotFound,
            "only the owner may see it now"
        );
        assert_eq!(alice.list_names(ListFilesRequest::default()).await, ["b"]);
        let audited = "SELECT format('%s %s', (SELECT count(*) FROM events
                WHERE kind = {event_kind.file_updated}), details) FROM audit_entries
                    WHERE action = {audit_action.file_update}";
        assert_eq!(
            s.superuser.query_texts(audited).await,
            ["1 {\"fields\": [\"name\", \"tags\", \"visibility\"]}"]
        );
    });
}

#[test]
fn stale_etag_rejects_update() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let read = alice.get(&id).await.unwrap();
        s.ada().rename(&id, "by ada").await.unwrap();
        let error = alice.update(File { title: "new".to_owned(), ..read }, &["title"]).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
        let read = alice.get(&id).await.unwrap();
        assert_eq!((read.name.as_str(), read.title.as_str()), ("by ada", "old"));
        let updated = alice.update(File { title: "new".to_owned(), ..read }, &["title"]).await.unwrap();
        assert_eq!(updated.title, "new");
    });
}

#[test]
fn invalid_update_reports_all_fields_and_changes_none() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let before = alice.get(&id).await.unwrap();
        let bad = File {
            id: id.clone(),
            name: "run.exe".to_owned(),
            tags: vec![String::new()],
            expire_time: Some(Timestamp { seconds: 0, nanos: 0 }),
            ..File::default()
        };
        let error = alice.update(bad, &["name", "tags", "expire_time"]).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let fields: Vec<String> = error
            .get_details_bad_request()
            .unwrap()
            .field_violations
            .into_iter()
            .map(|violation| violation.field)
            .collect();
        assert_eq!(fields, ["file.name", "file.tags[0]", "file.expire_time"]);
        assert_eq!(alice.get(&id).await.unwrap(), before);

        alice.delete(&id).await.unwrap();
        assert_eq!(reason(&alice.rename(&id, "b").await.unwrap_err()), "FILE_DELETED");
    });
}

#[test]
fn renamed_file_is_listed_under_new_name_by_readers() {
    service_test(|s| async move {
        // A lesson that is attached to a class is visible to its members.
        let teacher = s.teacher();
        let class = strongroom::proto::v1::EntityRef {
            r#type: "class".to_owned(),
            id: "7a".to_owned(),
            field: String::new(),
        };
        let lesson = UploadSpec {
            category: "educational_content".to_owned(),
            attachments: vec![class],
            ..spec("lesson")
        };
        let id = file_id(&teacher.upload(lesson, b"x").await.unwrap());
        teacher.rename(&id, "zebra").await.unwrap();
        let by_name = ListFilesRequest { order_by: "name".to_owned(), ..ListFilesRequest::default() };
        assert_eq!(s.friend().list_names(by_name).await, ["zebra"]);
        let names = "SELECT DISTINCT name FROM file_readers";
        assert_eq!(s.superuser.query_texts(names).await, ["zebra"]);
    });
}

#[test]
fn retried_update_has_one_effect() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let request = |name: &str| UpdateFileRequest {
            file: Some(File { id: id.clone(), name: name.to_owned(), ..File::default() }),
            update_mask: Some(FieldMask { paths: vec!["name".to_owned()] }),
            request_id: uuid::Uuid::from_u128(7).to_string(),
            ..UpdateFileRequest::default()
        };
        let first = alice.files.clone().update_file(request("b")).await.unwrap().into_inner();
        alice.rename(&id, "c").await.unwrap();
        let again = alice.files.clone().update_file(request("b")).await.unwrap().into_inner();
        assert_eq!(first, again);
        assert_eq!(alice.get(&id).await.unwrap().name, "c");
        let reused = alice.files.clone().update_file(request("d")).await.unwrap_err();
        assert_eq!((reused.code(), reason(&reused).as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    });
}

#[test]
fn retried_update_succeeds_after_its_expire_time() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        let expire_time = s.clock.now() + chrono::Duration::minutes(10);
        let request = UpdateFileRequest {
            file: Some(File {
                id: id.clone(),
                expire_time: Some(Timestamp { seconds: expire_time.timestamp(), nanos: 0 }),
                ..File::default()
            }),
            update_mask: Some(FieldMask { paths: vec!["expire_time".to_owned()] }),
            request_id: uuid::Uuid::from_u128(7).to_string(),
            ..UpdateFileRequest::default()
        };
        let first = alice.files.clone().update_file(request.clone()).await.unwrap().into_inner();
        s.clock.advance(chrono::Duration::minutes(20));
        let again = alice.files.clone().update_file(request).await.unwrap().into_inner();
        assert_eq!(first, again);
    });
}

#[test]
fn update_without_category_keeps_its_request_hash() {
    // Retries are recognized by a hash of this text, which must stay the same across releases.
    let serialized =
        serde_json::to_string(&FileUpdate { title: Some("a".to_owned()), ..FileUpdate::default() }).unwrap();
    let expected = r#"{"name":null,"title":"a","description":null,"tags":null,"metadata":null,"visibility":null,"expire_time":null,"retain_until_time":null}"#;
    assert_eq!(serialized, expected);
}
