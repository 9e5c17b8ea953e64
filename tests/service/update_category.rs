//! Changes of a file's category: usage counters, visibility, allowed types, and concurrent uploads.

use futures::{SinkExt, channel::mpsc, future::join_all};
use prost_types::FieldMask;
use strongroom::{
    proto::v1::{
        Category, EntityRef, File, FileEventKind, FileFilter, FileSizeLimits, ListFilesRequest, MediaKind,
        Quota, UpdateFileRequest, UploadSpec, Visibility,
    },
    worker,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    categories::category,
    harness::{
        Caller, PART, Service, chunk, direct_test, file_id, finish, pattern, reason, service_test,
        service_test_with, sha256, spec, spec_message, violated_fields,
    },
};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

impl Caller {
    async fn set_category(&self, id: &str, category: &str) -> Result<File, Status> {
        let file = File { id: id.to_owned(), category: category.to_owned(), ..File::default() };
        self.update(file, &["category"]).await
    }

    /// Returns the usage counters: category, media kind, file count and bytes.
    async fn usage_counters(&self) -> Vec<(String, MediaKind, i64, i64)> {
        let entries = self.usage().await.unwrap().entries.into_iter();
        entries
            .map(|entry| (entry.category.clone(), entry.media_kind(), entry.file_count, entry.total_bytes))
            .collect()
    }
}

async fn upload_file(caller: &Caller, name: &str, category: &str, data: &[u8]) -> String {
    let new_spec = UploadSpec { category: category.to_owned(), ..spec(name) };
    file_id(&caller.upload(new_spec, data).await.unwrap())
}

/// Creates a category that allows only these types.
async fn create_category_with_types(s: &Service, name: &str, types: &[&str]) {
    let types = types.iter().map(|allowed| (*allowed).to_owned()).collect();
    s.ada().create_category(Category { types, ..category(name, Visibility::Owner) }).await.unwrap();
}

/// Returns the spec of a direct upload of a version.
fn direct_version_spec(id: &str, size: usize) -> UploadSpec {
    UploadSpec { file_id: id.to_owned(), size_bytes: Some(size as i64), ..UploadSpec::default() }
}

/// Uploads a lesson of the teacher that is attached to class 7a.
async fn upload_lesson(s: &Service, category: &str) -> String {
    let class = EntityRef { r#type: "class".to_owned(), id: "7a".to_owned(), field: String::new() };
    let new_spec =
        UploadSpec { category: category.to_owned(), attachments: vec![class], ..spec("lesson of 7a.txt") };
    file_id(&s.teacher().upload(new_spec, b"lesson").await.unwrap())
}

/// Returns whether a caller may see a file. Asserts that get, download and list agree.
async fn is_visible(caller: &Caller, id: &str) -> bool {
    let is_found = caller.get(id).await.is_ok();
    assert_eq!(caller.read(id).await.is_ok(), is_found, "{}: download", caller.identity.user);
    let listed = caller.list(ListFilesRequest::default()).await.unwrap();
    let is_listed = listed.files.iter().any(|file| file.id == id);
    assert_eq!(is_listed, is_found, "{}: list", caller.identity.user);
    is_found
}

/// Returns whether the file is visible to the pupil, the friend (in class 7a), the teacher and the head.
async fn visibility_at_school(s: &Service, id: &str) -> [bool; 4] {
    let [pupil, friend, teacher, head] = [s.pupil(), s.friend(), s.teacher(), s.head()];
    [
        is_visible(&pupil, id).await,
        is_visible(&friend, id).await,
        is_visible(&teacher, id).await,
        is_visible(&head, id).await,
    ]
}

#[test]
fn category_change_moves_counters_of_all_versions() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a", "report", b"first").await;
        alice.upload_version(&id, PNG).await.unwrap();
        upload_file(&alice, "b", "report", b"stays").await;
        use MediaKind::{Image, Other};
        let report = |kind, files, bytes| ("report".to_owned(), kind, files, bytes);
        assert_eq!(alice.usage_counters().await, [report(Image, 1, 8), report(Other, 1, 10)]);
        let before = alice.get(&id).await.unwrap();
        let moved = alice.set_category(&id, "avatar").await.unwrap();
        let expected = File {
            category: "avatar".to_owned(),
            etag: moved.etag.clone(),
            revision: before.revision + 1,
            update_time: moved.update_time,
            ..before.clone()
        };
        assert_eq!(moved, expected);
        assert_ne!(moved.etag, before.etag);
        assert_eq!(alice.get(&id).await.unwrap(), moved);
        let avatar = |kind, files, bytes| ("avatar".to_owned(), kind, files, bytes);
        assert_eq!(
            alice.usage_counters().await,
            [avatar(Image, 1, 8), avatar(Other, 0, 5), report(Other, 1, 5)],
            "the old version is counted in the category of its file"
        );
        assert_eq!(alice.quota().await.unwrap().used_bytes, 18, "the used bytes are unchanged");
        assert_eq!(alice.set_category(&id, "avatar").await.unwrap().category, "avatar");
        assert_eq!(alice.usage_counters().await.len(), 3, "the same change again has no effect");

        let filter = FileFilter { category: "avatar".to_owned(), ..FileFilter::default() };
        let only = ListFilesRequest { filter: Some(filter), ..ListFilesRequest::default() };
        assert_eq!(alice.list_names(only).await, ["a"]);
        let keys = s.superuser.query_texts("SELECT storage_key FROM blobs").await;
        assert!(keys.iter().all(|key| key.contains("/report/")), "objects keep their keys: {keys:?}");
        let audited = "SELECT details::text FROM audit_entries WHERE action = {audit_action.file_update}
            AND details ? 'category'";
        assert_eq!(
            s.superuser.query_texts(audited).await,
            ["{\"fields\": [\"category\"], \"category\": {\"to\": \"avatar\", \"from\": \"report\"}}"]
        );
        alice.purge(&id).await.unwrap();
        assert_eq!(alice.usage_counters().await, [report(Other, 1, 5)], "a purge updates the new category");
    });
}

