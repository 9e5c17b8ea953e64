//! A file moves to another category: what it counts for moves with it, and who sees it.

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
    async fn recategorize(&self, id: &str, category: &str) -> Result<File, Status> {
        let file = File { id: id.to_owned(), category: category.to_owned(), ..File::default() };
        self.update(file, &["category"]).await
    }

    /// What is counted: category, kind, files and bytes.
    async fn counted(&self) -> Vec<(String, MediaKind, i64, i64)> {
        let entries = self.usage().await.unwrap().entries.into_iter();
        entries
            .map(|entry| (entry.category.clone(), entry.media_kind(), entry.file_count, entry.total_bytes))
            .collect()
    }
}

async fn stored(caller: &Caller, name: &str, category: &str, data: &[u8]) -> String {
    let told = UploadSpec { category: category.to_owned(), ..spec(name) };
    file_id(&caller.upload(told, data).await.unwrap())
}

/// A category that takes nothing but these types.
async fn create_taking(s: &Service, name: &str, types: &[&str]) {
    let types = types.iter().map(|taken| (*taken).to_owned()).collect();
    s.ada().create_category(Category { types, ..category(name, Visibility::Owner) }).await.unwrap();
}

/// A version whose bytes go to URLs.
fn direct_version(id: &str, size: usize) -> UploadSpec {
    UploadSpec { file_id: id.to_owned(), size_bytes: Some(size as i64), ..UploadSpec::default() }
}

/// A lesson of the teacher's, for class 7a.
async fn lesson(s: &Service, category: &str) -> String {
    let class = EntityRef { r#type: "class".to_owned(), id: "7a".to_owned(), field: String::new() };
    let told =
        UploadSpec { category: category.to_owned(), attachments: vec![class], ..spec("lesson of 7a.txt") };
    file_id(&s.teacher().upload(told, b"lesson").await.unwrap())
}

/// Whether somebody sees a file, by every door alike: a get, a download, and a list.
async fn sees(caller: &Caller, id: &str) -> bool {
    let got = caller.get(id).await.is_ok();
    assert_eq!(caller.read(id).await.is_ok(), got, "{}: a download", caller.identity.user);
    let listed = caller.list(ListFilesRequest::default()).await.unwrap();
    let is_listed = listed.files.iter().any(|file| file.id == id);
    assert_eq!(is_listed, got, "{}: a list", caller.identity.user);
    got
}

/// Who of the school sees it: pupil, friend (of class 7a), teacher and head.
async fn seen(s: &Service, id: &str) -> [bool; 4] {
    let [pupil, friend, teacher, head] = [s.pupil(), s.friend(), s.teacher(), s.head()];
    [sees(&pupil, id).await, sees(&friend, id).await, sees(&teacher, id).await, sees(&head, id).await]
}

#[test]
fn a_file_in_another_category_counts_there_with_all_its_versions() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a", "report", b"first").await;
        alice.upload_version(&id, PNG).await.unwrap();
        stored(&alice, "b", "report", b"stays").await;
        use MediaKind::{Image, Other};
        let report = |kind, files, bytes| ("report".to_owned(), kind, files, bytes);
        assert_eq!(alice.counted().await, [report(Image, 1, 8), report(Other, 1, 10)]);
        let before = alice.get(&id).await.unwrap();
        let moved = alice.recategorize(&id, "avatar").await.unwrap();
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
            alice.counted().await,
            [avatar(Image, 1, 8), avatar(Other, 0, 5), report(Other, 1, 5)],
            "the old version counts with its file"
        );
        assert_eq!(alice.quota().await.unwrap().used_bytes, 18, "it is no byte more");
        assert_eq!(alice.recategorize(&id, "avatar").await.unwrap().category, "avatar");
        assert_eq!(alice.counted().await.len(), 3, "once more changes nothing");

        let filter = FileFilter { category: "avatar".to_owned(), ..FileFilter::default() };
        let only = ListFilesRequest { filter: Some(filter), ..ListFilesRequest::default() };
        assert_eq!(alice.names(only).await, ["a"]);
        let keys = s.owner.texts("SELECT storage_key FROM blobs").await;
        assert!(keys.iter().all(|key| key.contains("/report/")), "bytes stay where they are: {keys:?}");
        let told = "SELECT details::text FROM audit_entries WHERE action = 12 AND details ? 'category'";
        assert_eq!(
            s.owner.texts(told).await,
            ["{\"fields\": [\"category\"], \"category\": {\"to\": \"avatar\", \"from\": \"report\"}}"]
        );
        alice.purge(&id).await.unwrap();
        assert_eq!(alice.counted().await, [report(Other, 1, 5)], "and goes from there");
    });
}

