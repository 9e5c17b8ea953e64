//! Copies, which are separate files that share a blob with their source.

use strongroom::proto::v1::{CopyFileRequest, EntityRef, File, UploadSpec, Visibility};
use tonic::Code;

use crate::harness::{Service, file_id, reason, service_test, spec, violated_fields};

async fn upload_file(s: &Service) -> String {
    let class = EntityRef { r#type: "class".to_owned(), id: "7a".to_owned(), field: String::new() };
    let spec = UploadSpec {
        title: "title".to_owned(),
        description: "long".to_owned(),
        tags: vec!["blue".to_owned(), "red".to_owned()],
        retention_days: 7,
        attachments: vec![class],
        ..spec("a.txt")
    };
    file_id(&s.alice().upload(spec, b"one").await.unwrap())
}

fn copy_request(id: &str) -> CopyFileRequest {
    CopyFileRequest { file_id: id.to_owned(), ..CopyFileRequest::default() }
}

#[test]
fn copy_belongs_to_its_creator_and_shares_the_blob() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        let id = upload_file(&s).await;
        let source = alice.upload_version(&id, b"second").await.unwrap();
        let copy = bob.copy(CopyFileRequest { name: "b.txt".to_owned(), ..copy_request(&id) }).await.unwrap();
        let expected = File {
            id: copy.id.clone(),
            name: "b.txt".to_owned(),
            original_name: "b.txt".to_owned(),
            owner_id: "bob".to_owned(),
            created_by: "bob".to_owned(),
            updated_by: "bob".to_owned(),
            version: 1,
            revision: 1,
            etag: "1-1".to_owned(),
            create_time: copy.create_time,
            update_time: copy.update_time,
            // The copy inherits neither the retention nor the attachments of its source.
            retention_end_time: None,
            attachments: Vec::new(),
            ..source.clone()
        };
        assert_eq!(copy, expected);
        assert_eq!(alice.get(&copy.id).await.unwrap(), copy);
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM blobs").await,
            2,
            "one blob per uploaded version, none for the copy"
        );
        let quota = alice.quota().await.unwrap();
        assert_eq!((quota.used_bytes, quota.file_count), (15, 2), "the copy is charged in full");
        let entries = "SELECT count(*) FROM audit_entries WHERE action = {audit_action.file_copy}
            AND details ->> 'copy' IS NOT NULL";
        assert_eq!(s.superuser.query_number(entries).await, 1);

        // The deletion of the blob is scheduled when the last of the two files is purged.
        alice.purge(&id).await.unwrap();
        assert_eq!(bob.read(&copy.id).await.unwrap(), b"second"[..]);
        let scheduled = "SELECT count(*) FROM blobs WHERE delete_after IS NOT NULL";
        assert_eq!(s.superuser.query_number(scheduled).await, 1);
        bob.purge(&copy.id).await.unwrap();
        assert_eq!(s.superuser.query_number(scheduled).await, 2);
    });
}

#[test]
fn concurrent_purges_release_shared_blob() {
    service_test(|s| async move {
        let alice = s.alice();
        for _ in 0..10 {
            let id = upload_file(&s).await;
            let copies = [
                alice.copy(copy_request(&id)).await.unwrap().id,
                alice.copy(copy_request(&id)).await.unwrap().id,
                id,
            ];
            let purges = copies.iter().map(|id| alice.purge(id));
            for purged in futures::future::join_all(purges).await {
                purged.unwrap();
            }
        }
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM blobs WHERE delete_after IS NULL").await,
            0
        );
    });
}

#[test]
fn copies_earlier_version_and_retry_makes_no_second_copy() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        alice.upload_version(&id, b"second").await.unwrap();
        let request = CopyFileRequest {
            version: 1,
            request_id: uuid::Uuid::from_u128(7).to_string(),
            ..copy_request(&id)
        };
        let first = alice.copy(request.clone()).await.unwrap();
        assert_eq!(alice.read(&first.id).await.unwrap(), b"one"[..]);
        assert_eq!(alice.copy(request.clone()).await.unwrap(), first);
        let other = CopyFileRequest { version: 2, ..request };
        assert_eq!(reason(&alice.copy(other).await.unwrap_err()), "REQUEST_ID_REUSED");
        assert_eq!(alice.quota().await.unwrap().file_count, 2);
        let missing = CopyFileRequest { version: 3, ..copy_request(&id) };
        assert_eq!(alice.copy(missing).await.unwrap_err().code(), Code::NotFound);
    });
}

#[test]
fn unreadable_file_cannot_be_copied() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&s).await;
        assert_eq!(s.mallory().copy(copy_request(&id)).await.unwrap_err().code(), Code::NotFound);
        let private = UploadSpec { visibility: Visibility::Owner.into(), ..spec("private") };
        let private = file_id(&alice.upload(private, b"x").await.unwrap());
        assert_eq!(s.bob().copy(copy_request(&private)).await.unwrap_err().code(), Code::NotFound);
        alice.archive(&id).await.unwrap();
        assert_eq!(reason(&s.bob().copy(copy_request(&id)).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        alice.unarchive(&id).await.unwrap();
        alice.delete(&id).await.unwrap();
        assert_eq!(reason(&s.bob().copy(copy_request(&id)).await.unwrap_err()), "FILE_DELETED");
        alice.undelete(&id).await.unwrap();
        s.superuser.set_content_state(strongroom::domain::file::ContentState::Quarantined).await;
        assert_eq!(reason(&alice.copy(copy_request(&id)).await.unwrap_err()), "FILE_NOT_AVAILABLE");
        s.superuser.set_content_state(strongroom::domain::file::ContentState::Available).await;

        let bad = CopyFileRequest {
            name: "a.exe".to_owned(),
            category: "nonsense".to_owned(),
            ..copy_request(&id)
        };
        assert_eq!(violated_fields(&alice.copy(bad).await.unwrap_err()), ["name", "category"]);
        s.ada().set_limit_bytes(5).await;
        assert_eq!(reason(&alice.copy(copy_request(&id)).await.unwrap_err()), "QUOTA_BYTES_EXCEEDED");
        assert_eq!(alice.quota().await.unwrap().file_count, 2);
    });
}

#[test]
fn copy_is_hidden_from_callers_who_cannot_see_source() {
    service_test(|s| async move {
        let private = UploadSpec { visibility: Visibility::Owner.into(), ..spec("private") };
        let id = file_id(&s.alice().upload(private, b"x").await.unwrap());
        let copy = s.ada().copy(copy_request(&id)).await.unwrap();
        assert_eq!(copy.visibility(), Visibility::Owner);
        assert_eq!(s.bob().get(&copy.id).await.unwrap_err().code(), Code::NotFound);
        // The category of the copy may narrow its visibility but never widens it.
        let open = file_id(&s.alice().upload(spec("open"), b"x").await.unwrap());
        let wide = CopyFileRequest { category: "public".to_owned(), ..copy_request(&open) };
        assert_eq!(s.alice().copy(wide).await.unwrap().visibility(), Visibility::Organization);
        let open = file_id(&s.pupil().upload(spec("open"), b"x").await.unwrap());
        let narrow = CopyFileRequest { category: "report".to_owned(), ..copy_request(&open) };
        assert_eq!(s.pupil().copy(narrow).await.unwrap().visibility(), Visibility::Owner);
    });
}