#[test]
fn visibility_at_school_follows_category() {
    service_test(|s| async move {
        let (teacher, id) = (s.teacher(), upload_lesson(&s, "media_resource").await);
        for (category, expected) in [
            ("assessment", [false, false, true, true]),
            ("educational_content", [false, true, true, true]),
            ("report", [false, false, true, true]),
            ("educational_content", [false, true, true, true]),
            ("media_resource", [true, true, true, true]),
            ("administrative", [false, false, true, true]),
        ] {
            let moved = teacher.set_category(&id, category).await.unwrap();
            assert_eq!(moved.category, category);
            assert_eq!(visibility_at_school(&s, &id).await, expected, "{category}");
        }
        let work = upload_file(&s.pupil(), "mine", "report", b"x").await;
        assert_eq!(visibility_at_school(&s, &work).await, [true, false, false, true]);
        s.pupil().set_category(&work, "student_submission").await.unwrap();
        assert_eq!(visibility_at_school(&s, &work).await, [true, false, true, true]);
    });
}

#[test]
fn category_change_does_not_widen_visibility() {
    service_test(|s| async move {
        let pupil = s.pupil();
        let new_spec = UploadSpec { visibility: Visibility::Owner.into(), ..spec("hidden") };
        let hidden = file_id(&pupil.upload(new_spec, b"x").await.unwrap());
        assert_eq!(pupil.set_category(&hidden, "avatar").await.unwrap().visibility(), Visibility::Owner);
        assert!(!is_visible(&s.friend(), &hidden).await, "the file stays hidden in a visible category");

        let new_spec = UploadSpec { visibility: Visibility::Public.into(), ..spec("shown") };
        let shown = file_id(&pupil.upload(new_spec, b"x").await.unwrap());
        assert_eq!(
            pupil.set_category(&shown, "assessment").await.unwrap().visibility(),
            Visibility::Managers
        );
        assert_eq!(visibility_at_school(&s, &shown).await, [true, false, true, true]);

        let both = File {
            id: hidden.clone(),
            category: "assessment".to_owned(),
            visibility: Visibility::Organization.into(),
            ..File::default()
        };
        pupil.update(both, &["visibility", "category"]).await.unwrap();
        assert_eq!(
            visibility_at_school(&s, &hidden).await,
            [true; 4],
            "the same update may set the visibility"
        );
    });
}