#[test]
fn who_sees_a_file_at_a_school_follows_its_category() {
    service_test(|s| async move {
        let (teacher, id) = (s.teacher(), lesson(&s, "media_resource").await);
        for (category, expected) in [
            ("assessment", [false, false, true, true]),
            ("educational_content", [false, true, true, true]),
            ("report", [false, false, true, true]),
            ("educational_content", [false, true, true, true]),
            ("media_resource", [true, true, true, true]),
            ("administrative", [false, false, true, true]),
        ] {
            let moved = teacher.recategorize(&id, category).await.unwrap();
            assert_eq!(moved.category, category);
            assert_eq!(seen(&s, &id).await, expected, "{category}");
        }
        let pupils = stored(&s.pupil(), "mine", "report", b"x").await;
        assert_eq!(seen(&s, &pupils).await, [true, false, false, true]);
        s.pupil().recategorize(&pupils, "student_submission").await.unwrap();
        assert_eq!(seen(&s, &pupils).await, [true, false, true, true]);
    });
}

#[test]
fn what_was_said_about_who_sees_a_file_is_not_unsaid_by_its_category() {
    service_test(|s| async move {
        let pupil = s.pupil();
        let told = UploadSpec { visibility: Visibility::Owner.into(), ..spec("hidden") };
        let hidden = file_id(&pupil.upload(told, b"x").await.unwrap());
        assert_eq!(pupil.recategorize(&hidden, "avatar").await.unwrap().visibility(), Visibility::Owner);
        assert!(!sees(&s.friend(), &hidden).await, "it stays hidden where all others are shown");

        let told = UploadSpec { visibility: Visibility::Public.into(), ..spec("shown") };
        let shown = file_id(&pupil.upload(told, b"x").await.unwrap());
        assert_eq!(
            pupil.recategorize(&shown, "assessment").await.unwrap().visibility(),
            Visibility::Managers
        );
        assert_eq!(seen(&s, &shown).await, [true, false, true, true]);

        let both = File {
            id: hidden.clone(),
            category: "assessment".to_owned(),
            visibility: Visibility::Organization.into(),
            ..File::default()
        };
        pupil.update(both, &["visibility", "category"]).await.unwrap();
        assert_eq!(seen(&s, &hidden).await, [true; 4], "unless the same update says it");
    });
}

#[test]
fn whoever_loses_sight_of_a_file_by_its_category_hears_of_it() {
    service_test(|s| async move {
        let id = lesson(&s, "educational_content").await;
        // Otherwise it might still be told that the file came.
        s.settled().await;
        let mut friend = s.friend().watch().await;
        s.teacher().recategorize(&id, "report").await.unwrap();
        assert_eq!(friend.what().await, (FileEventKind::Updated, id.clone()));
        assert!(!sees(&s.friend(), &id).await);
        s.teacher().recategorize(&id, "educational_content").await.unwrap();
        assert_eq!(friend.what().await, (FileEventKind::Updated, id.clone()));
        assert!(sees(&s.friend(), &id).await);
        let by_name = ListFilesRequest { order_by: "name".to_owned(), ..ListFilesRequest::default() };
        assert_eq!(s.friend().names(by_name).await, ["lesson of 7a.txt"]);
    });
}

