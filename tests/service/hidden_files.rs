//! Counts, flags and timing do not show that a hidden file exists, or how large it is.

use std::fs;

use strongroom::{
    config::import_source::SourceLocation,
    proto::v1::{File, FindImportedFilesRequest, ImportItem, ListFilesRequest, UploadSpec, Visibility},
};
use tonic::Status;

use crate::{
    harness::{Caller, file_id, reason, service_test, service_test_with, spec, take_statements},
    import::{key, source_config},
};

fn owned(name: &str) -> UploadSpec {
    UploadSpec { visibility: Visibility::Owner.into(), ..spec(name) }
}

/// Returns the sums and the entries of the usage that a caller sees.
async fn figures(caller: &Caller) -> (i64, i64, Vec<(String, i64, i64)>) {
    let usage = caller.usage().await.unwrap();
    let entries = usage.entries.into_iter();
    let entries = entries.map(|entry| (entry.category, entry.file_count, entry.total_bytes)).collect();
    (usage.used_bytes, usage.file_count, entries)
}

#[test]
fn usage_counts_visible_files_only() {
    service_test(|s| async move {
        let (alice, bob, maria, ada) = (s.alice(), s.bob(), s.maria(), s.ada());
        let shared = UploadSpec { visibility: Visibility::Organization.into(), ..spec("shared") };
        let shared = file_id(&bob.upload(shared, b"12345").await.unwrap());
        let before = figures(&bob).await;
        assert_eq!((before.0, before.1), (5, 1));

        let secret = file_id(&alice.upload(owned("secret"), &[7; 1234]).await.unwrap());
        assert_eq!(figures(&bob).await, before, "an upload that is hidden from bob");
        let for_managers = UploadSpec { visibility: Visibility::Managers.into(), ..spec("minutes") };
        alice.upload(for_managers, &[7; 100]).await.unwrap();
        assert_eq!(figures(&bob).await, before);
        let of = |usage: &(i64, i64, Vec<(String, i64, i64)>)| (usage.0, usage.1);
        assert_eq!(of(&figures(&maria).await), (105, 2));
        assert_eq!(of(&figures(&alice).await), (1339, 3));
        assert_eq!(of(&figures(&ada).await), (1339, 3));

        // The rest of the tenant's quota is not exact.
        let percent_of = async |caller: &Caller| caller.usage().await.unwrap().used_percent;
        assert!(percent_of(&bob).await.fract() == 0.0, "whole percents");
        assert!(percent_of(&ada).await.fract() > 0.0, "exact for admins");

        // Versions and the trash count as they do in the counters of the tenant.
        bob.upload_version(&shared, b"1234567").await.unwrap();
        assert_eq!(of(&figures(&bob).await), (12, 1));
        alice.delete(&secret).await.unwrap();
        assert_eq!(of(&figures(&alice).await), of(&figures(&ada).await));
        bob.delete(&shared).await.unwrap();
        assert_eq!(of(&figures(&bob).await), (12, 1));
    });
}

#[test]
fn usage_of_many_visible_files_is_a_lower_bound() {
    service_test_with(
        |config| config.lists.count_max = 2,
        |s| async move {
            for size in [1, 2, 4] {
                s.alice().upload(owned("a"), &vec![7; size]).await.unwrap();
            }
            let usage = s.alice().usage().await.unwrap();
            assert!(usage.is_lower_bound);
            assert!(!s.ada().usage().await.unwrap().is_lower_bound);
            assert_eq!(s.ada().usage().await.unwrap().used_bytes, 7);
        },
    );
}

#[test]
fn hidden_imports_do_not_displace_visible_ones() {
    let directory = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..13).map(|number| format!("f{number:02}")).collect();
    for name in &names {
        fs::write(directory.path().join(name), name).unwrap();
    }
    let location = SourceLocation::Directory(directory.path().to_owned());
    service_test_with(source_config(location, "*"), |s| async move {
        let items = names.iter().enumerate().map(|(number, name)| {
            let visibility = if number < 12 { Visibility::Owner } else { Visibility::Organization };
            let item = key(name);
            let spec = UploadSpec { visibility: visibility.into(), ..item.spec.clone().unwrap_or_default() };
            ImportItem { legacy_id: "7".to_owned(), spec: Some(spec), ..item }
        });
        s.ada().import_files("old", false, items).await.unwrap();
        let request = FindImportedFilesRequest {
            legacy_ids: vec!["7".to_owned()],
            ..FindImportedFilesRequest::default()
        };
        let found = s.bob().find_imported_files(request).await.unwrap();
        assert_eq!((found.files.len(), found.has_more), (1, false));
    });
}

/// Calls every method that names a file.
async fn call_methods(caller: &Caller, id: &str) -> Vec<(&'static str, Status)> {
    let file = File { id: id.to_owned(), name: "b".to_owned(), ..File::default() };
    vec![
        ("get", caller.get(id).await.unwrap_err()),
        ("download", caller.read(id).await.unwrap_err()),
        ("update", caller.update(file, &["name"]).await.unwrap_err()),
        ("delete", caller.delete(id).await.unwrap_err()),
        ("undelete", caller.undelete(id).await.unwrap_err()),
        ("archive", caller.archive(id).await.unwrap_err()),
        ("batch delete", caller.batch_delete(&[id]).await.unwrap_err()),
        ("list versions", caller.list_versions(id, 0).await.unwrap_err()),
        ("restore version", caller.restore_version(id, 1).await.unwrap_err()),
        ("delete version", caller.delete_version(id, 1).await.unwrap_err()),
        ("upload version", caller.upload_version(id, b"x").await.unwrap_err()),
        ("purge", caller.purge(id).await.unwrap_err()),
    ]
}

#[test]
fn hidden_file_takes_the_path_of_a_random_id() {
    service_test(|s| async move {
        let hidden = file_id(&s.alice().upload(owned("secret"), b"secret").await.unwrap());
        let bob = s.bob();
        let random = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
        bob.list(ListFilesRequest::default()).await.unwrap();
        let mut paths = Vec::new();
        for id in [&hidden, &random] {
            take_statements();
            let mut path = Vec::new();
            for (method, refused) in call_methods(&bob, id).await {
                let details = refused.message().replace(id.as_str(), "<id>");
                path.push(format!("{method}: {:?} {} {details}", refused.code(), reason(&refused)));
            }
            path.extend(take_statements());
            paths.push(path);
        }
        assert!(paths[0].len() > 30, "statements are recorded: {:?}", paths[0]);
        assert_eq!(paths[0], paths[1]);
    });
}
