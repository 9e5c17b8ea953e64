//! Doubles in metadata: all finite ones come back with the bits that were sent, through every method that stores or
//! returns a file, and after a restart.

use std::collections::BTreeMap;

use prost_types::{ListValue, Struct, Value, value::Kind};
use strongroom::{
    config::import_source::SourceLocation,
    proto::{
        admin::v1::export_tenant_response::Record,
        v1::{
            BatchGetFilesRequest, CopyFileRequest, File, FileView, ImportItem, UpdateFileRequest, UploadSpec,
        },
    },
    worker,
};

use crate::{
    harness::{
        PART, Setup, file_id, import_results, pattern, resume_messages, service_test, service_test_in,
        sha256, spec, violated_fields,
    },
    import::{key, source_config},
    upload_retries::spec_with_id,
    values::get_full,
};

fn number(value: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(value)) }
}

fn numbers_of(values: &[f64]) -> Struct {
    let list = ListValue { values: values.iter().copied().map(number).collect() };
    Struct { fields: BTreeMap::from([("n".to_owned(), Value { kind: Some(Kind::ListValue(list)) })]) }
}

/// Returns the bits of the numbers in metadata.
fn bits_of(file: &File) -> Vec<u64> {
    let Some(Kind::ListValue(list)) = &file.metadata.as_ref().unwrap().fields["n"].kind else {
        panic!("{file:?}")
    };
    let bits = |value: &Value| match value.kind {
        Some(Kind::NumberValue(number)) => number.to_bits(),
        _ => panic!("{value:?}"),
    };
    list.values.iter().map(bits).collect()
}

/// Returns the extremes of finite doubles, and others with random bits.
fn doubles() -> Vec<f64> {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from_bits(state ^ (state >> 29))
    });
    let extremes = [
        0.0,
        -0.0,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        0.1,
        1e23,
        9.007_199_254_740_993e15,
    ];
    extremes.into_iter().chain(random.filter(|number| number.is_finite()).take(400)).collect()
}

#[test]
fn all_finite_doubles_survive_every_door() {
    service_test(|s| async move {
        let (alice, doubles) = (s.alice(), doubles());
        let bits: Vec<u64> = doubles.iter().map(|number| number.to_bits()).collect();
        let metadata = Some(numbers_of(&doubles));
        let with_metadata = |name: &str| UploadSpec { metadata: metadata.clone(), ..spec(name) };

        let with_id = UploadSpec {
            metadata: metadata.clone(),
            ..spec_with_id("a", "0198c0de-1111-7000-8000-0000000000a1", Some(sha256(b"bytes")))
        };
        let uploaded = alice.upload(with_id.clone(), b"bytes").await.unwrap();
        let id = file_id(&uploaded);
        assert_eq!(bits_of(uploaded.file.as_ref().unwrap()), bits, "response of the upload");
        let replayed = alice.upload(with_id, b"bytes").await.unwrap();
        assert_eq!(bits_of(replayed.file.as_ref().unwrap()), bits, "stored response of the upload");
        assert_eq!(bits_of(&alice.get(&id).await.unwrap()), bits, "get");
        assert_eq!(bits_of(&get_full(&alice, &id).await), bits, "list");
        assert_eq!(bits_of(&alice.upload_version(&id, b"more").await.unwrap()), bits, "new version");
        let copy = CopyFileRequest { file_id: id.clone(), ..CopyFileRequest::default() };
        let copy = alice.copy(copy).await.unwrap();
        assert_eq!(bits_of(&copy), bits, "copy");

        let resumable = alice.create_upload(with_metadata("b")).await.unwrap();
        let data = pattern(PART + 1);
        let resumed = alice.send_messages(resume_messages(&resumable.id, &data, 0, true)).await.unwrap();
        assert_eq!(bits_of(resumed.file.as_ref().unwrap()), bits, "stored spec of a resumable upload");

        let plain = file_id(&alice.upload(spec("c"), b"bytes").await.unwrap());
        let change = File { id: plain.clone(), metadata, ..File::default() };
        assert_eq!(bits_of(&alice.update(change, &["metadata"]).await.unwrap()), bits, "update");

        let replica = s.start_replica(|_| {}).await;
        for id in [&id, &copy.id, &plain, &file_id(&resumed)] {
            assert_eq!(bits_of(&replica.alice().get(id).await.unwrap()), bits, "after a restart");
        }
        replica.stop().await;
        let records = s.operator().export_tenant(&alice.tenant_id().await).await.unwrap();
        let exported = records.iter().filter_map(|record| match record {
            Record::File(file) => Some(bits_of(file)),
            _ => None,
        });
        assert_eq!(exported.collect::<Vec<_>>(), vec![bits; 4], "export");
    });
}

#[test]
fn infinite_numbers_are_refused() {
    service_test(|s| async move {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let invalid = UploadSpec { metadata: Some(numbers_of(&[1.0, value])), ..spec("a") };
            let error = s.alice().upload(invalid, b"x").await.unwrap_err();
            assert_eq!(violated_fields(&error), ["spec.metadata"]);
        }
    });
}