#[test]
fn a_category_that_does_not_take_the_file_is_refused_with_everything_that_is_wrong() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let pictures =
            Category { types: vec!["image/png".to_owned()], ..category("pictures", Visibility::Owner) };
        ada.create_category(pictures).await.unwrap();
        let id = stored(&alice, "a", "report", b"some text, and more").await;
        alice.upload_version(&id, PNG).await.unwrap();
        let refused = s.bob().recategorize(&id, "avatar").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let stale =
            File { id: id.clone(), etag: "1-1".to_owned(), category: "avatar".to_owned(), ..File::default() };
        assert_eq!(reason(&alice.update(stale, &["category"]).await.unwrap_err()), "ETAG_MISMATCH");

        let limits =
            FileSizeLimits { image_bytes: 7, ..ada.quota().await.unwrap().file_size_max_bytes.unwrap() };
        let quota = Quota { file_size_max_bytes: Some(limits), ..Quota::default() };
        ada.update_quota("", quota, &["file_size_max_bytes"]).await.unwrap();
        let before = alice.get(&id).await.unwrap();

        let wrong = File { name: "run.exe".to_owned(), category: "pictures".to_owned(), ..before.clone() };
        let refused = alice.update(wrong, &["category", "name"]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(violated_fields(&refused), ["file.name", "file.category", "file.category"]);
        let said: Vec<String> = refused
            .get_details_bad_request()
            .unwrap()
            .field_violations
            .into_iter()
            .map(|violation| violation.description)
            .collect();
        assert_eq!(said[1], "version 2 has 8 bytes; a file of kind image may have at most 7");
        assert_eq!(
            said[2],
            "version 1: file is of type text/plain; category `pictures` allows only image/png"
        );
        for unknown in ["", "nonsense"] {
            let refused = alice.recategorize(&id, unknown).await.unwrap_err();
            assert_eq!(
                (refused.code(), violated_fields(&refused)),
                (Code::InvalidArgument, vec!["file.category".into()])
            );
        }
        assert_eq!(alice.get(&id).await.unwrap(), before);

        alice.delete(&id).await.unwrap();
        assert_eq!(reason(&alice.recategorize(&id, "report").await.unwrap_err()), "FILE_DELETED");
    });
}

#[test]
fn where_every_member_writes_a_category_is_no_way_to_show_or_take_a_colleagues_file() {
    let workspace = |config: &mut strongroom::config::Config| {
        config.tenants.presets.insert("acme".to_owned(), "workspace".to_owned());
    };
    service_test_with(workspace, |s| async move {
        let (alice, bob, ada) = (s.alice(), s.bob(), s.ada());
        ada.create_category(category("secret", Visibility::Owner)).await.unwrap();
        let for_classes =
            Category { read_by_attached_classes: true, ..category("lessons", Visibility::Managers) };
        ada.create_category(for_classes).await.unwrap();
        let id = stored(&alice, "a", "report", b"x").await;
        assert_eq!(bob.recategorize(&id, "assessment").await.unwrap().category, "assessment");
        for category in ["public", "secret"] {
            let refused = bob.recategorize(&id, category).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{category}");
        }
        assert_eq!(alice.recategorize(&id, "public").await.unwrap().visibility(), Visibility::Public);

        // Maria sees it as a manager; that class 7a does is for its owner to say.
        let class = EntityRef { r#type: "class".to_owned(), id: "7a".to_owned(), field: String::new() };
        let told = UploadSpec {
            attachments: vec![class],
            visibility: Visibility::Managers.into(),
            ..spec("for managers")
        };
        let id = file_id(&alice.upload(told, b"x").await.unwrap());
        let pupil = s.member("carol", "acme", "member", &["7a"]);
        assert_eq!(s.maria().recategorize(&id, "lessons").await.unwrap_err().code(), Code::PermissionDenied);
        assert!(!sees(&pupil, &id).await);
        alice.recategorize(&id, "lessons").await.unwrap();
        assert!(sees(&pupil, &id).await);
    });
}

#[test]
fn an_archived_file_moves_like_any_other() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a", "report", b"x").await;
        alice.archive(&id).await.unwrap();
        let moved = alice.recategorize(&id, "avatar").await.unwrap();
        assert_eq!((moved.category.as_str(), moved.state().as_str_name()), ("avatar", "FILE_STATE_ARCHIVED"));
    });
}