#[test]
fn watcher_gets_event_when_category_hides_file() {
    service_test(|s| async move {
        let id = upload_lesson(&s, "educational_content").await;
        // Otherwise the watcher could still get the event of the upload.
        s.wait_until_events_are_readable().await;
        let mut friend = s.friend().watch_files().await;
        s.teacher().set_category(&id, "report").await.unwrap();
        assert_eq!(friend.next_kind_and_file().await, (FileEventKind::Updated, id.clone()));
        assert!(!is_visible(&s.friend(), &id).await);
        s.teacher().set_category(&id, "educational_content").await.unwrap();
        assert_eq!(friend.next_kind_and_file().await, (FileEventKind::Updated, id.clone()));
        assert!(is_visible(&s.friend(), &id).await);
        let by_name = ListFilesRequest { order_by: "name".to_owned(), ..ListFilesRequest::default() };
        assert_eq!(s.friend().list_names(by_name).await, ["lesson of 7a.txt"]);
    });
}

#[test]
fn rejects_category_that_does_not_allow_the_versions() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let pictures =
            Category { types: vec!["image/png".to_owned()], ..category("pictures", Visibility::Owner) };
        ada.create_category(pictures).await.unwrap();
        let id = upload_file(&alice, "a", "report", b"some text, and more").await;
        alice.upload_version(&id, PNG).await.unwrap();
        let error = s.bob().set_category(&id, "avatar").await.unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied);
        let stale =
            File { id: id.clone(), etag: "1-1".to_owned(), category: "avatar".to_owned(), ..File::default() };
        assert_eq!(reason(&alice.update(stale, &["category"]).await.unwrap_err()), "ETAG_MISMATCH");

        let limits =
            FileSizeLimits { image_bytes: 7, ..ada.quota().await.unwrap().file_size_max_bytes.unwrap() };
        let quota = Quota { file_size_max_bytes: Some(limits), ..Quota::default() };
        ada.update_quota("", quota, &["file_size_max_bytes"]).await.unwrap();
        let before = alice.get(&id).await.unwrap();

        let wrong = File { name: "run.exe".to_owned(), category: "pictures".to_owned(), ..before.clone() };
        let error = alice.update(wrong, &["category", "name"]).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(violated_fields(&error), ["file.name", "file.category", "file.category"]);
        let descriptions: Vec<String> = error
            .get_details_bad_request()
            .unwrap()
            .field_violations
            .into_iter()
            .map(|violation| violation.description)
            .collect();
        assert_eq!(descriptions[1], "version 2 has 8 bytes; a file of kind image may have at most 7");
        assert_eq!(
            descriptions[2],
            "version 1: file is of type text/plain; category `pictures` allows only image/png"
        );
        for unknown in ["", "nonsense"] {
            let error = alice.set_category(&id, unknown).await.unwrap_err();
            assert_eq!(
                (error.code(), violated_fields(&error)),
                (Code::InvalidArgument, vec!["file.category".into()])
            );
        }
        assert_eq!(alice.get(&id).await.unwrap(), before);

        alice.delete(&id).await.unwrap();
        assert_eq!(reason(&alice.set_category(&id, "report").await.unwrap_err()), "FILE_DELETED");
    });
}

#[test]
fn workspace_colleague_cannot_widen_or_hide_by_category() {
    let workspace = |config: &mut strongroom::config::Config| {
        config.tenants.presets.insert("acme".to_owned(), "workspace".to_owned());
    };
    service_test_with(workspace, |s| async move {
        let (alice, bob, ada) = (s.alice(), s.bob(), s.ada());
        ada.create_category(category("secret", Visibility::Owner)).await.unwrap();
        let for_classes =
            Category { read_by_attached_classes: true, ..category("lessons", Visibility::Managers) };
        ada.create_category(for_classes).await.unwrap();
        let id = upload_file(&alice, "a", "report", b"x").await;
        assert_eq!(bob.set_category(&id, "assessment").await.unwrap().category, "assessment");
        for category in ["public", "secret"] {
            let error = bob.set_category(&id, category).await.unwrap_err();
            assert_eq!(error.code(), Code::PermissionDenied, "{category}");
        }
        assert_eq!(alice.set_category(&id, "public").await.unwrap().visibility(), Visibility::Public);

        // Maria may see the file as a manager, but only its owner may make it visible to class 7a.
        let class = EntityRef { r#type: "class".to_owned(), id: "7a".to_owned(), field: String::new() };
        let new_spec = UploadSpec {
            attachments: vec![class],
            visibility: Visibility::Managers.into(),
            ..spec("for managers")
        };
        let id = file_id(&alice.upload(new_spec, b"x").await.unwrap());
        let pupil = s.member("carol", "acme", "member", &["7a"]);
        assert_eq!(s.maria().set_category(&id, "lessons").await.unwrap_err().code(), Code::PermissionDenied);
        assert!(!is_visible(&pupil, &id).await);
        alice.set_category(&id, "lessons").await.unwrap();
        assert!(is_visible(&pupil, &id).await);
    });
}

#[test]
fn archived_file_can_change_category() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a", "report", b"x").await;
        alice.archive(&id).await.unwrap();
        let moved = alice.set_category(&id, "avatar").await.unwrap();
        assert_eq!((moved.category.as_str(), moved.state().as_str_name()), ("avatar", "FILE_STATE_ARCHIVED"));
    });
}

