//! Lookups of imported files by their legacy key, URL or id. Only callers who may see a file find it.

use std::fs;

use strongroom::{
    config::import_source::SourceLocation,
    db::{Viewer, imports},
    domain::{ids::TenantId, import_origin::import_source_digest},
    proto::v1::{FindImportedFilesRequest, ImportItem, ImportedFile, UploadSpec, Visibility},
};
use tempfile::TempDir;
use tonic::Code;

use crate::{
    harness::{Caller, import_results, service_test, service_test_with, violated_fields},
    import::{key, source_config},
    queue_plans::count_rows_read,
};

/// Creates a source directory with one object for each name.
fn create_source(names: &[&str]) -> (TempDir, SourceLocation) {
    let directory = tempfile::tempdir().unwrap();
    for name in names {
        fs::write(directory.path().join(name), name.as_bytes()).unwrap();
    }
    let location = SourceLocation::Directory(directory.path().to_owned());
    (directory, location)
}

fn item_with_id(name: &str, legacy_id: &str) -> ImportItem {
    ImportItem { legacy_id: legacy_id.to_owned(), ..key(name) }
}

fn by_key(keys: &[&str]) -> FindImportedFilesRequest {
    let object_keys = keys.iter().map(|key| (*key).to_owned()).collect();
    FindImportedFilesRequest { source: "old".to_owned(), object_keys, ..FindImportedFilesRequest::default() }
}

fn by_id(ids: &[&str]) -> FindImportedFilesRequest {
    let legacy_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    FindImportedFilesRequest { legacy_ids, ..FindImportedFilesRequest::default() }
}

async fn find(caller: &Caller, request: FindImportedFilesRequest) -> Vec<ImportedFile> {
    caller.find_imported_files(request).await.unwrap().files
}

#[test]
fn lookup_returns_only_files_visible_to_caller() {
    let (_directory, location) = create_source(&["all", "hers", "third"]);
    service_test_with(source_config(location, "*"), |s| async move {
        let (ada, alice, bob) = (s.ada(), s.alice(), s.bob());
        let spec = UploadSpec { visibility: Visibility::Owner.into(), ..UploadSpec::default() };
        let hers = ImportItem { owner_id: "alice".into(), spec: Some(spec), ..item_with_id("hers", "8") };
        let items = [item_with_id("all", "7"), hers, item_with_id("third", "7")];
        let imported = import_results(&ada.import_files("old", false, items).await.unwrap());
        let id_of = |index: usize| imported[index].file_id.clone();
        let visible_to_bob = find(&bob, by_key(&["all", "hers", "absent"])).await;
        assert_eq!(visible_to_bob.len(), 1, "{visible_to_bob:?}");
        let all = &visible_to_bob[0];
        assert_eq!((all.file_id.clone(), all.source.as_str(), all.key.as_str()), (id_of(0), "old", "all"));
        assert_eq!(all.legacy_id, "7");
        assert!(all.import_time.is_some());
        let ids = |files: Vec<ImportedFile>| files.into_iter().map(|file| file.file_id).collect::<Vec<_>>();
        for caller in [&ada, &alice] {
            let mut both = vec![id_of(0), id_of(2)];
            both.sort();
            both.push(id_of(1));
            assert_eq!(
                ids(find(caller, by_id(&["7", "8", "9"])).await),
                both,
                "sorted by legacy id, then by file id"
            );
            let hers = FindImportedFilesRequest { legacy_ids: vec!["8".to_owned()], ..by_key(&["hers"]) };
            assert_eq!(
                ids(find(caller, hers).await),
                [id_of(1)],
                "a file that matches twice is returned once"
            );
        }
        assert_eq!(ids(find(&bob, by_id(&["8"])).await), [""; 0]);
        let elsewhere = FindImportedFilesRequest { source: "other".to_owned(), ..by_key(&["all"]) };
        assert_eq!(ids(find(&ada, elsewhere).await), [""; 0]);
        for stranger in [s.mallory(), s.gus(), s.personal_alice()] {
            let request = FindImportedFilesRequest { legacy_ids: vec!["7".to_owned()], ..by_key(&["all"]) };
            assert_eq!(ids(find(&stranger, request).await), [""; 0]);
        }

        ada.delete(&id_of(0)).await.unwrap();
        assert_eq!(ids(find(&ada, by_id(&["7"])).await), [id_of(2)]);
        let trash = FindImportedFilesRequest { show_deleted: true, ..by_key(&["all"]) };
        assert_eq!(ids(find(&ada, trash.clone()).await), [id_of(0)]);
        ada.purge(&id_of(0)).await.unwrap();
        assert_eq!(ids(find(&ada, trash).await), [""; 0]);
    });
}

