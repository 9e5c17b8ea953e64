//! Imports of existing objects. Each object is imported once, and the report has a result for each.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
};

use prost_types::Timestamp;
use strongroom::{
    config::{
        Config,
        import_source::{ImportSourceConfig, SourceLocation},
    },
    proto::v1::{
        EntityRef, ErrorReason, ImportItem, ImportOutcome, ImportResult, ImportSummary, UploadSpec,
        import_files_request::Message, import_files_response::Message as Response, import_item::Source,
    },
};
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{
    PART, Service, import_request, import_results, import_summary, pattern, reason, service_test_with,
};

/// Creates a directory of existing files: two small files and one of several parts.
fn legacy_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir_all(root.join("users/7")).unwrap();
    fs::write(root.join("users/7/letter.txt"), b"dear").unwrap();
    fs::write(root.join("users/7/photo.bin"), pattern(3 * PART + 5)).unwrap();
    fs::write(root.join("notes.txt"), b"notes").unwrap();
    directory
}

/// Adds the import source `old` for these tenants.
pub(crate) fn source_config(location: SourceLocation, tenants: &str) -> impl FnOnce(&mut Config) {
    let source = ImportSourceConfig { tenants: tenants.to_owned(), location };
    move |config| drop(config.imports.sources.insert("old".to_owned(), source))
}

fn directory_source(directory: &TempDir) -> impl FnOnce(&mut Config) {
    source_config(SourceLocation::Directory(directory.path().to_owned()), "*")
}

pub(crate) fn key(key: &str) -> ImportItem {
    ImportItem { source: Some(Source::ObjectKey(key.to_owned())), ..ImportItem::default() }
}

pub(crate) fn prefix(prefix: &str) -> ImportItem {
    ImportItem { source: Some(Source::ObjectPrefix(prefix.to_owned())), ..ImportItem::default() }
}

pub(crate) fn url(url: &str) -> ImportItem {
    ImportItem { source: Some(Source::Url(url.to_owned())), ..ImportItem::default() }
}

pub(crate) async fn file_count(s: &Service) -> i64 {
    s.superuser.query_number("SELECT count(*) FROM files").await
}