#[test]
fn retried_category_change_has_one_effect() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a", "report", b"x").await;
        let request = |category: &str| UpdateFileRequest {
            file: Some(File { id: id.clone(), category: category.to_owned(), ..File::default() }),
            update_mask: Some(FieldMask { paths: vec!["category".to_owned()] }),
            request_id: uuid::Uuid::from_u128(7).to_string(),
            ..UpdateFileRequest::default()
        };
        let first = alice.files.clone().update_file(request("avatar")).await.unwrap().into_inner();
        alice.set_category(&id, "assessment").await.unwrap();
        let again = alice.files.clone().update_file(request("avatar")).await.unwrap().into_inner();
        assert_eq!(first, again);
        assert_eq!(alice.get(&id).await.unwrap().category, "assessment");
        let reused = alice.files.clone().update_file(request("report")).await.unwrap_err();
        assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    });
}

#[test]
fn concurrent_category_changes_keep_counters_correct() {
    // The invariants after every test compare the counters with the files.
    service_test(|s| async move {
        let alice = s.alice();
        let mut ids = Vec::new();
        for n in 0..4 {
            ids.push(upload_file(&alice, &n.to_string(), "report", b"first").await);
        }
        let work = (0..40).map(|n: usize| {
            let (alice, id) = (alice.clone(), ids[n % ids.len()].clone());
            async move {
                match n / 4 % 5 {
                    0 => drop(alice.set_category(&id, "avatar").await),
                    1 => drop(alice.upload_version(&id, PNG).await),
                    2 => drop(alice.set_category(&id, "report").await),
                    3 => drop(alice.upload_version(&id, b"text").await),
                    _ => drop(alice.restore_version(&id, 1).await),
                }
            }
        });
        join_all(work).await;
        let (one, two) = (alice.clone(), alice.clone());
        let (purged, moved) = futures::join!(one.purge(&ids[0]), two.set_category(&ids[0], "assessment"));
        assert!(purged.is_ok());
        assert!(moved.is_ok() || moved.unwrap_err().code() == Code::NotFound);
        let total: i64 = alice.usage_counters().await.iter().map(|(.., bytes)| bytes).sum();
        assert_eq!(total, alice.quota().await.unwrap().used_bytes);
        assert!(alice.usage_counters().await.iter().map(|(_, _, files, _)| files).sum::<i64>() == 3);
    });
}

#[test]
fn version_in_flight_obeys_new_category() {
    service_test(|s| async move {
        let alice = s.alice();
        let pictures =
            Category { types: vec!["image/png".to_owned()], ..category("pictures", Visibility::Owner) };
        s.ada().create_category(pictures).await.unwrap();
        for (target, is_accepted) in [("avatar", true), ("pictures", false)] {
            let id = upload_file(&alice, "a", "report", PNG).await;
            let data = vec![b'a'; 3 * PART];
            let (mut sent, messages) = mpsc::channel(1);
            let mut files = alice.files.clone();
            let upload = tokio::spawn(async move { files.upload_file(messages).await });
            let new_spec = UploadSpec { file_id: id.clone(), ..UploadSpec::default() };
            sent.send(spec_message(new_spec)).await.unwrap();
            sent.send(chunk(0, &data[..2 * PART])).await.unwrap();
            s.wait_until("the upload is open", || async {
                s.superuser
                    .query_number("SELECT count(*) FROM uploads WHERE state = {upload_state.open}")
                    .await
                    == 1
            })
            .await;
            alice.set_category(&id, target).await.unwrap();
            sent.send(chunk(2 * PART, &data[2 * PART..])).await.unwrap();
            sent.send(finish(data.len())).await.unwrap();
            drop(sent);
            match upload.await.unwrap() {
                Ok(_) => assert!(is_accepted, "{target}"),
                Err(error) => {
                    assert_eq!((is_accepted, error.code()), (false, Code::InvalidArgument));
                    assert_eq!(violated_fields(&error), ["spec.file_id"]);
                }
            }
            let versions = if is_accepted { 2 } else { 1 };
            assert_eq!(alice.list_versions(&id, 0).await.unwrap().len(), versions, "{target}");
        }
    });
}