#[test]
fn a_retried_move_has_one_effect_and_the_same_id_with_another_category_is_refused() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a", "report", b"x").await;
        let request = |category: &str| UpdateFileRequest {
            file: Some(File { id: id.clone(), category: category.to_owned(), ..File::default() }),
            update_mask: Some(FieldMask { paths: vec!["category".to_owned()] }),
            request_id: uuid::Uuid::from_u128(7).to_string(),
            ..UpdateFileRequest::default()
        };
        let first = alice.files.clone().update_file(request("avatar")).await.unwrap().into_inner();
        alice.recategorize(&id, "assessment").await.unwrap();
        let again = alice.files.clone().update_file(request("avatar")).await.unwrap().into_inner();
        assert_eq!(first, again);
        assert_eq!(alice.get(&id).await.unwrap().category, "assessment");
        let reused = alice.files.clone().update_file(request("report")).await.unwrap_err();
        assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    });
}

#[test]
fn moves_uploads_and_purges_at_once_leave_books_that_add_up() {
    // That they do is what is checked after every test.
    service_test(|s| async move {
        let alice = s.alice();
        let mut ids = Vec::new();
        for n in 0..4 {
            ids.push(stored(&alice, &n.to_string(), "report", b"first").await);
        }
        let work = (0..40).map(|n: usize| {
            let (alice, id) = (alice.clone(), ids[n % ids.len()].clone());
            async move {
                match n / 4 % 5 {
                    0 => drop(alice.recategorize(&id, "avatar").await),
                    1 => drop(alice.upload_version(&id, PNG).await),
                    2 => drop(alice.recategorize(&id, "report").await),
                    3 => drop(alice.upload_version(&id, b"text").await),
                    _ => drop(alice.restore_version(&id, 1).await),
                }
            }
        });
        join_all(work).await;
        let (one, two) = (alice.clone(), alice.clone());
        let (purged, moved) = futures::join!(one.purge(&ids[0]), two.recategorize(&ids[0], "assessment"));
        assert!(purged.is_ok());
        assert!(moved.is_ok() || moved.unwrap_err().code() == Code::NotFound);
        let total: i64 = alice.counted().await.iter().map(|(.., bytes)| bytes).sum();
        assert_eq!(total, alice.quota().await.unwrap().used_bytes);
        assert!(alice.counted().await.iter().map(|(_, _, files, _)| files).sum::<i64>() == 3);
    });
}

#[test]
fn a_version_that_was_on_its_way_is_judged_by_the_category_of_its_file() {
    service_test(|s| async move {
        let alice = s.alice();
        let pictures =
            Category { types: vec!["image/png".to_owned()], ..category("pictures", Visibility::Owner) };
        s.ada().create_category(pictures).await.unwrap();
        for (target, is_taken) in [("avatar", true), ("pictures", false)] {
            let id = stored(&alice, "a", "report", PNG).await;
            let data = vec![b'a'; 3 * PART];
            let (mut sent, messages) = mpsc::channel(1);
            let mut files = alice.files.clone();
            let upload = tokio::spawn(async move { files.upload_file(messages).await });
            let told = UploadSpec { file_id: id.clone(), ..UploadSpec::default() };
            sent.send(spec_message(told)).await.unwrap();
            sent.send(chunk(0, &data[..2 * PART])).await.unwrap();
            s.until("the upload is open", || async {
                s.owner.number("SELECT count(*) FROM uploads WHERE state = 1").await == 1
            })
            .await;
            alice.recategorize(&id, target).await.unwrap();
            sent.send(chunk(2 * PART, &data[2 * PART..])).await.unwrap();
            sent.send(finish(data.len())).await.unwrap();
            drop(sent);
            match upload.await.unwrap() {
                Ok(_) => assert!(is_taken, "{target}"),
                Err(refused) => {
                    assert_eq!((is_taken, refused.code()), (false, Code::InvalidArgument));
                    assert_eq!(violated_fields(&refused), ["spec.file_id"]);
                }
            }
            let versions = if is_taken { 2 } else { 1 };
            assert_eq!(alice.versions(&id, 0).await.unwrap().len(), versions, "{target}");
        }
    });
}

