//! Visibility of files in the `education` preset, by category, role, class and ownership. Lists, gets and
//! downloads must agree.

use strongroom::proto::v1::{EntityRef, FileFilter, ListFilesRequest, UploadSpec, Visibility};
use tonic::Code;

use crate::{
    harness::{Caller, Service, file_id, service_test, spec},
    list::ORDERS,
};

async fn upload_file(caller: &Caller, category: &str, class: Option<&str>) -> String {
    let attachments = class
        .map(|class| EntityRef { r#type: "class".into(), id: class.into(), field: String::new() })
        .into_iter()
        .collect();
    let name = format!("{category} of {}", caller.identity.user);
    let spec = UploadSpec { category: category.into(), attachments, ..spec(&name) };
    file_id(&caller.upload(spec, name.as_bytes()).await.unwrap())
}

/// Uploads one file of every category as the pupil, and lessons for two classes as the teacher. Returns each
/// file with the users who may see it.
async fn upload_school_files(s: &Service) -> Vec<(String, &'static [&'static str])> {
    let (pupil, teacher) = (s.pupil(), s.teacher());
    vec![
        (upload_file(&pupil, "educational_content", None).await, &["pupil", "teacher", "head"][..]),
        (upload_file(&pupil, "student_submission", None).await, &["pupil", "teacher", "head"]),
        (upload_file(&pupil, "assessment", None).await, &["pupil", "teacher", "head"]),
        (upload_file(&pupil, "administrative", None).await, &["pupil", "head"]),
        (upload_file(&pupil, "media_resource", None).await, &["pupil", "friend", "teacher", "head"]),
        (upload_file(&pupil, "temporary", None).await, &["pupil", "head"]),
        (upload_file(&pupil, "avatar", None).await, &["pupil", "friend", "teacher", "head"]),
        (upload_file(&pupil, "report", None).await, &["pupil", "head"]),
        (upload_file(&teacher, "educational_content", Some("7a")).await, &["friend", "teacher", "head"]),
        (upload_file(&teacher, "educational_content", Some("8b")).await, &["teacher", "head"]),
        // Only educational content is visible to the class that it is attached to.
        (upload_file(&teacher, "report", Some("7a")).await, &["teacher", "head"]),
    ]
}

#[test]
fn lists_gets_and_downloads_agree_on_visibility() {
    service_test(|s| async move {
        let files = upload_school_files(&s).await;
        for caller in [s.pupil(), s.friend(), s.teacher(), s.head()] {
            let user = caller.identity.user.as_str();
            let mut expected = Vec::new();
            for (id, seen_by) in &files {
                let sees = seen_by.contains(&user);
                for outcome in [caller.get(id).await.map(|_| ()), caller.read(id).await.map(|_| ())] {
                    match outcome {
                        Ok(()) => assert!(sees, "{user} reads {id}"),
                        Err(status) => {
                            assert!(!sees && status.code() == Code::NotFound, "{user}: {status:?}")
                        }
                    }
                }
                if sees {
                    expected.push(id.clone());
                }
            }
            expected.sort();
            for order_by in ORDERS {
                for page_size in [1, 2, 100] {
                    let listed = list_ids(&caller, order_by, page_size, FileFilter::default()).await;
                    assert_eq!(listed, expected, "{user} by {order_by}, {page_size} a page");
                }
            }
        }
    });
}

/// Lists the ids across all pages and sorts them.
async fn list_ids(caller: &Caller, order_by: &str, page_size: i32, filter: FileFilter) -> Vec<String> {
    let mut request =
        ListFilesRequest { order_by: order_by.into(), page_size, filter: Some(filter), ..Default::default() };
    let mut ids = Vec::new();
    loop {
        let page = caller.list(request.clone()).await.unwrap();
        ids.extend(page.files.into_iter().map(|file| file.id));
        if page.next_page_token.is_empty() {
            ids.sort();
            return ids;
        }
        request.page_token = page.next_page_token;
    }
}

#[test]
fn totals_count_only_files_visible_to_caller() {
    service_test(|s| async move {
        let files = upload_school_files(&s).await;
        for caller in [s.pupil(), s.friend(), s.teacher(), s.head()] {
            let user = caller.identity.user.as_str();
            for owner in ["", "pupil", "teacher", "nobody"] {
                let owned = files.iter().enumerate().filter(|(n, _)| match owner {
                    "" => true,
                    "pupil" => *n < 8,
                    "teacher" => *n >= 8,
                    _ => false,
                });
                let expected = owned.filter(|(_, (_, seen_by))| seen_by.contains(&user)).count();
                let filter = FileFilter { owner_id: owner.into(), ..Default::default() };
                assert_eq!(
                    list_ids(&caller, "name", 2, filter.clone()).await.len(),
                    expected,
                    "{user}, owner {owner}"
                );
                let request =
                    ListFilesRequest { include_total: true, filter: Some(filter), ..Default::default() };
                assert_eq!(
                    caller.list(request).await.unwrap().total_size,
                    Some(expected as i64),
                    "{user}, owner {owner}"
                );
            }
        }
    });
}

#[test]
fn trash_keeps_visibility() {
    service_test(|s| async move {
        let files = upload_school_files(&s).await;
        let head = s.head();
        for (id, _) in &files {
            head.delete(id).await.unwrap();
        }
        for caller in [s.pupil(), s.friend(), s.teacher(), s.head()] {
            let user = caller.identity.user.as_str();
            let expected = files.iter().filter(|(_, seen_by)| seen_by.contains(&user)).count();
            for order_by in ORDERS {
                let request = ListFilesRequest {
                    show_deleted: true,
                    page_size: 2,
                    order_by: order_by.into(),
                    ..Default::default()
                };
                assert_eq!(caller.list_names(request).await.len(), expected, "{user} by {order_by}");
            }
            assert!(caller.list_names(ListFilesRequest::default()).await.is_empty());
        }
    });
}

#[test]
fn visibility_of_spec_overrides_category() {
    service_test(|s| async move {
        let pupil = s.pupil();
        let cases = [
            (Visibility::Owner, [true, false, false, true]),
            (Visibility::Managers, [true, false, true, true]),
            (Visibility::Organization, [true, true, true, true]),
            (Visibility::Public, [true, true, true, true]),
        ];
        for (visibility, seen) in cases {
            let spec = UploadSpec { visibility: visibility.into(), category: "report".into(), ..spec("a") };
            let id = file_id(&pupil.upload(spec, b"x").await.unwrap());
            for (caller, sees) in [s.pupil(), s.friend(), s.teacher(), s.head()].iter().zip(seen) {
                assert_eq!(caller.get(&id).await.is_ok(), sees, "{visibility:?} {}", caller.identity.user);
            }
        }
        assert_eq!(
            s.alice().list_names(ListFilesRequest::default()).await,
            [""; 0],
            "public files are not visible to other tenants"
        );
    });
}