#[test]
fn shared_legacy_id_sets_has_more() {
    let names: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_directory, location) = create_source(&names);
    service_test_with(source_config(location, "*"), |s| async move {
        let ada = s.ada();
        let items =
            (0..12).map(|number| item_with_id(&format!("f{number}"), if number < 11 { "7" } else { "8" }));
        ada.import_files("old", false, items).await.unwrap();
        let response = ada.find_imported_files(by_id(&["7", "8"])).await.unwrap();
        assert_eq!((response.files.len(), response.has_more), (11, true));
        let response = ada.find_imported_files(by_key(&names)).await.unwrap();
        assert_eq!((response.files.len(), response.has_more), (12, false));
    });
}

#[test]
fn rejects_empty_or_too_large_lookup() {
    service_test(|s| async move {
        let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let nameless = FindImportedFilesRequest {
            source: String::new(),
            urls: vec!["nowhere".to_owned()],
            ..by_key(&["a"])
        };
        for (request, fields) in [
            (FindImportedFilesRequest::default(), vec!["legacy_ids"]),
            (by_id(&many), vec!["legacy_ids"]),
            (by_key(&many), vec!["object_keys"]),
            (nameless, vec!["source", "urls[0]"]),
        ] {
            let error = s.bob().find_imported_files(request).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert_eq!(violated_fields(&error), fields);
        }
    });
}

#[test]
fn lookup_reads_few_rows_of_large_import_table() {
    const ROWS_READ_MAX: i64 = 80;
    service_test(|s| async move {
        let own: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let other: TenantId = s.mallory().tenant_id().await.parse().unwrap();
        for tenant in [own, other] {
            let many = format!(
                "INSERT INTO files (tenant_id, id, owner_id, created_by, updated_by, name, original_name, category, title,
                     description, metadata, visibility, version, content_state, scan_status, mime_type,
                     declared_mime_type, media_kind, size_bytes, create_time, update_time)
                 SELECT '{tenant}', md5('{tenant}' || n)::uuid, 'owner', 'owner', 'owner', 'n', 'n', 'report', '',
                     '', '{{}}', {{visibility.organization}}, 1, {{content_state.available}},
                     {{scan_status.not_scanned}}, 'text/plain', 'text/plain', {{media_kind.other}}, 1, now(), now()
                 FROM generate_series(1, 100000) AS n;
                 INSERT INTO imports (tenant_id, source_sha256, source, legacy_id, file_id, create_time)
                 SELECT '{tenant}', sha256(('old:' || n)::bytea), 'old:' || n,
                        CASE WHEN n > 50000 THEN n::text ELSE 'shared' END, md5('{tenant}' || n)::uuid, now()
                 FROM generate_series(1, 100000) AS n"
            );
            s.superuser.execute(&many).await;
        }
        s.superuser.execute("ANALYZE imports; ANALYZE files").await;
        let (found, rows_read) = count_rows_read(&s, |db| async move {
            let mut tx = db.tenant_tx(own, &Viewer::system()).await.unwrap();
            let digests = ["7", "70000", "absent"].map(|key| import_source_digest("old", key));
            let ids = ["shared", "80000", "absent"].map(str::to_owned);
            let found = imports::list_matching(&mut tx, &digests, &ids, 11, false).await.unwrap();
            tx.commit().await.unwrap();
            found.len()
        })
        .await;
        // Two files match by key. By legacy id, the shared id returns its first 11 files, and `80000` returns one.
        assert_eq!(found, 2 + 11 + 1);
        assert!((1..=ROWS_READ_MAX).contains(&rows_read), "read {rows_read} rows to find {found}");
        s.superuser.execute("TRUNCATE imports; TRUNCATE files CASCADE").await;
    });
}
