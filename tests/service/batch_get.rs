//! `BatchGetFiles` returns several records in one call.

use strongroom::proto::v1::{
    BatchGetFilesRequest, BatchGetFilesResponse, FileState, FileView, UploadSpec, Visibility,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{Caller, file_id, service_test, spec};

const RANDOM: &str = "0198c0de-7777-7000-8000-00000000abcd";

async fn batch_get(caller: &Caller, ids: &[&str], view: FileView) -> Result<BatchGetFilesResponse, Status> {
    let file_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let request = BatchGetFilesRequest { file_ids, view: view.into() };
    Ok(caller.files.clone().batch_get_files(request).await?.into_inner())
}

async fn upload_file(caller: &Caller, spec: UploadSpec) -> String {
    file_id(&caller.upload(spec, b"x").await.unwrap())
}

#[test]
fn batch_get_keeps_order_and_reports_hidden_files_as_missing() {
    service_test(|s| async move {
        let (alice, bob) = (s.alice(), s.bob());
        let tagged = upload_file(&bob, UploadSpec { tags: vec!["blue".to_owned()], ..spec("tagged") }).await;
        let own = UploadSpec { visibility: Visibility::Owner.into(), ..spec("own") };
        let (hidden, own) = (upload_file(&bob, own.clone()).await, upload_file(&alice, own).await);
        let foreign = upload_file(&s.mallory(), spec("foreign")).await;
        let deleted = upload_file(&alice, spec("deleted")).await;
        alice.delete(&deleted).await.unwrap();

        let ids = [own.as_str(), &hidden, &deleted, RANDOM, &tagged, &foreign, &own];
        let found = batch_get(&alice, &ids, FileView::Full).await.unwrap();
        let names: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["own", "deleted", "tagged"]);
        assert_eq!(found.files[1].state(), FileState::Deleted);
        assert_eq!(
            found.files[2],
            alice.get(&tagged).await.unwrap(),
            "the full view is the response of GetFile"
        );
        assert_eq!(found.missing_file_ids, [hidden.as_str(), RANDOM, &foreign]);
        let basic = batch_get(&alice, &[&tagged], FileView::Unspecified).await.unwrap();
        assert!(basic.files[0].tags.is_empty(), "the basic view has no tags");
    });
}

#[test]
fn all_field_violations_of_batch_get_are_reported_together() {
    service_test(|s| async move {
        let alice = s.alice();
        let violations = |status: &Status| -> Vec<String> {
            let bad = status.get_details_bad_request().unwrap();
            bad.field_violations.into_iter().map(|violation| violation.field).collect()
        };
        let file_ids = vec!["7".to_owned(), RANDOM.to_owned(), String::new()];
        let request = BatchGetFilesRequest { file_ids, view: 99 };
        let error = alice.files.clone().batch_get_files(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(violations(&error), ["file_ids[0]", "file_ids[2]", "view"]);
        for count in [0, 101] {
            let error = batch_get(&alice, &vec![RANDOM; count], FileView::Basic).await.unwrap_err();
            assert_eq!(violations(&error), ["file_ids"], "{count}");
        }
        assert_eq!(
            batch_get(&alice, &[RANDOM; 100], FileView::Basic).await.unwrap().missing_file_ids,
            [RANDOM]
        );
    });
}