#[test]
fn rejects_category_that_is_being_deleted() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = upload_file(&alice, "a", "report", b"x").await;
        let admin = s.database.connect_as_superuser().await;
        admin
            .execute(
                "BEGIN; SELECT app.lock_file_creation(id, true) FROM tenants;
                 UPDATE tenants SET policy = policy #- '{categories,avatar}'",
            )
            .await;
        let task = tokio::spawn({
            let (alice, id) = (alice.clone(), id.clone());
            async move { alice.set_category(&id, "avatar").await }
        });
        let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND l.locktype = 'advisory' AND a.datname = current_database()";
        s.wait_until("the change waits for the deletion", || async {
            s.superuser.query_number(waiting).await > 0
        })
        .await;
        admin.execute("COMMIT").await;
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(
            (error.code(), violated_fields(&error)),
            (Code::InvalidArgument, vec!["file.category".into()])
        );
        assert_eq!(alice.get(&id).await.unwrap().category, "report");
    });
}

#[test]
fn direct_version_rejected_by_new_category_is_cleaned_up() {
    direct_test(|s| async move {
        let alice = s.alice();
        create_category_with_types(&s, "pictures", &["image/png"]).await;
        for size in [1_000, 2 * PART + 7] {
            let id = upload_file(&alice, "a", "report", PNG).await;
            let direct = alice.create_direct_upload(direct_version_spec(&id, size)).await.unwrap();
            let sent = s.put_parts(&direct, &pattern(size)).await;
            alice.set_category(&id, "pictures").await.unwrap();
            let error = alice.complete_direct_upload(&direct.id, &sent).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["spec.file_id"]);
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
            assert_eq!(alice.get_upload(&direct.id).await.unwrap_err().code(), Code::NotFound);
        }
        assert_eq!(
            s.store.list("", None, 10).await.unwrap().objects.len(),
            2,
            "only the objects of the files are left"
        );
        assert!(s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty());
    });
}

#[test]
fn equivalent_category_accepts_version_in_flight() {
    direct_test(|s| async move {
        let alice = s.alice();
        create_category_with_types(&s, "same", &["image/png", "text/plain"]).await;
        let types =
            "UPDATE tenants SET policy = jsonb_set(policy, '{types}', '[\"text/plain\", \"image/png\"]')";
        let id = upload_file(&alice, "a.txt", "report", b"one").await;
        let direct = alice.create_direct_upload(direct_version_spec(&id, 3)).await.unwrap();
        let sent = s.put_parts(&direct, b"two").await;
        s.superuser.execute(types).await;
        alice.set_category(&id, "same").await.unwrap();
        alice.complete_direct_upload(&direct.id, &sent).await.unwrap();
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn rejected_version_does_not_block_category_change() {
    direct_test(|s| async move {
        let alice = s.alice();
        create_category_with_types(&s, "pictures", &["image/png"]).await;
        let id = upload_file(&alice, "a", "report", PNG).await;
        let new_spec = UploadSpec { sha256: Some(sha256(b"other")), ..direct_version_spec(&id, 5) };
        let direct = alice.create_direct_upload(new_spec).await.unwrap();
        let sent = s.put_parts(&direct, b"texts").await;
        alice.complete_direct_upload(&direct.id, &sent).await.unwrap();
        let error = alice.set_category(&id, "pictures").await.unwrap_err();
        assert_eq!(violated_fields(&error), ["file.category"], "the unverified version could become current");
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.set_category(&id, "pictures").await.unwrap().category, "pictures");
        alice.delete_version(&id, 2).await.unwrap();
    });
}