#[test]
fn no_file_moves_into_a_category_that_is_being_removed() {
    service_test(|s| async move {
        let alice = s.alice();
        let id = stored(&alice, "a", "report", b"x").await;
        let admin = s.database.owner().await;
        admin
            .run(
                "BEGIN; SELECT app.lock_file_creation(id, true) FROM tenants;
                 UPDATE tenants SET policy = policy #- '{categories,avatar}'",
            )
            .await;
        let moving = tokio::spawn({
            let (alice, id) = (alice.clone(), id.clone());
            async move { alice.recategorize(&id, "avatar").await }
        });
        let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
            WHERE NOT l.granted AND l.locktype = 'advisory' AND a.datname = current_database()";
        s.until("the move waits for the removal", || async { s.owner.number(waiting).await > 0 }).await;
        admin.run("COMMIT").await;
        let refused = moving.await.unwrap().unwrap_err();
        assert_eq!(
            (refused.code(), violated_fields(&refused)),
            (Code::InvalidArgument, vec!["file.category".into()])
        );
        assert_eq!(alice.get(&id).await.unwrap().category, "report");
    });
}

#[test]
fn a_direct_version_that_its_category_ceased_to_take_gives_its_room_and_its_bytes_back() {
    direct_test(|s| async move {
        let alice = s.alice();
        create_taking(&s, "pictures", &["image/png"]).await;
        for size in [1_000, 2 * PART + 7] {
            let id = stored(&alice, "a", "report", PNG).await;
            let direct = alice.create_direct(direct_version(&id, size)).await.unwrap();
            let sent = s.send(&direct, &pattern(size)).await;
            alice.recategorize(&id, "pictures").await.unwrap();
            let refused = alice.complete_direct(&direct.id, &sent).await.unwrap_err();
            assert_eq!(violated_fields(&refused), ["spec.file_id"]);
            assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
            assert_eq!(alice.upload_at(&direct.id).await.unwrap_err().code(), Code::NotFound);
        }
        assert_eq!(s.store.list("", None, 10).await.unwrap().objects.len(), 2, "the files");
        assert!(s.store.list_multiparts("", None, 10).await.unwrap().multiparts.is_empty());
    });
}

#[test]
fn a_version_on_its_way_does_not_mind_a_category_that_takes_the_same_by_other_words() {
    direct_test(|s| async move {
        let alice = s.alice();
        create_taking(&s, "same", &["image/png", "text/plain"]).await;
        let types =
            "UPDATE tenants SET policy = jsonb_set(policy, '{types}', '[\"text/plain\", \"image/png\"]')";
        let id = stored(&alice, "a.txt", "report", b"one").await;
        let direct = alice.create_direct(direct_version(&id, 3)).await.unwrap();
        let sent = s.send(&direct, b"two").await;
        s.owner.run(types).await;
        alice.recategorize(&id, "same").await.unwrap();
        alice.complete_direct(&direct.id, &sent).await.unwrap();
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.read(&id).await.unwrap(), b"two"[..]);
    });
}

#[test]
fn a_version_that_was_refused_does_not_keep_its_file_where_it_is() {
    direct_test(|s| async move {
        let alice = s.alice();
        create_taking(&s, "pictures", &["image/png"]).await;
        let id = stored(&alice, "a", "report", PNG).await;
        let told = UploadSpec { sha256: Some(sha256(b"other")), ..direct_version(&id, 5) };
        let direct = alice.create_direct(told).await.unwrap();
        let sent = s.send(&direct, b"texts").await;
        alice.complete_direct(&direct.id, &sent).await.unwrap();
        let refused = alice.recategorize(&id, "pictures").await.unwrap_err();
        assert_eq!(violated_fields(&refused), ["file.category"], "it may become current yet");
        worker::run_due_jobs(&s.app).await;
        assert_eq!(alice.recategorize(&id, "pictures").await.unwrap().category, "pictures");
        alice.delete_version(&id, 2).await.unwrap();
    });
}
