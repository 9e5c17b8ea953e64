//! The file of an old key, URL or id is found by whoever may see it.

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
    harness::{Caller, results, service_test, service_test_with, violated_fields},
    import::{key, source},
    queue_plans::measured,
};

fn old(names: &[&str]) -> (TempDir, SourceLocation) {
    let directory = tempfile::tempdir().unwrap();
    for name in names {
        fs::write(directory.path().join(name), name.as_bytes()).unwrap();
    }
    let place = SourceLocation::Directory(directory.path().to_owned());
    (directory, place)
}

fn with_id(name: &str, legacy_id: &str) -> ImportItem {
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

async fn found(caller: &Caller, request: FindImportedFilesRequest) -> Vec<ImportedFile> {
    caller.find_imported(request).await.unwrap().files
}

#[test]
fn old_keys_and_ids_lead_to_files_as_far_as_the_caller_sees_them() {
    let (_directory, place) = old(&["all", "hers", "third"]);
    service_test_with(source(place, "*"), |s| async move {
        let (ada, alice, bob) = (s.ada(), s.alice(), s.bob());
        let spec = UploadSpec { visibility: Visibility::Owner.into(), ..UploadSpec::default() };
        let hers = ImportItem { owner_id: "alice".into(), spec: Some(spec), ..with_id("hers", "8") };
        let items = [with_id("all", "7"), hers, with_id("third", "7")];
        let imported = results(&ada.import("old", false, items).await.unwrap());
        let id_of = |place: usize| imported[place].file_id.clone();
        let everyones = found(&bob, by_key(&["all", "hers", "absent"])).await;
        assert_eq!(everyones.len(), 1, "{everyones:?}");
        let all = &everyones[0];
        assert_eq!((all.file_id.clone(), all.source.as_str(), all.key.as_str()), (id_of(0), "old", "all"));
        assert_eq!(all.legacy_id, "7");
        assert!(all.import_time.is_some());
        let ids = |files: Vec<ImportedFile>| files.into_iter().map(|file| file.file_id).collect::<Vec<_>>();
        for sees_all in [&ada, &alice] {
            let mut both = vec![id_of(0), id_of(2)];
            both.sort();
            both.push(id_of(1));
            assert_eq!(ids(found(sees_all, by_id(&["7", "8", "9"])).await), both, "by old id, then by new");
            let hers = FindImportedFilesRequest { legacy_ids: vec!["8".to_owned()], ..by_key(&["hers"]) };
            assert_eq!(ids(found(sees_all, hers).await), [id_of(1)], "found by two names, told once");
        }
        assert_eq!(ids(found(&bob, by_id(&["8"])).await), [""; 0]);
        let elsewhere = FindImportedFilesRequest { source: "other".to_owned(), ..by_key(&["all"]) };
        assert_eq!(ids(found(&ada, elsewhere).await), [""; 0]);
        for stranger in [s.mallory(), s.gus(), s.alice_alone()] {
            let request = FindImportedFilesRequest { legacy_ids: vec!["7".to_owned()], ..by_key(&["all"]) };
            assert_eq!(ids(found(&stranger, request).await), [""; 0]);
        }

        ada.delete(&id_of(0)).await.unwrap();
        assert_eq!(ids(found(&ada, by_id(&["7"])).await), [id_of(2)]);
        let trash = FindImportedFilesRequest { show_deleted: true, ..by_key(&["all"]) };
        assert_eq!(ids(found(&ada, trash.clone()).await), [id_of(0)]);
        ada.purge(&id_of(0)).await.unwrap();
        assert_eq!(ids(found(&ada, trash).await), [""; 0]);
    });
}

#[test]
fn an_old_id_that_many_files_share_says_that_there_are_more() {
    let names: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (_directory, place) = old(&names);
    service_test_with(source(place, "*"), |s| async move {
        let ada = s.ada();
        let items = (0..12).map(|number| with_id(&format!("f{number}"), if number < 11 { "7" } else { "8" }));
        ada.import("old", false, items).await.unwrap();
        let answer = ada.find_imported(by_id(&["7", "8"])).await.unwrap();
        assert_eq!((answer.files.len(), answer.has_more), (11, true));
        let answer = ada.find_imported(by_key(&names)).await.unwrap();
        assert_eq!((answer.files.len(), answer.has_more), (12, false));
    });
}

#[test]
fn a_lookup_of_nothing_or_of_too_much_is_refused() {
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
            let refused = s.bob().find_imported(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            assert_eq!(violated_fields(&refused), fields);
        }
    });
}

#[test]
fn a_lookup_touches_few_rows_however_much_was_imported() {
    const TOUCHED_MAX: i64 = 60;
    service_test(|s| async move {
        let own: TenantId = s.alice().tenant_id().await.parse().unwrap();
        let other: TenantId = s.mallory().tenant_id().await.parse().unwrap();
        for tenant in [own, other] {
            let many = format!(
                "INSERT INTO imports (tenant_id, source_sha256, source, legacy_id, file_id, create_time)
                 SELECT '{tenant}', sha256(('old:' || n)::bytea), 'old:' || n,
                        CASE WHEN n > 50000 THEN n::text ELSE 'shared' END, gen_random_uuid(), now()
                 FROM generate_series(1, 100000) AS n"
            );
            s.owner.run(&many).await;
        }
        s.owner.run("ANALYZE imports").await;
        let (found, touched) = measured(&s, |db| async move {
            let mut tx = db.tenant_tx(own, &Viewer::system()).await.unwrap();
            let digests = ["7", "70000", "absent"].map(|key| import_source_digest("old", key));
            let ids = ["shared", "80000", "absent"].map(str::to_owned);
            let found = imports::list_matching(&mut tx, &digests, &ids, 11).await.unwrap();
            tx.commit().await.unwrap();
            found.len()
        })
        .await;
        // Two by their keys, and by their ids the first of many and one.
        assert_eq!(found, 2 + 11 + 1);
        assert!((1..=TOUCHED_MAX).contains(&touched), "{touched} rows were touched for {found}");
        s.owner.run("TRUNCATE imports").await;
    });
}