#[test]
fn doubles_survive_open_uploads_and_imports() {
    let old = tempfile::tempdir().unwrap();
    std::fs::write(old.path().join("a.txt"), b"bytes").unwrap();
    let location = SourceLocation::Directory(old.path().to_owned());
    let arrange = |setup: &mut Setup| {
        setup.has_urls = true;
        source_config(location, "*")(&mut setup.config);
    };
    service_test_in(None, arrange, |s| async move {
        let doubles = doubles();
        let bits: Vec<u64> = doubles.iter().map(|number| number.to_bits()).collect();
        let with_doubles = UploadSpec { metadata: Some(numbers_of(&doubles)), ..UploadSpec::default() };
        let spec_of =
            |name: &str| UploadSpec { name: name.to_owned(), size_bytes: Some(5), ..with_doubles.clone() };
        let direct = s.alice().create_direct_upload(spec_of("direct")).await.unwrap();
        let parts = s.put_parts(&direct, b"bytes").await;
        let resumable = s.alice().create_upload(spec_of("resumable")).await.unwrap().id;

        // The service restarts while the uploads are open.
        let restarted = s.start_replica(|_| {}).await;
        let alice = restarted.alice();
        let id = {
            let completed = alice.complete_direct_upload(&direct.id, &parts).await.unwrap().file.unwrap();
            assert_eq!(bits_of(&completed), bits, "stored spec of a direct upload");
            let again = alice.complete_direct_upload(&direct.id, &parts).await.unwrap().file.unwrap();
            assert_eq!(bits_of(&again), bits, "stored response of a direct upload");
            completed.id
        };
        worker::run_due_jobs(&restarted.app).await;
        assert_eq!(bits_of(&alice.get(&id).await.unwrap()), bits, "verified direct upload");
        let version = UploadSpec { file_id: id.clone(), size_bytes: Some(3), ..UploadSpec::default() };
        let version = alice.create_direct_upload(version).await.unwrap();
        let parts = s.put_parts(&version, b"new").await;
        let version = alice.complete_direct_upload(&version.id, &parts).await.unwrap().file.unwrap();
        assert_eq!(bits_of(&version), bits, "new version by a direct upload");
        worker::run_due_jobs(&restarted.app).await;
        assert_eq!(bits_of(&alice.get(&id).await.unwrap()), bits, "verified version");

        alice.upload_part(&resumable, 0, b"bytes").await.unwrap();
        for _ in 0..2 {
            let completed = alice.complete_upload(&resumable, 5).await.unwrap();
            assert_eq!(bits_of(&completed), bits, "upload of single parts");
        }

        let item = ImportItem { spec: Some(with_doubles.clone()), ..key("a.txt") };
        let report = restarted.ada().import_files("old", false, [item]).await.unwrap();
        let [imported] = import_results(&report).try_into().unwrap();
        assert_eq!(bits_of(&restarted.ada().get(&imported.file_id).await.unwrap()), bits, "import");
        restarted.stop().await;
    });
}

#[test]
fn doubles_survive_changes_and_their_stored_responses() {
    service_test(|s| async move {
        let (alice, doubles) = (s.alice(), doubles());
        let bits: Vec<u64> = doubles.iter().map(|number| number.to_bits()).collect();
        let metadata = Some(numbers_of(&doubles));
        let id = file_id(&alice.upload(spec("a"), b"one").await.unwrap());
        let update = UpdateFileRequest {
            file: Some(File { id: id.clone(), metadata, ..File::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["metadata".to_owned()] }),
            request_id: "0198c0de-1111-7000-8000-0000000000b1".to_owned(),
            ..UpdateFileRequest::default()
        };
        let copy = CopyFileRequest {
            file_id: id.clone(),
            request_id: "0198c0de-1111-7000-8000-0000000000b2".to_owned(),
            ..CopyFileRequest::default()
        };
        let restarted = s.start_replica(|_| {}).await;
        for caller in [&alice, &restarted.alice()] {
            let updated = caller.files.clone().update_file(update.clone()).await.unwrap().into_inner();
            assert_eq!(bits_of(&updated.file.unwrap()), bits, "update");
            assert_eq!(bits_of(&caller.copy(copy.clone()).await.unwrap()), bits, "copy");
        }
        restarted.stop().await;

        alice.upload_version(&id, b"two").await.unwrap();
        assert_eq!(bits_of(&alice.restore_version(&id, 1).await.unwrap()), bits, "restored version");
        assert_eq!(bits_of(&alice.rename(&id, "b").await.unwrap()), bits, "another field is updated");
        assert_eq!(bits_of(&alice.archive(&id).await.unwrap()), bits, "archive");
        assert_eq!(bits_of(&alice.unarchive(&id).await.unwrap()), bits, "unarchive");
        assert_eq!(bits_of(&s.ada().set_legal_hold(&id, "lawsuit").await.unwrap()), bits, "legal hold");
        let batch = BatchGetFilesRequest { file_ids: vec![id.clone()], view: FileView::Full.into() };
        let batch = alice.files.clone().batch_get_files(batch).await.unwrap().into_inner();
        assert_eq!(bits_of(&batch.files[0]), bits, "batch");
    });
}
