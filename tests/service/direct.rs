//! What can be said of direct uploads without a store that gives URLs; the rest is in `tests/e2e/direct.rs`.

use strongroom::proto::v1::{
    CompleteUploadRequest, CompletedPart, CreateUploadRequest, GetUploadRequest, UploadSpec,
};
use tonic::Code;

use crate::harness::{reason, service_test, spec, violated_fields};

#[test]
fn a_store_without_urls_takes_no_direct_upload_and_nothing_is_reserved() {
    service_test(|s| async move {
        let alice = s.alice();
        let spec = UploadSpec { size_bytes: Some(1000), ..spec("a.bin") };
        let request = CreateUploadRequest { spec: Some(spec), direct: true };
        let refused = alice.files.clone().create_upload(request).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::FailedPrecondition, "DIRECT_UPLOAD_UNSUPPORTED".to_owned())
        );
        assert!(refused.message().contains("UploadFile"), "{refused:?}");
        assert_eq!(alice.quota().await.unwrap().reserved_bytes, 0);
    });
}

#[test]
fn a_direct_upload_needs_its_size_and_is_no_version_and_all_that_is_wrong_is_named() {
    service_test(|s| async move {
        let alice = s.alice();
        let create = async |spec| {
            let request = CreateUploadRequest { spec: Some(spec), direct: true };
            alice.files.clone().create_upload(request).await
        };
        let spec = UploadSpec { name: String::new(), ..UploadSpec::default() };
        let refused = create(spec).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(violated_fields(&refused), ["spec.size_bytes", "spec.name"]);
        let file_id = "0193a7a0-0000-7000-8000-000000000000".to_owned();
        let version = UploadSpec { file_id, size_bytes: Some(1), ..UploadSpec::default() };
        assert_eq!(violated_fields(&create(version).await.unwrap_err()), ["spec.file_id"]);
    });
}

#[test]
fn an_upload_through_the_service_has_no_urls_and_takes_no_parts() {
    service_test(|s| async move {
        let alice = s.alice();
        let upload_id = alice.create(spec("a.bin")).await.unwrap().id;
        let parts = vec![CompletedPart { number: 1, etag: "x".to_owned() }];
        let request =
            CompleteUploadRequest { upload_id: upload_id.clone(), parts, ..CompleteUploadRequest::default() };
        let refused = alice.files.clone().complete_upload(request).await.unwrap_err();
        assert_eq!(reason(&refused), "UPLOAD_NOT_DIRECT");
        let request = GetUploadRequest { upload_id: upload_id.clone(), with_urls: true };
        let refused = alice.files.clone().get_upload(request).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::FailedPrecondition, "UPLOAD_NOT_DIRECT".to_owned())
        );
        alice.cancel(&upload_id).await.unwrap();
    });
}