#[test]
fn imported_file_has_owner_and_create_time_of_its_item() {
    let old = legacy_directory();
    service_test_with(directory_source(&old), |s| async move {
        let ada = s.ada();
        let create_time = Some(Timestamp { seconds: 1_500_000_000, nanos: 0 });
        let lesson = EntityRef { r#type: "lesson".to_owned(), id: "12".to_owned(), field: String::new() };
        let spec = UploadSpec { attachments: vec![lesson.clone()], ..UploadSpec::default() };
        let item = ImportItem {
            legacy_id: "42".to_owned(),
            owner_id: "alice".to_owned(),
            create_time,
            spec: Some(spec),
            ..key("users/7/photo.bin")
        };
        let mut watcher = ada.watch_files().await;
        let report = ada.import_files("old", false, [item]).await.unwrap();
        let [result] = import_results(&report).try_into().unwrap();
        assert_eq!(
            watcher.next_event().await.position,
            result.event_position,
            "a watch sees the import at its position"
        );
        assert_eq!((result.outcome(), result.legacy_id.as_str()), (ImportOutcome::Imported, "42"));
        assert_eq!(result.object_key, "users/7/photo.bin");
        assert_eq!(import_summary(&report), ImportSummary { imported_count: 1, ..ImportSummary::default() });

        let alice = s.alice();
        let file = alice.get(&result.file_id).await.unwrap();
        assert_eq!((file.name.as_str(), file.owner_id.as_str()), ("photo.bin", "alice"));
        assert_eq!(file.create_time, create_time);
        assert_eq!(file.attachments, [lesson]);
        assert_eq!(alice.read(&file.id).await.unwrap(), pattern(3 * PART + 5));
        let used = ada.quota().await.unwrap().used_bytes;
        assert_eq!(used, (3 * PART + 5) as i64, "an import is charged like an upload");
        let entries = "SELECT count(*) FROM audit_entries WHERE details ->> 'legacy_id' = '42'
            AND details ->> 'import_source' = 'old:users/7/photo.bin' AND actor_id = 'ada'";
        assert_eq!(s.superuser.query_number(entries).await, 1);
    });
    assert!(old.path().join("users/7/photo.bin").exists(), "the imported object is not deleted");
}

#[test]
fn second_import_of_prefix_imports_nothing() {
    let old = legacy_directory();
    service_test_with(directory_source(&old), |s| async move {
        let ada = s.ada();
        let first = ada.import_files("old", false, [prefix("users/7/"), key("notes.txt")]).await.unwrap();
        let imported = import_results(&first);
        let keys: Vec<_> = imported.iter().map(|result| result.object_key.as_str()).collect();
        assert_eq!(keys, ["users/7/letter.txt", "users/7/photo.bin", "notes.txt"]);
        assert!(
            matches!(&first[2], Response::PrefixEnd(end) if end.object_count == 2 && end.reason == 0),
            "{first:?}"
        );
        assert_eq!(import_summary(&first).imported_count, 3);

        let again = ada.import_files("old", false, [prefix("")]).await.unwrap();
        assert_eq!(import_summary(&again).already_imported_count, 3);
        assert!(import_results(&again).iter().all(|result| result.event_position.is_empty()), "{again:?}");
        for result in import_results(&again) {
            assert_eq!(result.outcome(), ImportOutcome::AlreadyImported);
            let before = imported.iter().find(|before| before.object_key == result.object_key).unwrap();
            assert_eq!(before.file_id, result.file_id);
        }
        assert_eq!(file_count(&s).await, 3);
    });
}

#[test]
fn purged_import_is_not_imported_again() {
    let old = legacy_directory();
    service_test_with(directory_source(&old), |s| async move {
        let ada = s.ada();
        let first = import_results(&ada.import_files("old", false, [key("notes.txt")]).await.unwrap());
        ada.delete(&first[0].file_id).await.unwrap();
        ada.purge(&first[0].file_id).await.unwrap();
        let again = import_results(&ada.import_files("old", false, [key("notes.txt")]).await.unwrap());
        assert_eq!(again[0].outcome(), ImportOutcome::AlreadyImported);
        assert_eq!(again[0].file_id, first[0].file_id);
        assert_eq!(file_count(&s).await, 0);
    });
}

#[test]
fn concurrent_imports_of_one_object_create_one_file() {
    let old = legacy_directory();
    service_test_with(directory_source(&old), |s| async move {
        let ada = s.ada();
        let runs = (0..8).map(|_| ada.import_files("old", false, [key("notes.txt")]));
        let reports = futures::future::join_all(runs).await;
        let results: Vec<_> =
            reports.into_iter().flat_map(|report| import_results(&report.unwrap())).collect();
        assert!(results.iter().all(|result| result.file_id == results[0].file_id), "{results:?}");
        assert_eq!(file_count(&s).await, 1);
    });
}

#[test]
fn dry_run_reports_results_and_changes_nothing() {
    let old = legacy_directory();
    service_test_with(directory_source(&old), |s| async move {
        let ada = s.ada();
        let imported = import_results(&ada.import_files("old", false, [key("notes.txt")]).await.unwrap());
        let bad = ImportItem {
            spec: Some(UploadSpec { category: "nonsense".to_owned(), ..UploadSpec::default() }),
            ..key("users/7/letter.txt")
        };
        let report = ada.import_files("old", true, [prefix(""), bad]).await.unwrap();
        let counts = ImportSummary {
            imported_count: 0,
            already_imported_count: 1,
            would_import_count: 2,
            failed_count: 1,
        };
        assert_eq!(import_summary(&report), counts);
        let found =
            import_results(&report).into_iter().find(|result| result.object_key == "notes.txt").unwrap();
        assert_eq!(found.file_id, imported[0].file_id, "a dry run finds the file of an old key");
        assert_eq!(file_count(&s).await, 1);
    });
}

#[test]
fn failed_item_has_reason_and_others_continue() {
    let old = legacy_directory();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    symlink(outside.path().join("secret"), old.path().join("link")).unwrap();
    service_test_with(directory_source(&old), |s| async move {
        let ada = s.ada();
        ada.set_limit_bytes(20).await;
        let with = |spec: UploadSpec| ImportItem { spec: Some(spec), ..key("notes.txt") };
        let later = Some(Timestamp { seconds: 4_000_000_000, nanos: 0 });
        let items = [
            with(UploadSpec { category: "nonsense".to_owned(), ..UploadSpec::default() }),
            with(UploadSpec { size_bytes: Some(4), ..UploadSpec::default() }),
            with(UploadSpec { request_id: "7".to_owned(), ..UploadSpec::default() }),
            ImportItem { create_time: later, ..key("notes.txt") },
            key("users/7/photo.bin"),
            key("absent"),
            key("../secret"),
            key("link"),
            url("https://files.example.org/a"),
            ImportItem { legacy_id: "1".to_owned(), ..prefix("users/") },
            ImportItem::default(),
            key("users/7/letter.txt"),
        ];
        let report = ada.import_files("old", false, items).await.unwrap();
        let results = import_results(&report);
        let reasons: Vec<_> = results.iter().map(ImportResult::reason).collect();
        assert_eq!(
            reasons,
            [
                ErrorReason::InvalidField,
                ErrorReason::SizeMismatch,
                ErrorReason::InvalidField,
                ErrorReason::InvalidField,
                ErrorReason::QuotaBytesExceeded,
                ErrorReason::NotFound,
                ErrorReason::NotFound,
                ErrorReason::NotFound,
                ErrorReason::InvalidField,
                ErrorReason::InvalidField,
                ErrorReason::Unspecified,
            ]
        );
        for (index, word) in [(0, "spec.category"), (2, "spec.request_id"), (3, "future")] {
            assert!(results[index].message.contains(word), "{}", results[index].message);
        }
        assert!(matches!(&report[9], Response::PrefixEnd(end) if end.reason() == ErrorReason::InvalidField));
        assert_eq!((import_summary(&report).failed_count, import_summary(&report).imported_count), (11, 1));
        assert_eq!(file_count(&s).await, 1);
        assert_eq!(
            s.superuser.query_number("SELECT count(*) FROM imports").await,
            1,
            "a failed item can be imported again"
        );
    });
}

#[test]
fn unusable_entries_are_reported_and_others_continue() {
    let old = legacy_directory();
    let root = old.path();
    fs::write(root.join(OsStr::from_bytes(b"users/7/caf\xe9.txt")), b"x").unwrap();
    symlink("letter.txt", root.join("users/7/link")).unwrap();
    service_test_with(directory_source(&old), |s| async move {
        let report = s.ada().import_files("old", false, [prefix("users/")]).await.unwrap();
        let outcomes: Vec<_> = import_results(&report)
            .iter()
            .map(|result| (result.object_key.clone(), result.reason()))
            .collect();
        assert_eq!(
            outcomes,
            [
                ("users/7/caf\u{fffd}.txt".to_owned(), ErrorReason::InvalidField),
                ("users/7/letter.txt".to_owned(), ErrorReason::Unspecified),
                ("users/7/link".to_owned(), ErrorReason::InvalidField),
                ("users/7/photo.bin".to_owned(), ErrorReason::Unspecified),
            ]
        );
        assert!(import_results(&report)[0].message.contains("not UTF-8"));
        assert!(import_results(&report)[2].message.contains("symbolic link"));
        let summary = import_summary(&report);
        assert_eq!((summary.imported_count, summary.failed_count), (2, 2));
    });
}

#[test]
fn only_admins_of_allowed_tenants_use_a_source() {
    let old = legacy_directory();
    let elsewhere = "00000000-0000-7000-8000-000000000001";
    let place = SourceLocation::Directory(old.path().to_owned());
    service_test_with(source_config(place, elsewhere), |s| async move {
        for (caller, source) in [(s.ada(), "old"), (s.ada(), "other"), (s.gus(), "old")] {
            let error = caller.import_files(source, false, [key("notes.txt")]).await.unwrap_err();
            assert_eq!((error.code(), reason(&error).as_str()), (Code::NotFound, "NOT_FOUND"));
        }
        let error = s.alice().import_files("old", false, [key("notes.txt")]).await.unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied);
        assert_eq!(file_count(&s).await, 0);
    });
}

