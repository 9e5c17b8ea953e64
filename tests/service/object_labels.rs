//! Each new object carries a label that describes its file, however its bytes arrive, and copies keep it.

use strongroom::{
    domain::{
        object_label::{CopyLabel, label_entries},
        storage_class::StorageClass,
    },
    proto::v1::UploadSpec,
    worker,
};

use crate::{
    direct::complete_without_verification,
    harness::{Caller, PART, Service, direct_test, file_id, pattern, service_test, spec},
};

async fn upload(caller: &Caller, name: &str, data: &[u8]) -> String {
    file_id(&caller.upload(spec(name), data).await.unwrap())
}

#[test]
fn each_new_object_has_a_label_that_hides_its_name() {
    service_test(|s| async move {
        let data = pattern(2 * PART + 1);
        for (name, bytes) in [("Diagnosis Zoë.txt", &b"small"[..]), ("Diagnosis large.bin", &data)] {
            let id = upload(&s.alice(), name, bytes).await;
            let objects = s.store.list("", None, 10).await.unwrap().objects;
            let object = objects.iter().find(|object| object.size_bytes == bytes.len() as u64).unwrap();
            let metadata = s.store.read_metadata(&object.key).await.unwrap();
            let value = |wanted: &str| {
                metadata.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
            };
            assert_eq!((value("file-id"), value("file-version")), (Some(id), Some("1".to_owned())), "{name}");
            assert!(value("label").is_some_and(|label| !label.contains("Diagnosis")), "{metadata:?}");
            assert!(metadata.iter().all(|(_, value)| !value.contains("Diagnosis")), "{metadata:?}");
        }
    });
}

#[test]
fn copies_of_an_object_keep_its_label() {
    service_test(|s| async move {
        s.faults.enable_storage_classes();
        let id = upload(&s.alice(), "archived.txt", b"archived").await;
        let labels = async || -> Vec<Vec<(String, String)>> {
            let mut labels = Vec::new();
            for object in s.store.list("", None, 10).await.unwrap().objects {
                labels.push(s.store.read_metadata(&object.key).await.unwrap());
            }
            labels
        };
        s.alice().archive(&id).await.unwrap();
        while worker::run_round(&s.app).await.done > 0 {}
        let labels = labels().await;
        assert_eq!(labels.len(), 2, "the original and its copy in the archive class");
        let copied: Vec<CopyLabel> =
            labels.iter().filter_map(|label| CopyLabel::from_metadata(label)).collect();
        let blob = s.superuser.query_texts("SELECT id::text FROM blobs").await.remove(0).parse().unwrap();
        assert_eq!(copied, [CopyLabel { blob, class: Some(StorageClass::Archive) }], "only the copy has it");
        assert_eq!(label_entries(labels[0].clone()), label_entries(labels[1].clone()));
        assert!(labels[0].iter().any(|(name, value)| name == "file-id" && *value == id), "{labels:?}");
    });
}

#[test]
fn objects_of_direct_uploads_have_labels() {
    direct_test(|s| async move {
        let alice = s.alice();
        for size in [1_000, 2 * PART + 7] {
            let bytes = pattern(size);
            let id = complete_without_verification(&s, &alice, spec("direct.bin"), &bytes).await;
            while worker::run_round(&s.app).await.done > 0 {}
            let objects = s.store.list("", None, 10).await.unwrap().objects;
            let object = objects.iter().find(|object| object.size_bytes == size as u64).unwrap();
            let metadata = s.store.read_metadata(&object.key).await.unwrap();
            assert!(metadata.contains(&("file-id".to_owned(), id)), "{metadata:?}");
        }
    });
}

#[test]
fn upload_that_begins_again_has_the_label_of_its_file() {
    async fn check(s: Service, is_version: bool) {
        let (alice, data) = (s.alice(), pattern(3 * PART + 1));
        let sized = match is_version {
            true => {
                UploadSpec { file_id: upload(&alice, "first.txt", b"first").await, ..UploadSpec::default() }
            }
            false => spec("resumed.bin"),
        };
        let sized = UploadSpec { size_bytes: Some(data.len() as i64), ..sized };
        let open = alice.create_upload(sized).await.unwrap();
        alice.upload_part(&open.id, 0, &data[..PART]).await.unwrap();
        // As the lifecycle rule of a store does.
        for lost in s.store.list_multiparts("", None, 10).await.unwrap().multiparts {
            s.store.abort_multipart(&lost.key, &lost.id).await.unwrap();
        }
        alice.upload_part(&open.id, PART, &data[PART..2 * PART]).await.unwrap_err();
        let id = file_id(&alice.resume_upload(&open.id, &data, 0, true).await.unwrap());
        let objects = s.store.list("", None, 10).await.unwrap().objects;
        let object = objects.iter().find(|object| object.size_bytes == data.len() as u64).unwrap();
        let metadata = s.store.read_metadata(&object.key).await.unwrap();
        let expected =
            [("file-id", id), ("user-id", "alice".to_owned()), ("tenant-id", alice.tenant_id().await)];
        for (name, value) in expected {
            assert!(metadata.contains(&(name.to_owned(), value)), "{name}: {metadata:?}");
        }
    }
    service_test(|s| check(s, false));
    service_test(|s| check(s, true));
}
