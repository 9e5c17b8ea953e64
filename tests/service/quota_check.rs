//! Checks whether uploads would fit: the limits of each upload, and of all of them together.

use strongroom::proto::v1::{
    Category, CheckQuotaRequest, CheckQuotaResponse, ErrorReason, FileSizeLimits, Quota, QuotaCheckItem,
    QuotaViolation, Visibility,
};
use tonic::{Code, Status};

use crate::{
    categories::category,
    harness::{Caller, file_id, service_test, service_test_with, spec, violated_fields},
};

fn item(size_bytes: i64) -> QuotaCheckItem {
    QuotaCheckItem { size_bytes, ..QuotaCheckItem::default() }
}

async fn check(caller: &Caller, items: Vec<QuotaCheckItem>) -> Result<CheckQuotaResponse, Status> {
    Ok(caller.quotas.clone().check_quota(CheckQuotaRequest { items }).await?.into_inner())
}

fn reasons(violations: &[QuotaViolation]) -> Vec<ErrorReason> {
    violations.iter().map(QuotaViolation::reason).collect()
}

#[test]
fn check_compares_each_upload_and_their_sum() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        alice.upload(spec("a"), &[0; 100]).await.unwrap();
        ada.set_limit_bytes(1000).await;
        let both = check(&alice, vec![item(500), item(400)]).await.unwrap();
        assert!(both.fits && both.violations.is_empty() && both.results.iter().all(|result| result.fits));
        assert_eq!((both.total_bytes, both.available_bytes, both.file_count), (900, 900, 2));
        assert_eq!(both.quota_state.unwrap().used_bytes, 100);

        let above = check(&alice, vec![item(500), item(401), item(901)]).await.unwrap();
        let fitting: Vec<bool> = above.results.iter().map(|result| result.fits).collect();
        assert_eq!((above.fits, fitting), (false, vec![true, true, false]));
        assert_eq!(reasons(&above.violations), [ErrorReason::QuotaBytesExceeded]);
        assert_eq!(reasons(&above.results[2].violations), [ErrorReason::QuotaBytesExceeded]);
        let text = &above.results[2].violations[0].description;
        assert!(text.starts_with("901 more bytes exceed"), "{text}");
        assert_eq!(s.quota_row(&alice).await.reserved_bytes, 0, "nothing is reserved");
    });
}

#[test]
fn check_compares_file_count_size_and_type() {
    service_test(|s| async move {
        let (alice, ada) = (s.alice(), s.ada());
        let limits = FileSizeLimits {
            image_bytes: 10,
            video_bytes: 20,
            audio_bytes: 5,
            document_bytes: 5,
            other_bytes: 5,
        };
        let quota = Quota { file_count_max: 2, file_size_max_bytes: Some(limits), ..Quota::default() };
        ada.update_quota("", quota, &["file_count_max", "file_size_max_bytes"]).await.unwrap();
        let typed =
            |size_bytes, mime_type: &str| QuotaCheckItem { mime_type: mime_type.into(), ..item(size_bytes) };
        let checked = check(&alice, vec![typed(11, "image/png"), item(20), item(21)]).await.unwrap();
        let found: Vec<_> = checked.results.iter().map(|result| reasons(&result.violations)).collect();
        assert_eq!(found, [vec![ErrorReason::FileTooLarge], vec![], vec![ErrorReason::FileTooLarge]]);
        assert_eq!(reasons(&checked.violations), [ErrorReason::QuotaFilesExceeded]);
        assert_eq!((checked.file_count, checked.available_file_count), (3, Some(2)));

        let pictures = category("pictures", Visibility::Organization);
        ada.create_category(Category { types: vec!["image/png".to_owned()], ..pictures }).await.unwrap();
        let picture = |mime_type| QuotaCheckItem { category: "pictures".into(), ..typed(1, mime_type) };
        let checked = check(&alice, vec![picture("image/png"), picture("text/plain")]).await.unwrap();
        assert!(checked.results[0].fits);
        assert_eq!(reasons(&checked.results[1].violations), [ErrorReason::InvalidField]);
    });
}

#[test]
fn check_counts_versions_of_visible_files() {
    service_test_with(
        |config| config.uploads.versions_per_file_max = 3,
        |s| async move {
            let (alice, bob) = (s.alice(), s.bob());
            let file = file_id(&alice.upload(spec("a"), b"1").await.unwrap());
            let version = || QuotaCheckItem { file_id: file.clone(), ..item(1) };
            let checked = check(&alice, vec![version(), version(), version()]).await.unwrap();
            let found: Vec<_> = checked.results.iter().map(|result| reasons(&result.violations)).collect();
            assert_eq!(found, [vec![], vec![], vec![ErrorReason::FileVersionsExceeded]]);
            assert_eq!(checked.file_count, 0);
            for (stranger, code) in [(bob, Code::PermissionDenied), (s.mallory(), Code::NotFound)] {
                assert_eq!(check(&stranger, vec![version()]).await.unwrap_err().code(), code);
            }
        },
    );
}

#[test]
fn check_reports_all_invalid_items() {
    service_test(|s| async move {
        let wrong_file = QuotaCheckItem { file_id: "7".into(), ..item(1) };
        let error = check(&s.alice(), vec![wrong_file]).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["items[0].file_id"]);
        let wrong_category = QuotaCheckItem { category: "nonsense".into(), ..item(1) };
        let error = check(&s.alice(), vec![item(-1), wrong_category]).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["items[0].size_bytes", "items[1].category"]);
        for count in [0, 101] {
            let error = check(&s.alice(), vec![item(1); count]).await.unwrap_err();
            assert_eq!(violated_fields(&error), ["items"]);
        }
        let most = check(&s.alice(), vec![item(i64::MAX); 100]).await.unwrap();
        assert_eq!((most.fits, most.total_bytes), (false, i64::MAX));
    });
}