#[test]
fn person_cannot_use_source_for_all_tenants() {
    let old = legacy_directory();
    service_test_with(source_config(SourceLocation::Directory(old.path().to_owned()), "*"), |s| async move {
        let error = s.personal_alice().import_files("old", false, [key("notes.txt")]).await.unwrap_err();
        assert_eq!((error.code(), reason(&error).as_str()), (Code::NotFound, "NOT_FOUND"));
        assert_eq!(file_count(&s).await, 0);
    });
}

#[test]
fn import_ends_when_its_token_expires() {
    let old = legacy_directory();
    service_test_with(source_config(SourceLocation::Directory(old.path().to_owned()), "*"), |s| async move {
        let (items, mut report) = s.ada().start_import("old").await;
        items.send(import_request(Message::Item(key("notes.txt")))).await.unwrap();
        let first = report.message().await.unwrap().unwrap().message.unwrap();
        assert!(matches!(first, Response::Result(result) if result.outcome() == ImportOutcome::Imported));
        s.clock.advance(chrono::Duration::hours(2));
        items.send(import_request(Message::Item(key("users/7/letter.txt")))).await.unwrap();
        let ended = report.message().await.unwrap_err();
        assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "CREDENTIALS_INVALID"));
        assert_eq!(file_count(&s).await, 1);
    });
}
