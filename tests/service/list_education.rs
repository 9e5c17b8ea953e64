//! Who sees what at a school: by category, role, class and ownership; the same in lists, gets and downloads.

use strongroom::proto::v1::{EntityRef, FileFilter, ListFilesRequest, UploadSpec, Visibility};
use tonic::Code;

use crate::{
    harness::{Caller, Service, file_id, service_test, spec},
    list::ORDERS,
};

async fn stored(caller: &Caller, category: &str, class: Option<&str>) -> String {
    let attachments = class
        .map(|class| EntityRef { r#type: "class".into(), id: class.into(), field: String::new() })
        .into_iter()
        .collect();
    let name = format!("{category} of {}", caller.identity.user);
    let told = UploadSpec { category: category.into(), attachments, ..spec(&name) };
    file_id(&caller.upload(told, name.as_bytes()).await.unwrap())
}

/// One file of every category by the pupil, and lessons by the teacher for two classes. Each with who sees it.
async fn school(s: &Service) -> Vec<(String, &'static [&'static str])> {
    let (pupil, teacher) = (s.pupil(), s.teacher());
    vec![
        (stored(&pupil, "educational_content", None).await, &["pupil", "teacher", "head"][..]),
        (stored(&pupil, "student_submission", None).await, &["pupil", "teacher", "head"]),
        (stored(&pupil, "assessment", None).await, &["pupil", "teacher", "head"]),
        (stored(&pupil, "administrative", None).await, &["pupil", "head"]),
        (stored(&pupil, "media_resource", None).await, &["pupil", "friend", "teacher", "head"]),
        (stored(&pupil, "temporary", None).await, &["pupil", "head"]),
        (stored(&pupil, "avatar", None).await, &["pupil", "friend", "teacher", "head"]),
        (stored(&pupil, "report", None).await, &["pupil", "head"]),
        (stored(&teacher, "educational_content", Some("7a")).await, &["friend", "teacher", "head"]),
        (stored(&teacher, "educational_content", Some("8b")).await, &["teacher", "head"]),
        // Only lessons are for the class that they are attached to.
        (stored(&teacher, "report", Some("7a")).await, &["teacher", "head"]),
    ]
}

#[test]
fn everyone_sees_what_the_policy_says_by_every_door() {
    service_test(|s| async move {
        let files = school(&s).await;
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
                    let listed = ids(&caller, order_by, page_size, FileFilter::default()).await;
                    assert_eq!(listed, expected, "{user} by {order_by}, {page_size} a page");
                }
            }
        }
    });
}

/// The ids on all pages, sorted; each once.
async fn ids(caller: &Caller, order_by: &str, page_size: i32, filter: FileFilter) -> Vec<String> {
    let mut asked =
        ListFilesRequest { order_by: order_by.into(), page_size, filter: Some(filter), ..Default::default() };
    let mut ids = Vec::new();
    loop {
        let page = caller.list(asked.clone()).await.unwrap();
        ids.extend(page.files.into_iter().map(|file| file.id));
        if page.next_page_token.is_empty() {
            ids.sort();
            return ids;
        }
        asked.page_token = page.next_page_token;
    }
}

#[test]
fn totals_and_owner_filters_count_only_what_the_caller_sees() {
    service_test(|s| async move {
        let files = school(&s).await;
        for caller in [s.pupil(), s.friend(), s.teacher(), s.head()] {
            let user = caller.identity.user.as_str();
            for owner in ["", "pupil", "teacher", "nobody"] {
                let of_owner = files.iter().enumerate().filter(|(n, _)| match owner {
                    "" => true,
                    "pupil" => *n < 8,
                    "teacher" => *n >= 8,
                    _ => false,
                });
                let expected = of_owner.filter(|(_, (_, seen_by))| seen_by.contains(&user)).count();
                let filter = FileFilter { owner_id: owner.into(), ..Default::default() };
                assert_eq!(
                    ids(&caller, "name", 2, filter.clone()).await.len(),
                    expected,
                    "{user} of {owner}"
                );
                let asked =
                    ListFilesRequest { include_total: true, filter: Some(filter), ..Default::default() };
                assert_eq!(
                    caller.list(asked).await.unwrap().total_size,
                    Some(expected as i64),
                    "{user} of {owner}"
                );
            }
        }
    });
}

#[test]
fn the_trash_shows_each_what_they_saw_before() {
    service_test(|s| async move {
        let files = school(&s).await;
        let head = s.head();
        for (id, _) in &files {
            head.delete(id).await.unwrap();
        }
        for caller in [s.pupil(), s.friend(), s.teacher(), s.head()] {
            let user = caller.identity.user.as_str();
            let expected = files.iter().filter(|(_, seen_by)| seen_by.contains(&user)).count();
            for order_by in ORDERS {
                let asked = ListFilesRequest {
                    show_deleted: true,
                    page_size: 2,
                    order_by: order_by.into(),
                    ..Default::default()
                };
                assert_eq!(caller.names(asked).await.len(), expected, "{user} by {order_by}");
            }
            assert!(caller.names(ListFilesRequest::default()).await.is_empty());
        }
    });
}

#[test]
fn a_visibility_in_the_spec_overrules_the_category() {
    service_test(|s| async move {
        let pupil = s.pupil();
        let cases = [
            (Visibility::Owner, [true, false, false, true]),
            (Visibility::Managers, [true, false, true, true]),
            (Visibility::Organization, [true, true, true, true]),
            (Visibility::Public, [true, true, true, true]),
        ];
        for (visibility, seen) in cases {
            let told = UploadSpec { visibility: visibility.into(), category: "report".into(), ..spec("a") };
            let id = file_id(&pupil.upload(told, b"x").await.unwrap());
            for (caller, sees) in [s.pupil(), s.friend(), s.teacher(), s.head()].iter().zip(seen) {
                assert_eq!(caller.get(&id).await.is_ok(), sees, "{visibility:?} {}", caller.identity.user);
            }
        }
        assert_eq!(
            s.alice().names(ListFilesRequest::default()).await,
            [""; 0],
            "public is not for other tenants"
        );
    });
}
